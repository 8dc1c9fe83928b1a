// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// listen makes a TCP listener inside; set is called with its descriptor before
// it is bound.
func (l lab) listen(network, addr string, set func(fd int) error) *net.TCPListener {
	l.t.Helper()
	var listener net.Listener
	err := l.Do(func() (err error) {
		config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			if set == nil {
				return nil
			}
			return errors.Join(c.Control(func(fd uintptr) { err = set(int(fd)) }), err)
		}}
		listener, err = config.Listen(context.Background(), network, addr)
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { listener.Close() })
	return listener.(*net.TCPListener)
}

func (l lab) dial(network, from, to string) net.Conn {
	l.t.Helper()
	var conn net.Conn
	err := l.Do(func() (err error) {
		d := net.Dialer{}
		if from != "" {
			if d.LocalAddr, err = net.ResolveTCPAddr(network, from); err != nil {
				return err
			}
		}
		conn, err = d.Dial(network, to)
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { conn.Close() })
	return conn
}

// byLocal returns the only socket on an address.
func byLocal(t *testing.T, s evidence.Section[evidence.Socket], local string) evidence.Socket {
	t.Helper()
	if !s.Read() {
		t.Fatal(s.Why())
	}
	var found []evidence.Socket
	for _, e := range s.Items {
		if e.Local == local {
			found = append(found, e)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d sockets on %s in %+v, want 1", len(found), local, s.Items)
	}
	return found[0]
}

func TestSockets(t *testing.T) {
	l := newLab(t)
	l.sh("ip link add d0 type veth peer name d1; ip addr add 10.1.2.3/24 dev d0; ip link set d0 up")
	if s := l.Sockets("tcp", 80); !s.Read() || len(s.Items) != 0 {
		t.Fatalf("nothing listens, got %+v", s)
	}
	l.listen("tcp4", "127.0.0.1:80", nil)
	l.listen("tcp4", "10.1.2.3:80", func(fd int) error { return unix.BindToDevice(fd, "d0") })
	l.listen("tcp6", "[::1]:80", nil)
	l.listen("tcp", "[::]:81", nil)
	l.listen("tcp6", "[::]:82", nil)
	l.listen("tcp4", "127.0.0.1:8080", nil)

	s := l.Sockets("tcp", 80)
	if len(s.Items) != 3 {
		t.Errorf("%d sockets on port 80, want 3: %+v", len(s.Items), s.Items)
	}
	e := byLocal(t, s, "127.0.0.1:80")
	if e.Family != 4 || e.State != "LISTEN" || e.Protocol != "tcp" || e.Device != "" || e.Remote != "" || e.Inode == 0 || e.Owner != "" || e.Backlog == 0 || e.RcvBuf == 0 {
		t.Errorf("got %+v", e)
	}
	if len(e.Process) != 1 || e.Process[0].PID != os.Getpid() || e.Process[0].Comm == "" {
		t.Errorf("held by %+v, want this process", e.Process)
	}
	if e := byLocal(t, s, "10.1.2.3:80"); e.Device != "d0" {
		t.Errorf("bound to %q, want d0", e.Device)
	}
	if e := byLocal(t, s, "[::1]:80"); e.Family != 6 {
		t.Errorf("got %+v", e)
	}
	if e := byLocal(t, l.Sockets("tcp", 81), "[::]:81"); e.V6Only {
		t.Error(":81 takes IPv4, too")
	}
	if e := byLocal(t, l.Sockets("tcp", 82), "[::]:82"); !e.V6Only {
		t.Error(":82 is for IPv6 only")
	}
	if s := l.Sockets("sctp", 80); s.Read() || s.Why() == "" {
		t.Error("an unknown protocol was read")
	}
}

func TestSocketsUDP(t *testing.T) {
	l := newLab(t)
	err := l.Do(func() error {
		c, err := net.ListenPacket("udp4", "127.0.0.1:53")
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	e := byLocal(t, l.Sockets("udp", 53), "127.0.0.1:53")
	if e.Protocol != "udp" || e.State != "CLOSE" || len(e.Process) != 1 || e.RcvBuf == 0 {
		t.Errorf("got %+v", e)
	}
}

func TestAcceptQueue(t *testing.T) {
	l := newLab(t)
	listener := l.listen("tcp", "[::]:80", nil)
	conn := l.dial("tcp4", "127.0.0.1:4000", "127.0.0.1:80")
	server, client := netip.MustParseAddrPort("127.0.0.1:80"), netip.MustParseAddrPort("127.0.0.1:4000")

	if e := byLocal(t, l.Sockets("tcp", 80), "[::]:80"); e.Queue != 1 {
		t.Errorf("queue of %d, want 1", e.Queue)
	}
	e, found, err := l.Connection(server, client)
	if err != nil || !found {
		t.Fatalf("connection not found: %v", err)
	}
	if e.Family != 6 || e.Local != "[::ffff:127.0.0.1]:80" || e.Remote != "[::ffff:127.0.0.1]:4000" || e.State != "ESTABLISHED" || e.Inode != 0 || len(e.Process) != 0 {
		t.Errorf("in the queue: %+v", e)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	e, found, err = l.Connection(server, client)
	if err != nil || !found || e.Inode == 0 || len(e.Process) != 1 || e.Process[0].PID != os.Getpid() {
		t.Errorf("accepted: %+v, %v, %v", e, found, err)
	}
	e, found, err = l.Connection(client, server)
	if err != nil || !found || e.Family != 4 || e.Local != "127.0.0.1:4000" {
		t.Errorf("client's end: %+v, %v, %v", e, found, err)
	}
	// The kernel would answer with the listener.
	if e, found, err := l.Connection(server, netip.MustParseAddrPort("127.0.0.1:4001")); found || err != nil {
		t.Errorf("a connection that is none: %+v, %v", e, err)
	}
	if e, found, err := l.Connection(netip.MustParseAddrPort("[::1]:7"), netip.MustParseAddrPort("[::1]:8")); found || err != nil {
		t.Errorf("a connection that is none: %+v, %v", e, err)
	}
	conn.Close()
	accepted.Close() // after the other end: that one waits
	s := l.Connections(ConnectionFilter{Local: client, Remote: server, States: []string{"TIME_WAIT", "FIN_WAIT2"}})
	if !s.Read() || len(s.Items) != 1 || s.Items[0].Remote != "127.0.0.1:80" {
		t.Errorf("after the close: %+v", s)
	}
	if s := l.Connections(ConnectionFilter{States: []string{"nonsense"}}); s.Read() {
		t.Error("an unknown state was taken")
	}
}

// Several processes hold one listener, and the lowest comes first.
func TestInherited(t *testing.T) {
	l := newLab(t)
	file, err := l.listen("tcp4", "127.0.0.1:80", nil).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	child := exec.Command("sleep", "1000")
	child.ExtraFiles = []*os.File{file}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { child.Process.Kill(); child.Wait() }()
	e := byLocal(t, l.Sockets("tcp", 80), "127.0.0.1:80")
	if len(e.Process) != 2 || e.Process[0].PID >= e.Process[1].PID {
		t.Fatalf("held by %+v, want two, lowest first", e.Process)
	}
	for _, p := range e.Process {
		if p.PID == child.Process.Pid && (p.Comm != "sleep" || filepath.Base(p.Exe) == "" || !strings.Contains("RSD", p.State)) {
			t.Errorf("got %+v", p)
		}
	}
}

func TestProcess(t *testing.T) {
	p, err := Process(os.Getpid())
	exe, _ := os.Executable()
	if err != nil || p.PID != os.Getpid() || p.Exe != exe || p.Comm == "" || p.State == "" {
		t.Errorf("got %+v, %v", p, err)
	}
	if _, err := Process(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a process that is none: %v", err)
	}
}

func TestParseStat(t *testing.T) {
	for text, want := range map[string][2]string{
		"12 (sh) S 1 2":     {"sh", "S"},
		"12 (a) b (c)) R 1": {"a) b (c)", "R"},
		"12 (x)":            {"x", ""},
		"nonsense":          {},
		")(":                {},
		"":                  {},
	} {
		if comm, state := parseStat(text); comm != want[0] || state != want[1] {
			t.Errorf("%q: %q %q, want %q", text, comm, state, want)
		}
	}
}

func TestParseCgroup(t *testing.T) {
	for text, want := range map[string][2]string{
		"0::/system.slice/vsftpd.service\n":                                            {"/system.slice/vsftpd.service", "vsftpd.service"},
		"0::/system.slice/a.service/payload\n":                                         {"/system.slice/a.service/payload", "a.service"},
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n":       {"/user.slice/user-1000.slice/user@1000.service/app.slice/x.service", "x.service"},
		"5:cpu,cpuacct:/x\n1:name=systemd:/system.slice/ssh.service\n0::/\n":           {"/system.slice/ssh.service", "ssh.service"},
		"1:name=systemd:/user.slice/session-3.scope\n0::/user.slice/session-3.scope\n": {"/user.slice/session-3.scope", "session-3.scope"},
		"0::/system.slice\n": {"/system.slice", ""},
		"0::/\n":             {"/", ""},
		"":                   {"", ""},
		"x\n:\n":             {"", ""},
		"0::relative":        {"relative", ""},
	} {
		if cgroup, unit := parseCgroup(text); cgroup != want[0] || unit != want[1] {
			t.Errorf("%q: %q %q, want %q", text, cgroup, unit, want)
		}
	}
}

func TestSocketInode(t *testing.T) {
	for link, want := range map[string]uint64{"socket:[123]": 123, "socket:[]": 0, "socket:[1": 0, "pipe:[123]": 0, "socket:[1x]": 0, "": 0} {
		if got := socketInode([]byte(link)); got != want {
			t.Errorf("%q: %d, want %d", link, got, want)
		}
	}
}

func TestStateMask(t *testing.T) {
	if _, err := stateMask("NO_SUCH"); err == nil {
		t.Error("an unknown state was taken")
	}
	for names, want := range map[string]uint32{"LISTEN": 1 << 10, "TIME_WAIT": 1 << 6, "SYN_RECV": 1<<3 | 1<<12, "ESTABLISHED CLOSE": 1<<1 | 1<<7} {
		if got, err := stateMask(strings.Fields(names)...); err != nil || got != want {
			t.Errorf("%s: %#x (%v), want %#x", names, got, err, want)
		}
	}
}

func FuzzParseDiag(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, sizeofDiagMessage))
	f.Add(put(append([]byte{unix.AF_INET6, 10}, make([]byte, sizeofDiagMessage-2)...), 11, []byte{1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseDiag(b); err == nil {
			s.evidence("tcp", func(int) string { return "x" })
		}
	})
}
