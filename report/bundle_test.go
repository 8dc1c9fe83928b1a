// SPDX-License-Identifier: Apache-2.0

package report

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// recorded returns every case of the verdict's tests, by name.
func recorded(t testing.TB) map[string]evidence.Case {
	t.Helper()
	files, err := filepath.Glob("../verdict/testdata/cases/*/case.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	all := map[string]evidence.Case{}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		s, err := ReadCase(f)
		f.Close()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[filepath.Base(filepath.Dir(name))] = s.Case
	}
	return all
}

func write(t testing.TB, b Bundle) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := WriteBundle(&out, b); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func read(data []byte) (Saved, error) {
	return ReadBundle(bytes.NewReader(data), int64(len(data)))
}

// TestBundleRoundTrip: what is read is what was written, and is judged to be the same.
func TestBundleRoundTrip(t *testing.T) {
	for name, c := range recorded(t) {
		d := NewDocument(c, verdict.Judge(&c))
		got, err := read(write(t, Bundle{Document: d, Config: []File{{"init/nft.txt", []byte("table inet fw {}\n")}}}))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if x := cmp.Diff(d, got.Document(verdict.Judge, d.Tool)); x != "" {
			t.Errorf("%s (-want +got):\n%s", name, x)
		}
		if got.Verdict == nil {
			t.Errorf("%s: its verdict was not read", name)
		}
	}
}

// TestBundleContents: every file is there once, private, and in the manifest with its hash.
func TestBundleContents(t *testing.T) {
	s := stories["nft-drop"]()
	data := write(t, Bundle{Document: NewDocument(s.c, s.v), Config: []File{{"pt-s/nft.txt", []byte("x")}},
		Unread: map[string]string{"config/pt-s/sysctls.txt": "not installed"}, Substituted: map[string]int{"hosts": 1}})
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	var m Manifest
	raw, err := fs.ReadFile(z, "manifest.json")
	if err != nil || json.Unmarshal(raw, &m) != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range m.Files {
		names = append(names, f.Name)
		data, err := fs.ReadFile(z, f.Name)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(data)
		if f.SHA256 != hex.EncodeToString(sum[:]) || f.Size != int64(len(data)) {
			t.Errorf("%s: the manifest is wrong", f.Name)
		}
	}
	want := []string{"case.json", "verdict.json", "report.md", "report.html", "packets.pcapng", "redaction.json", "config/pt-s/nft.txt"}
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
	if len(z.File) != len(want)+1 || !m.Redacted || m.Unread["config/pt-s/sysctls.txt"] == "" || m.Case != s.c.ID {
		t.Errorf("manifest %+v, %d files", m, len(z.File))
	}
	for _, f := range z.File {
		if f.Mode() != 0o600 {
			t.Errorf("%s has mode %v", f.Name, f.Mode())
		}
	}
}

// manifestOf returns the manifest of a bundle, and the names of its files.
func manifestOf(t *testing.T, data []byte) (m Manifest, names []string) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := fs.ReadFile(z, manifestName)
	if err != nil || json.Unmarshal(raw, &m) != nil {
		t.Fatal(err)
	}
	for _, f := range z.File {
		names = append(names, f.Name)
	}
	return m, names
}

func TestWriteBundleRefuses(t *testing.T) {
	s := stories["reachable"]()
	d := NewDocument(s.c, s.v)
	many := d
	many.Events = make([]evidence.Event, maxObjects)
	for name, b := range map[string]Bundle{
		"up":    {Document: d, Config: []File{{"../../../x", nil}}},
		"name":  {Document: d, Config: []File{{"a\nb", nil}}},
		"large": {Document: d, Config: []File{{"x", make([]byte, maxBundleFile+1)}}},
		"many":  {Document: many},
	} {
		if err := WriteBundle(io.Discard, b); err == nil {
			t.Errorf("%s was written", name)
		}
	}
}

// entry is a file of a hostile archive.
type entry struct {
	name string
	data []byte
	head func(*zip.FileHeader)
}

// archive makes a zip of entries; the manifest, unless it is among them, names them all truly.
func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var m Manifest
	have := false
	for _, e := range entries {
		sum := sha256.Sum256(e.data)
		m.Files = append(m.Files, ManifestFile{e.name, int64(len(e.data)), hex.EncodeToString(sum[:])})
		have = have || e.name == manifestName
	}
	if !have {
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, entry{name: manifestName, data: data})
	}
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		if e.head != nil {
			e.head(h)
		}
		w, err := z.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

const smallCase = `{"format_version": "1.0", "target": {"address": "10.0.0.5", "protocol": "tcp"}}`

func TestReadBundleRefuses(t *testing.T) {
	s := stories["nft-drop"]()
	sound := write(t, Bundle{Document: NewDocument(s.c, s.v)})
	small := entry{name: "case.json", data: []byte(smallCase)}
	if _, err := read(archive(t, small)); err != nil {
		t.Fatalf("the archive that the others are made from: %v", err)
	}
	flip := func(at int) []byte {
		b := bytes.Clone(sound)
		b[at] ^= 0x40
		return b
	}
	many := make([]entry, maxFiles+1)
	for i := range many {
		many[i].name = fmt.Sprint(i)
	}
	long := make([]entry, 6000)
	for i := range long {
		long[i].name = fmt.Sprintf("%0200d", i)
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"cut off":       {sound[:len(sound)/2], "damaged or cut off"},
		"only its head": {[]byte("PK\x03\x04"), "damaged or cut off"},
		"changed":       {flip(bytes.Index(sound, []byte("case.json")) + 200), "case.json: "},
		"no case":       {archive(t, entry{name: "x", data: []byte("x")}), "case.json is missing"},
		"no manifest":   {archive(t, small, entry{name: manifestName, data: []byte(`{"files":[]}`)}), "case.json is not in the manifest"},
		"not JSON":      {archive(t, small, entry{name: manifestName, data: []byte(`[`)}), "is not a manifest"},
		"wrong hash": {archive(t, small, entry{name: manifestName, data: []byte(fmt.Sprintf(
			`{"files":[{"name":"case.json","size":%d,"sha256":"00"}]}`, len(smallCase)))}), "SHA-256"},
		"upwards":   {archive(t, small, entry{name: "../../etc/cron.d/x"}), "a file is called ../../etc/cron.d/x"},
		"absolute":  {archive(t, small, entry{name: "/etc/passwd"}), "a file is called /etc/passwd"},
		"backslash": {archive(t, small, entry{name: `..\x`}), "a file is called"},
		"escape":    {archive(t, small, entry{name: "\x1b[2J"}), `a file is called \x1b[2J`},
		"directory": {archive(t, small, entry{name: "config/"}), "a file is called config/"},
		"link": {archive(t, small, entry{name: "x", data: []byte("/etc/shadow"), head: func(h *zip.FileHeader) { h.SetMode(fs.ModeSymlink | 0o777) }}),
			"x is not a plain file"},
		"twice":        {archive(t, small, small), "there twice"},
		"case-folded":  {archive(t, small, entry{name: "Case.json"}), "there twice"},
		"many files":   {archive(t, many...), "more than 1024 files"},
		"long names":   {archive(t, long...), "table of contents is too large"},
		"large case":   {archive(t, entry{name: "case.json", data: bytes.Repeat([]byte(" "), maxBundleCase+1)}), "larger than 8 MiB"},
		"bomb":         {archive(t, small, entry{name: "x", data: make([]byte, maxBundleFile+1)}), "larger than 16 MiB"},
		"many objects": {archive(t, entry{name: "case.json", data: nulls("namespaces")}), "more than 10000 events"},
		"deep":         {archive(t, entry{name: "case.json", data: []byte(strings.Repeat("[", 100))}), "nested too deep"},
		"no case in it": {archive(t, entry{name: "case.json", data: []byte(`{}`)}),
			"no format_version"},
		"size that lies": {lie(t, archive(t, small, entry{name: "x", data: make([]byte, 1<<20)})), ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(c.data)
			if err == nil || !strings.HasPrefix(err.Error(), "not a sound bundle: ") || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	if _, err := ReadBundle(bytes.NewReader(sound), MaxBundle+1); err == nil {
		t.Error("too large an archive was read")
	}
}

func nulls(list string) []byte {
	return []byte(`{"format_version":"1.0","` + list + `":[` + strings.Repeat("null,", maxObjects+1) + `null]}`)
}

// lie has the table of contents claim that every file unpacks to ten bytes.
func lie(t *testing.T, data []byte) []byte {
	t.Helper()
	data = bytes.Clone(data)
	n := 0
	for i := 0; ; n++ {
		j := bytes.Index(data[i:], []byte("PK\x01\x02"))
		if j < 0 {
			break
		}
		binary.LittleEndian.PutUint32(data[i+j+24:], 10)
		i += j + 4
	}
	if n == 0 {
		t.Fatal("no table of contents")
	}
	return data
}

// heap returns how much f allocates in all, which is more than it ever holds.
func heap(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// FuzzReadBundle takes any archive: no crash, and no more than 64 MiB.
func FuzzReadBundle(f *testing.F) {
	s := stories["nft-drop"]()
	f.Add(write(f, Bundle{Document: NewDocument(s.c, s.v)}))
	f.Add(archive(f, entry{name: "case.json", data: []byte(smallCase)}))
	f.Add(archive(f, entry{name: "../x", data: make([]byte, 1<<16)}))
	f.Fuzz(func(t *testing.T, data []byte) { bounded(t, data) })
}

// FuzzBundleCase takes any case in an archive that is sound otherwise.
func FuzzBundleCase(f *testing.F) {
	f.Add([]byte(smallCase))
	s := stories["nft-drop"]()
	data, err := encoded(s.c)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"format_version":"1.0","events":[{"packet":{"family":6,"protocol":"arp","length":-1,"ttl":900,"fragment":true}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := bounded(t, archive(t, entry{name: "case.json", data: data}, entry{name: OtherCase(0), data: data}))
		if err != nil {
			return
		}
		d := s.Document(verdict.Judge, evidence.Tool{})
		c, v := &d.Case, d.Verdict
		for _, print := range []func() error{
			func() error { return HTML(io.Discard, &d) },
			func() error { return Markdown(io.Discard, &d) },
			func() error { return Capture(io.Discard, c, v.Summary) },
			func() error { return Text(io.Discard, c, v, Options{Verbose: 2}) },
			func() error { return OTLP(io.Discard, []Document{d}) },
		} {
			if err := print(); err != nil {
				t.Error(err)
			}
		}
	})
}

func bounded(t *testing.T, data []byte) (s Saved, err error) {
	if n := heap(func() { s, err = read(data) }); n > 64<<20 {
		t.Errorf("%d MiB", n>>20)
	}
	return s, err
}
