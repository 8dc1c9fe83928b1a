// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
)

func TestParseStack(t *testing.T) {
	text := "[<0>] inet_csk_accept+0x2a/0x310\n[<0>] inet_accept+0x30/0x60\n[<0>] __x64_sys_accept+0x17/0x20\n[<0>] do_syscall_64+0x71/0x280\n[<0>] entry_SYSCALL_64_after_hwframe+0x76/0x7e\n"
	if diff := cmp.Diff([]string{"inet_csk_accept", "inet_accept", "__x64_sys_accept"}, parseStack(text)); diff != "" {
		t.Error(diff)
	}
	if got := parseStack("nonsense\n[<0>] \n" + strings.Repeat("[<0>] f+0x1/0x2\n", 99)); len(got) != maxFrames {
		t.Errorf("%d frames are kept", len(got))
	}
}

func TestContainerID(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for cgroup, want := range map[string]string{
		"0::/system.slice/docker-" + id + ".scope\n":                id,
		"0::/kubepods/besteffort/pod12/cri-containerd-" + id + "\n": id,
		"0::/system.slice/ssh.service\n":                            "",
		"0::/x/" + id + "0\n":                                       "",
	} {
		if got := containerID.FindString(cgroup); got != want {
			t.Errorf("%q: %q", cgroup, got)
		}
	}
}

// The files are read where the server sees them, or not at all.
func TestEvaluateWrapElsewhere(t *testing.T) {
	server, client := netip.MustParseAddrPort("10.0.0.1:21"), netip.MustParseAddrPort("10.0.0.9:4000")
	own, err := ProcessRoot(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	other := own
	other.MountNS++
	usual := [2]string{"/etc/hosts.allow", "/etc/hosts.deny"}
	for name, x := range map[string]struct {
		wrap   evidence.Wrap
		unread string
	}{
		"our own root":      {evidence.Wrap{Daemon: "vsftpd", Tables: usual, Root: &own}, ""},
		"another's root":    {evidence.Wrap{Daemon: "vsftpd", Tables: usual, Root: &other}, "no process is left"},
		"a root not known":  {evidence.Wrap{Daemon: "vsftpd", Tables: usual}, "not known"},
		"tables of its own": {evidence.Wrap{Daemon: "vsftpd", Tables: [2]string{"/srv/allow", "/etc/hosts.deny"}, Root: &own}, "its own tables"},
		"tables not known":  {evidence.Wrap{Daemon: "vsftpd", Root: &own}, ""},
	} {
		d := EvaluateWrap(x.wrap, server, client, Reader{}, []int{os.Getpid(), 1 << 30}, "pathtrace-0011aabb")
		if x.unread == "" && (d.Unread != "" || d.Verdict == "" || d.ReadAt != "/") || !strings.Contains(d.Unread, x.unread) {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// What a server calls itself is known of few, and its tables are those that it opened.
func TestEvaluateOpened(t *testing.T) {
	client := netip.MustParseAddr("10.0.0.9")
	own, err := ProcessRoot(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	opened := func(argv0 string, paths ...string) (list []evidence.Opened) {
		for _, p := range paths {
			list = append(list, evidence.Opened{Path: p, Argv0: argv0, Root: &own})
		}
		return list
	}
	for name, x := range map[string]struct {
		comm   string
		opened []evidence.Opened
		daemon string
		unread string
	}{
		"vsftpd":        {"vsftpd", opened("/usr/sbin/vsftpd", "/etc/hosts.allow", "/etc/hosts.deny"), "vsftpd", ""},
		"tcpd":          {"tcpd", opened("/usr/sbin/in.telnetd", "/etc/hosts.allow"), "in.telnetd", ""},
		"xinetd":        {"xinetd", opened("/usr/sbin/xinetd", "/etc/hosts.allow", "/etc/hosts.deny"), "", ""},
		"its own files": {"vsftpd", opened("vsftpd", "/etc/hosts.allow", "/srv/hosts.deny"), "vsftpd", "its own tables, /etc/hosts.allow and /srv/hosts.deny"},
	} {
		d := EvaluateOpened(x.comm, x.opened, client, nil, "pathtrace-0011aabb")
		if d.Daemon != x.daemon || x.unread == "" && (d.Unread != "" || d.Verdict == "" || (d.Allow != "") != (d.Daemon != "")) || !strings.Contains(d.Unread, x.unread) {
			t.Errorf("%s: %+v", name, d)
		}
	}
	refused := opened("vsftpd", "/etc/hosts.allow", "/etc/hosts.deny")
	refused[1].Errno = "EACCES"
	if d := EvaluateOpened("vsftpd", refused, client, nil, "pathtrace-0011aabb"); d.Verdict != "denied" || !strings.Contains(d.Fault, "Permission denied") {
		t.Errorf("a file that the server may not open: %+v", d)
	}
}

func TestListenersWithoutLibwrap(t *testing.T) {
	l := listenOn(t)
	n, err := Current()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	got, err := FindListeners([]*Netns{n}, l.Port())
	if err != nil || len(got.Processes) != 1 || got.Processes[0].PID != os.Getpid() || len(got.Libraries) != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func listenOn(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}
