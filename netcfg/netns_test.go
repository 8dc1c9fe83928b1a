// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func threadNetns(t *testing.T) uint64 {
	t.Helper()
	target, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Error(err)
	}
	return parseInode(target)
}

func TestCurrent(t *testing.T) {
	n, err := Current()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if n.Enter() != nil {
		t.Errorf("Enter of the own namespace is %q, want nothing", n.Enter())
	}
	if got := threadNetns(t); n.Inode != got {
		t.Errorf("inode %d, the thread is in %d", n.Inode, got)
	}
	// No privilege is needed to stay where one is.
	if err := n.Do(func() error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestOpenErrors(t *testing.T) {
	for spec, want := range map[string]string{
		"no-such":            `netns "no-such": no such network namespace`,
		"":                   `netns "": no such network namespace`,
		"..":                 `netns "..": no such network namespace`,
		"2147483646":         "process 2147483646: no such network namespace",
		"/nowhere/at/all":    "/nowhere/at/all: no such network namespace",
		"/etc/passwd":        "/etc/passwd: not a network namespace: no such network namespace",
		"/proc/self/ns/mnt":  "/proc/self/ns/mnt: not a network namespace: no such network namespace",
		"net:[1]":            "net:[1]: no such network namespace",
		"/etc/passwd/ns/net": "/etc/passwd/ns/net: no such network namespace",
	} {
		n, err := Open(spec)
		if err == nil {
			n.Close()
			t.Errorf("%q was opened", spec)
			continue
		}
		if !errors.Is(err, ErrNoNetns) || err.Error() != want {
			t.Errorf("%q: %q, want %q", spec, err, want)
		}
	}
}

func TestOpenForms(t *testing.T) {
	l := newLab(t)
	sleeper := exec.Command("sleep", "1000")
	if err := l.Start(sleeper); err != nil {
		t.Fatal(err)
	}
	defer func() { sleeper.Process.Kill(); sleeper.Wait() }()
	for _, spec := range []string{l.Name, "/run/netns/" + l.Name, strconv.Itoa(sleeper.Process.Pid), fmt.Sprintf("net:[%d]", l.Inode)} {
		n, err := Open(spec)
		if err != nil {
			t.Errorf("%s: %v", spec, err)
			continue
		}
		defer n.Close()
		if n.Name != l.Name || n.Inode != l.Inode {
			t.Errorf("%s: name %s, inode %d, want %s, %d", spec, n.Name, n.Inode, l.Name, l.Inode)
		}
		if want := []string{"ip", "netns", "exec", l.Name}; !slices.Equal(n.Enter(), want) {
			t.Errorf("%s: enter by %q, want %q", spec, n.Enter(), want)
		}
	}
}

func TestUnnamed(t *testing.T) {
	l := newLab(t) // for the privilege check
	child := exec.Command("unshare", "-n", "sh", "-c", "echo; exec sleep 1000")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Start(child); err != nil {
		t.Fatal(err)
	}
	defer func() { child.Process.Kill(); child.Wait() }()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	n, err := Open(strconv.Itoa(child.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if want := fmt.Sprintf("net:[%d]", n.Inode); n.Name != want || n.Inode == l.Inode {
		t.Errorf("name %q, want %q", n.Name, want)
	}
	// The words lead back to it.
	words := append(n.Enter(), "readlink", "/proc/self/ns/net")
	if got := strings.TrimSpace(run(t, words[0], words[1:]...)); got != n.Name {
		t.Errorf("%q leads to %s, want %s", n.Enter(), got, n.Name)
	}
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint64]int{}
	for _, m := range all {
		seen[m.Inode]++
		m.Close()
	}
	for inode, times := range seen {
		if times != 1 {
			t.Errorf("net:[%d] is listed %d times", inode, times)
		}
	}
	if seen[n.Inode] != 1 || seen[l.Inode] != 1 || seen[threadNetns(t)] != 1 {
		t.Errorf("%v lacks one of %d, %d, %d", seen, n.Inode, l.Inode, threadNetns(t))
	}
}

func TestDo(t *testing.T) {
	a, b := newLab(t), newLab(t)
	home := threadNetns(t)
	var all sync.WaitGroup
	for i := range 64 {
		l := []lab{a, b}[i%2]
		all.Go(func() {
			err := l.Do(func() error {
				if got := threadNetns(t); got != l.Inode {
					t.Errorf("runs in %d, want %d", got, l.Inode)
				}
				if unix.Gettid() == os.Getpid() {
					t.Error("the main thread was moved")
				}
				// One within the other, and back.
				err := a.Do(func() error {
					if got := threadNetns(t); got != a.Inode {
						t.Errorf("inner runs in %d, want %d", got, a.Inode)
					}
					return os.ErrClosed
				})
				if got := threadNetns(t); got != l.Inode {
					t.Errorf("afterwards in %d, want %d", got, l.Inode)
				}
				return err
			})
			if err != os.ErrClosed {
				t.Errorf("error %v, want that of the function", err)
			}
		})
	}
	all.Wait()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if got := threadNetns(t); got != home {
		t.Errorf("left in %d, want %d", got, home)
	}
	if err := a.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("no error from a function that did not return")
	}
}

func TestOutput(t *testing.T) {
	l := newLab(t)
	out, _, err := l.Output(context.Background(), "readlink", "/proc/self/ns/net")
	if got := parseInode(strings.TrimSpace(string(out))); err != nil || got != l.Inode {
		t.Errorf("ran in %d (%v), want %d", got, err, l.Inode)
	}
	if _, _, err = l.Output(context.Background(), "no-such-tool"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("missing tool: %v", err)
	}
	_, _, err = l.Output(context.Background(), "sh", "-c", "echo one >&2; echo two >&2; exit 3")
	if err == nil || !strings.HasSuffix(err.Error(), "exit status 3: two") {
		t.Errorf("failing tool: %v", err)
	}
}

func TestParseMounts(t *testing.T) {
	const text = `36 35 0:4 net:[7] /var/lib/x rw shared:1 - nsfs nsfs rw
37 35 0:4 net:[7] /run/docker/netns/abc rw shared:1 - nsfs nsfs rw
38 35 0:4 net:[7] /run/netns/a\040b rw shared:1 - nsfs nsfs rw
39 35 0:4 mnt:[9] /run/netns/no rw - nsfs nsfs rw
40 35 0:4 net:[8] /run/netns
40 35 0:4 net:[x] /run/netns/y
 net:[
`
	got := parseMounts(strings.NewReader(text))
	if len(got) != 2 || got[7] != "/run/netns/a b" || got[8] != "/run/netns" {
		t.Errorf("got %v", got)
	}
	k := &names{own: 1, init: 2, mounts: got}
	for inode, want := range map[uint64]string{7: "a b", 8: "net:[8]", 2: "init", 5: "net:[5]"} {
		n := &Netns{Inode: inode, path: "/proc/12/ns/net"}
		if k.describe(n); n.Name != want {
			t.Errorf("%d is called %q, want %q", inode, n.Name, want)
		}
	}
}
