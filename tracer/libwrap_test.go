// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"encoding/binary"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/bpf"
	"github.com/pathtrace/pathtrace/evidence"
)

// wrapRecord is what the program sends when hosts_access() returns.
func wrapRecord(t testing.TB, change func(*bpf.TracepointWrapEvent)) []byte {
	w := bpf.TracepointWrapEvent{Stage: wrapAnswered, Fd: 7, Parent: 41, MntNs: 99, RootInode: 2, RootDevice: 8<<20 | 1}
	w.Event.Kind, w.Event.Pid, w.Event.Flags = kindWrap, 42, evSocket
	w.Event.Daddr, w.Event.Dport = [16]byte{10: 0xff, 0xff, 10, 0, 0, 9}, 4000
	put := func(to []int8, s string) {
		for i := range len(s) {
			to[i] = int8(s[i])
		}
	}
	put(w.Daemon[:], "vsftpd\x00junk")
	put(w.Client[:], "pc.example")
	put(w.Address[:], "10.0.0.9")
	put(w.Allow[:], "/etc/hosts.allow")
	put(w.Deny[:], "/etc/hosts.deny")
	change(&w)
	b := make([]byte, wrapSize)
	if _, err := binary.Encode(b, binary.NativeEndian, &w); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWrapCall(t *testing.T) {
	d := decoder{netns: func(uint32) string { return "x" }}
	no, yes := false, true
	for name, x := range map[string]struct {
		change   func(*bpf.TracepointWrapEvent)
		granted  *bool
		function string
	}{
		"denied":  {func(*bpf.TracepointWrapEvent) {}, &no, "hosts_access"},
		"granted": {func(w *bpf.TracepointWrapEvent) { w.Event.Err = 1 }, &yes, "hosts_access"},
		"asked":   {func(w *bpf.TracepointWrapEvent) { w.Stage = 0 }, nil, "hosts_access"},
		"refused": {func(w *bpf.TracepointWrapEvent) { w.Stage = 2 }, nil, "refuse"},
	} {
		s, err := parseSample(wrapRecord(t, x.change))
		if err != nil {
			t.Fatal(err)
		}
		e, err := d.event(&s)
		if err != nil {
			t.Fatal(err)
		}
		want := &evidence.Wrap{Granted: x.granted, FD: 7, Daemon: "vsftpd", Client: "pc.example", Address: "10.0.0.9", Parent: 41,
			Tables: [2]string{"/etc/hosts.allow", "/etc/hosts.deny"}, Root: &evidence.Root{MountNS: 99, Device: unix.Mkdev(8, 1), Inode: 2}}
		if diff := cmp.Diff(want, e.Wrap); diff != "" || e.Function != x.function || e.Socket.Remote != "10.0.0.9:4000" {
			t.Errorf("%s: %s, %+v %s", name, e.Function, e.Socket, diff)
		}
	}
	s, err := parseSample(wrapRecord(t, func(*bpf.TracepointWrapEvent) {})[:sampleSize])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.event(&s); err == nil {
		t.Error("a record that is cut off is not refused")
	}
}

func TestOpened(t *testing.T) {
	d := decoder{netns: func(uint32) string { return "x" }}
	for name, x := range map[string]struct {
		result int32
		path   string
		errno  string
	}{
		"opened":  {3, "/etc/hosts.deny", ""},
		"missing": {-int32(unix.ENOENT), "/etc/hosts.deny", "ENOENT"},
		"no name": {3, "", ""},
	} {
		s, err := parseSample(wrapRecord(t, func(w *bpf.TracepointWrapEvent) {
			w.Stage, w.Fd, w.Event.Err = wrapOpened, 2, x.result
			clear(w.Allow[:])
			for i := range len(x.path) {
				w.Allow[i] = int8(x.path[i])
			}
		}))
		if err != nil {
			t.Fatal(err)
		}
		e, err := d.event(&s)
		if err != nil {
			t.Fatal(err)
		}
		want := &evidence.Opened{Path: x.path, Errno: x.errno, Argv0: "vsftpd", Others: 2, Parent: 41,
			Root: &evidence.Root{MountNS: 99, Device: unix.Mkdev(8, 1), Inode: 2}}
		if diff := cmp.Diff(want, e.Opened); diff != "" || e.Kind != evidence.RulesOpened || e.Wrap != nil || e.Socket.Remote != "10.0.0.9:4000" {
			t.Errorf("%s: %s, %+v %s", name, e.Kind, e.Socket, diff)
		}
	}
}

func TestSurveyServers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for name, refusal := range map[string]error{"as it is": nil, "without uprobes": unix.ENOENT} {
		tr, err := Open(Options{Hooks: Tracepoint, NetnsName: func(uint32) string { return "" }, Take: func(Record) {}, NoUprobes: refusal})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range tr.surveyServers() {
			works := a.Name != "uprobes" || refusal == nil
			if a.Works != works || !works && (a.Lost == "" || a.Why == "" || a.Remedy == "") {
				t.Errorf("%s: %+v", name, a)
			}
		}
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestEnd(t *testing.T) {
	d := decoder{netns: func(uint32) string { return "x" }}
	end := func(old uint8, received, unread uint32, exiting, status uint32) *evidence.End {
		b := make([]byte, sampleSize)
		var e bpf.TracepointEvent
		e.Kind, e.OldState, e.NewState = kindState, old, 4
		if _, err := binary.Encode(b, binary.NativeEndian, &e); err != nil {
			t.Fatal(err)
		}
		u := b[unionOffset:]
		binary.NativeEndian.PutUint64(u, uint64(received))
		binary.NativeEndian.PutUint64(u[8:], 7)
		for i, v := range []uint32{unread, 41, exiting, status} {
			binary.NativeEndian.PutUint32(u[16+4*i:], v)
		}
		s, err := parseSample(b)
		if err != nil {
			t.Fatal(err)
		}
		got, err := d.event(&s)
		if err != nil {
			t.Fatal(err)
		}
		return got.State.End
	}
	for name, x := range map[string]struct{ got, want *evidence.End }{
		"closed":           {end(1, 5, 3, 0, 0), &evidence.End{Received: 5, Unread: 3, Sent: 7, Parent: 41}},
		"after a FIN":      {end(8, 6, 1, 0, 0), &evidence.End{Received: 5, Sent: 7, Parent: 41}},
		"exit code":        {end(1, 0, 0, 1, 3<<8), &evidence.End{Sent: 7, Parent: 41, Exit: &evidence.Exit{Code: 3}}},
		"crash":            {end(1, 0, 0, 1, 0x80|11), &evidence.End{Sent: 7, Parent: 41, Exit: &evidence.Exit{Signal: "SIGSEGV", Core: true}}},
		"no connection":    {end(2, 5, 3, 1, 9), nil},
		"impossible count": {end(1, 0, 0xffffffff, 0, 0), &evidence.End{Sent: 7, Parent: 41}},
	} {
		if diff := cmp.Diff(x.want, x.got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
