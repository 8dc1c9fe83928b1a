// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/bpf"
)

// update is set when testdata is to be written instead of compared with.
var update = flag.Bool("update", false, "write testdata/: what decoding the recordings gives, and recordings of this kernel (directory: PATHTRACE_RECORD)")

// Recording is what [TestFacts] took down on one kernel with one family of
// hooks: the records of the ring buffer as the kernel wrote them, and the names that decoding takes.
type Recording struct {
	Drops, Resets map[uint32]string
	Symbols       map[uint64]string // every address that was asked for
	Netns         uint32            // inode number of the namespace that is "here"
	Tables        []RecordedTable   // of x_tables, by slot
	Observers     []RecordedObservers
	Samples       [][]byte
}

type RecordedTable struct {
	Family int
	Table  string
}

type RecordedObservers struct {
	Netns      uint32
	Pf, Hook   uint8
	Priorities []int
}

// Into has the records of a tracer that is yet to be opened taken down. The
// names of tasks that a packet happened to interrupt are those of the machine, and are left out.
func (r *Recording) Into(o *Options, own ...string) {
	at := int(unsafe.Offsetof(bpf.TracepointEvent{}.Comm))
	o.raw = func(b []byte) {
		b = bytes.Clone(b)
		if comm := b[at : at+16]; !slices.Contains(own, cstring(comm)) {
			clear(comm)
			copy(comm, "task")
		}
		r.Samples = append(r.Samples, b)
	}
}

// Names adds what t knows: it is called when t has decoded everything.
func (r *Recording) Names(t *Tracer) {
	r.Drops, r.Resets, r.Symbols = t.dec.drops, t.dec.resets, t.dec.symbols.(*symbols).known
	for _, s := range t.slots {
		r.Tables = append(r.Tables, RecordedTable{s.family, s.table})
	}
	for k, p := range t.ranks {
		r.Observers = append(r.Observers, RecordedObservers{k.netns, k.pf, k.hook, p})
	}
}

// Write writes the recording as gzipped JSON.
func (r *Recording) Write(file string) error {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if err := json.NewEncoder(z).Encode(r); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}

func readRecording(t *testing.T, file string) *Recording {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	var r Recording
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

type recordedSymbols map[uint64]string

func (r recordedSymbols) names(addresses []uint64) ([]string, error) {
	out := make([]string, len(addresses))
	for i, a := range addresses {
		out[i] = r[a]
	}
	return out, nil
}

// decode has a tracer that never was attached to anything decode the records.
func (r *Recording) decode(t *testing.T) string {
	t.Helper()
	var out bytes.Buffer
	line := json.NewEncoder(&out)
	line.SetEscapeHTML(false)
	write := func(v any) {
		if err := line.Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	tr := Tracer{ranks: map[rankKey][]int{}, take: func(rec Record) {
		switch {
		case rec.Unseen != "":
			write(map[string]string{"unseen": rec.Unseen})
		case rec.Counters != nil:
			write(rec.Counters)
		default:
			write(rec.Event)
		}
	}}
	tr.dec = decoder{drops: r.Drops, resets: r.Resets, symbols: recordedSymbols(r.Symbols), netns: func(inode uint32) string {
		if inode == r.Netns {
			return "here"
		}
		return "elsewhere"
	}}
	for _, s := range r.Tables {
		tr.slots = append(tr.slots, &xtSlot{family: s.Family, table: s.Table})
	}
	for _, o := range r.Observers {
		tr.ranks[rankKey{o.Netns, o.Pf, o.Hook}] = o.Priorities
	}
	for i, raw := range r.Samples {
		if err := tr.record(raw); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		for _, h := range tr.inventory {
			if h.netns == r.Netns {
				write(h.Hook)
			}
		}
		tr.inventory = nil
	}
	return out.String()
}

// TestDecode decodes the records of several kernels' ring buffers, and holds
// every event against the one that was read and found right when they were taken down.
func TestDecode(t *testing.T) {
	files, err := filepath.Glob("testdata/*.samples.gz")
	if err != nil {
		t.Fatal(err)
	}
	for _, kernel := range []string{"6.1", "6.12", "6.18"} {
		if !slices.ContainsFunc(files, func(f string) bool { return strings.HasPrefix(filepath.Base(f), kernel+"-") }) {
			t.Errorf("no recording of Linux %s", kernel)
		}
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".samples.gz"), func(t *testing.T) {
			got := readRecording(t, file).decode(t)
			golden := strings.TrimSuffix(file, ".samples.gz") + ".events.jsonl"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
				t.Errorf("%s (-want +got; where struct event changed, record again: make vm-record)\n%s", golden, d)
			}
		})
	}
}

// The drop reasons that a kernel knows are those of its list, which package
// verdict holds its causes against.
func TestReasonLists(t *testing.T) {
	for _, kernel := range []string{"6.1", "6.12", "6.18"} {
		t.Run(kernel, func(t *testing.T) {
			r := readRecording(t, "testdata/"+kernel+"-"+Tracepoint+".samples.gz")
			got := slices.Compact(slices.Sorted(maps.Values(r.Drops)))
			file := "../verdict/testdata/reasons-" + kernel + ".txt"
			if *update {
				if err := os.WriteFile(file, []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(strings.Fields(string(text)), got); d != "" {
				t.Errorf("%s (-want +got):\n%s", file, d)
			}
		})
	}
}
