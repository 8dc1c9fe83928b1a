// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/internal/lab"
)

// farFaults are those that lie on the server, as its own kernel shows them. What a router
// translates is out of sight, and so is a packet that it has no link address for, or who listens
// in its namespace. A full SYN queue dries up before ssh would be there.
func farFaults() []lab.Fault {
	all := slices.DeleteFunc(lab.Faults(), func(f lab.Fault) bool {
		return f.Want.Role != lab.Server || f.Busy > 0 || slices.Contains([]string{"arp-input", "nd-input", "legacy-nd-input", "arptables-input", "ipv6-disabled-server", "listen-other-namespace", "syn-queue-full", "syn-queue-full-v6"}, f.Name)
	})
	for i := range all {
		w := &all[i].Want
		w.NATRule, w.SNATRule, w.SNATTo = nil, nil, ""
	}
	return all
}

// Client and server are two hosts: each is watched by a pathtrace of its own,
// and the router between by none. What lies on the server is found as surely as
// where one kernel is watched whole.
func TestPeerFaults(t *testing.T) {
	needRoot(t)
	bin := build(t)
	two := make(chan struct{}, 2)
	faults := farFaults()
	if os.Getenv("PATHTRACE_ALL") == "" { // one of each cause, and all that have to do with NAT
		seen := map[string]bool{}
		faults = slices.DeleteFunc(faults, func(f lab.Fault) bool {
			again := seen[f.Cause]
			seen[f.Cause] = true
			return again && !strings.Contains(f.Name, "nat")
		})
	}
	for i, f := range faults {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			two <- struct{}{}
			defer func() { <-two }()
			l := startLab(t, f, 3000+i)
			before := snapshot(t, l)
			f.Args = append(slices.Clone(f.Args), "--scope", "netns", "--peer-cmd", "nsenter --net=/run/netns/"+l.Netns(lab.Server)+" sh")
			a := trace(t, bin, l, f)
			if diff := cmp.Diff(expected(f), a.seen(l, f)); diff != "" {
				t.Errorf("verdict (-want +got):\n%s\n%s", diff, a.raw)
			}
			if a.Verdict.Where.Host != "peer" {
				t.Errorf("where.host is %q", a.Verdict.Where.Host)
			}
			if diff := cmp.Diff(before, snapshot(t, l)); diff != "" {
				t.Errorf("something is left (-before +after):\n%s", diff)
			}
		})
	}
}

// far is the one of these that is called name.
func far(t *testing.T, name string) lab.Fault {
	t.Helper()
	all := farFaults()
	i := slices.IndexFunc(all, func(f lab.Fault) bool { return f.Name == name })
	if i < 0 {
		t.Fatal("no fault on the server is called " + name)
	}
	return all[i]
}

// startSSHD runs a real sshd in the server's namespace, and returns its port and
// an environment in which ssh knows it and has a key for it.
func startSSHD(t *testing.T, l *lab.Lab) (port string, env []string) {
	t.Helper()
	for _, tool := range []string{"/usr/sbin/sshd", "ssh", "ssh-keygen"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	s, err := l.StartSSHD(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s.Port, append(os.Environ(), "PATH="+s.Path)
}

// Over a real sshd the faults of the far side are observed, with their objects, soon after ssh is up.
func TestPeerSSH(t *testing.T) {
	needRoot(t)
	bin := build(t)
	for i, name := range []string{"nft-jumps", "accept-queue-full", "libwrap-vsftpd", "no-route-back"} {
		t.Run(name, func(t *testing.T) {
			f := far(t, name)
			l := startLab(t, f, 4000+i)
			f.Args = append(slices.Clone(f.Args), "--scope", "netns")
			if name == "no-route-back" { // ssh itself has a way back, the probe's address has none
				other := netip.PrefixFrom(l.Addr(lab.Client, 4).Next(), 24)
				err1 := l.AddAddress(lab.Client, lab.HostDevice, other)
				err2 := l.IP(lab.Server, 4, fmt.Sprintf("route add %s via %s", l.Addr(lab.Client, 4), routerOfServer))
				if err := errors.Join(err1, err2); err != nil {
					t.Fatal(err)
				}
				f.Args = append(f.Args, "-s", other.Addr().String())
			}
			port, env := startSSHD(t, l)
			before := snapshot(t, l)
			f.Args = append(f.Args, "--peer", "ssh://root@"+l.Addr(lab.Server, 4).String()+":"+port)
			start := time.Now()
			cmd := exec.Command("ip", slices.Concat([]string{"netns", "exec", l.Netns(lab.Client), bin, "--json", "--timing"}, f.Arguments(l))...)
			cmd.Env = env
			a := runTrace(t, cmd)
			if diff := cmp.Diff(expected(f), a.seen(l, f)); diff != "" {
				t.Errorf("verdict (-want +got):\n%s\n%s", diff, a.raw)
			}
			if a.Verdict.Where.Host == "" || a.Verdict.Certainty != "observed" {
				t.Errorf("%s on host %q", a.Verdict.Certainty, a.Verdict.Where.Host)
			}
			whole, connect := time.Since(start), time.Duration(a.Timing["connect_to_the_other_end_ns"])
			t.Logf("%v in all, %v of it until ssh was up", whole, connect)
			if diff := cmp.Diff(before, snapshot(t, l)); diff != "" {
				t.Errorf("something is left (-before +after):\n%s", diff)
			}
		})
	}
}

// A login that is not root's traces there by sudo, where that asks no password;
// where it does, that is said, and this end's verdict stands. The sudoers file is put in
// place in a mount namespace that ends with the shell.
func TestPeerSudo(t *testing.T) {
	needRoot(t)
	for _, tool := range []string{"sudo", "setpriv", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	bin := build(t)
	f := far(t, "nft-jumps")
	l := startLab(t, f, 4200)
	before := snapshot(t, l)
	for name, c := range map[string]struct {
		sudoers string
		host    string // where the verdict lies
	}{
		"granted": {"nobody ALL=(root) NOPASSWD: ALL", "peer"},
		"refused": {"nobody ALL=(root) NOPASSWD: /bin/false", ""},
	} {
		t.Run(name, func(t *testing.T) {
			sudoers := filepath.Join(t.TempDir(), "sudoers")
			if err := os.WriteFile(sudoers, []byte(c.sudoers+"\n"), 0o440); err != nil {
				t.Fatal(err)
			}
			f := f
			f.Args = append(slices.Clone(f.Args), "-w", "1s", "--scope", "netns", "--peer-cmd", fmt.Sprintf(
				"exec nsenter --net=/run/netns/%s unshare --mount sh -c 'mount --bind %s /etc/sudoers && exec setpriv --reuid=65534 --regid=65534 --clear-groups sh'", l.Netns(lab.Server), sudoers))
			a := trace(t, bin, l, f)
			if c.host == "" {
				if why := strings.Join(a.Verdict.Unseen, "\n"); a.Verdict.Cause != "remote-silent" || !strings.Contains(why, "tracing needs root: sudo") {
					t.Errorf("%s, unseen: %s", a.Verdict.Cause, why)
				}
			} else if diff := cmp.Diff(expected(f), a.seen(l, f)); diff != "" || a.Verdict.Where.Host != c.host {
				t.Errorf("on host %q (-want +got):\n%s\n%s", a.Verdict.Where.Host, diff, a.raw)
			}
			if diff := cmp.Diff(before, snapshot(t, l)); diff != "" {
				t.Errorf("something is left (-before +after):\n%s", diff)
			}
		})
	}
}

// routerOfServer is the router's address on the server's side.
const routerOfServer = "198.18.9.254"

// agents are the processes that run a copy of us in a namespace of the lab.
func agents(t *testing.T, l *lab.Lab, r lab.Role) (pids []int) {
	t.Helper()
	space, err := os.Stat("/run/netns/" + l.Netns(r))
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		exe, _ := os.Readlink(d + "/exe") // of one that has ended there is none
		info, err := os.Stat(d + "/ns/net")
		if pid, _ := strconv.Atoi(filepath.Base(d)); err == nil && os.SameFile(space, info) && strings.Contains(exe, "/.pathtrace-") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// However either end is killed, at whatever instant, nothing is left, and this end has a verdict where it lives.
func TestPeerKilled(t *testing.T) {
	needRoot(t)
	bin := build(t)
	f := far(t, "nft-jumps")
	l := startLab(t, f, 4100)
	before, files := snapshot(t, l), t.TempDir()
	const seed = 20260923
	random := rand.New(rand.NewPCG(seed, seed))
	for i := range 30 {
		after := time.Duration(random.Int64N(int64(1500 * time.Millisecond)))
		cmd := exec.Command(bin, slices.Concat([]string{"--json", "--netns", l.Netns(lab.Client), "--scope", "netns",
			"--peer-cmd", "exec ip netns exec " + l.Netns(lab.Server) + " sh"}, f.Arguments(l))...)
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+files)
		var stdout bytes.Buffer
		cmd.Stdout = &stdout
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-time.After(after)
		farEnd := i%2 == 1
		if farEnd {
			for _, pid := range agents(t, l, lab.Server) {
				_ = syscall.Kill(pid, syscall.SIGKILL) // or it has just ended
			}
		} else {
			_ = cmd.Process.Kill()
		}
		err := cmd.Wait()
		var a answer
		if farEnd && (json.Unmarshal(stdout.Bytes(), &a) != nil || a.Verdict.Cause == "") {
			t.Errorf("killed after %v, the other end: no verdict (%v): %s", after, err, stdout.String())
		}
		for end := time.Now().Add(10 * time.Second); len(agents(t, l, lab.Server)) > 0; {
			if time.Now().After(end) {
				t.Fatalf("killed after %v: the agent lives on", after)
			}
			runtime.Gosched()
		}
		if left, err := os.ReadDir(files); err != nil || len(left) > 0 {
			t.Errorf("killed after %v: files are left: %v %v", after, left, err)
		}
	}
	if diff := cmp.Diff(before, snapshot(t, l)); diff != "" {
		t.Errorf("something is left (-before +after):\n%s", diff)
	}
}
