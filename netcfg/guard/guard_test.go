// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/netcfg"
)

// ownerEnv makes this program arm a guard, as a process that can be killed.
const ownerEnv = "PATHTRACE_TEST_OWNER"

func TestMain(m *testing.M) {
	Serve()
	if os.Getenv(ownerEnv) != "" {
		if err := own(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// own arms a guard in the namespace, says so, applies the commands, says so, and waits for its death.
func own(netns, undo string, commands []string) error {
	n, err := netcfg.Open(netns)
	if err != nil {
		return err
	}
	g, err := Arm(Change{Netns: n, What: "test", Mark: mark, Undo: []string{undo}, For: time.Hour})
	if err != nil {
		return err
	}
	fmt.Println("armed", g.cmd.Process.Pid)
	if err := g.Apply(context.Background(), commands); err != nil {
		return err
	}
	fmt.Println("applied")
	_, err = os.Stdin.Read(make([]byte, 1))
	return err
}

const mark = "pathtrace-0badcafe"

var count atomic.Int32

// space is a namespace of the test's own, with one chain; records go to a directory of the test's own.
type space struct {
	*netcfg.Netns
	t   *testing.T
	dir string
}

func newSpace(t *testing.T) space {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	name := fmt.Sprintf("ptg%d-%d", os.Getpid(), count.Add(1))
	s := space{t: t, dir: filepath.Join(t.TempDir(), "state")}
	t.Setenv("PATHTRACE_STATE_DIR", s.dir)
	s.run("ip", "netns", "add", name)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() }) // a test may have done so
	n, err := netcfg.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	s.Netns = n
	s.nft("add table inet fw; add chain inet fw in { type filter hook input priority 0; }; add rule inet fw in tcp dport 80 drop")
	return s
}

func (s space) run(name string, arg ...string) string {
	s.t.Helper()
	out, err := exec.Command(name, arg...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s %q: %v: %s", name, arg, err, out)
	}
	return string(out)
}

func (s space) nft(script string) { s.t.Helper(); s.run("ip", "netns", "exec", s.Name, "nft", script) }

func (s space) rules() string {
	s.t.Helper()
	return s.run("ip", "netns", "exec", s.Name, "nft", "-s", "list", "ruleset")
}

func (s space) insert() string {
	return fmt.Sprintf(`ip netns exec %s nft insert rule inet fw in tcp dport 80 accept comment '"%s"'`, s.Name, mark)
}

func (s space) remove() string {
	nft := "ip netns exec " + s.Name + " nft"
	return nft + ` -a list chain inet fw in | sed -n 's/.*comment "` + mark + `" # handle //p' | while read -r h; do ` + nft + ` delete rule inet fw in handle $h; done`
}

func (s space) change() Change {
	return Change{Netns: s.Netns, What: "let port 80 pass", Mark: mark, Undo: []string{s.remove()}, For: time.Hour}
}

func (s space) arm(c Change) *Guard {
	s.t.Helper()
	g, err := Arm(c)
	if err != nil {
		s.t.Fatal(err)
	}
	return g
}

// left returns the records that are there.
func (s space) left() []Pending {
	s.t.Helper()
	list, err := List()
	if err != nil {
		s.t.Fatal(err)
	}
	return list
}

func (s space) wantAudit(want ...string) {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "changes.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != len(want) {
		s.t.Fatalf("%d audit lines, want %d:\n%s", len(lines), len(want), text)
	}
	for i, w := range want {
		if !strings.Contains(lines[i], w) {
			s.t.Errorf("audit line %q, want %q", lines[i], w)
		}
	}
}

func TestUndoneWhenAsked(t *testing.T) {
	s := newSpace(t)
	before := s.rules()
	g := s.arm(s.change())
	if err := g.Apply(t.Context(), []string{s.insert()}); err != nil {
		t.Fatal(err)
	}
	if s.rules() == before {
		t.Fatal("nothing was changed")
	}
	if list := s.left(); len(list) != 1 || list[0].Left {
		t.Errorf("pending: %+v", list)
	}
	info, err := os.Stat(g.record.path(s.dir))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the record: %v, %v", info.Mode(), err)
	}
	r, err := g.Undo()
	if err != nil || r.Why != WhyAsked {
		t.Errorf("%+v, %v", r, err)
	}
	if diff := cmp.Diff(before, s.rules()); diff != "" {
		t.Error(diff)
	}
	if len(s.left()) != 0 {
		t.Error("the record is left")
	}
	s.wantAudit("changes "+s.Name+": let port 80 pass", "takes back in "+s.Name+" (asked): let port 80 pass")
}

func TestUndoneAtTheDeadline(t *testing.T) {
	s := newSpace(t)
	before := s.rules()
	c := s.change()
	c.For = 300 * time.Millisecond
	g := s.arm(c)
	if err := g.Apply(t.Context(), []string{s.insert()}); err != nil {
		t.Fatal(err)
	}
	g.cmd.Wait() // ends by itself
	if diff := cmp.Diff(before, s.rules()); diff != "" {
		t.Error(diff)
	}
	if r, err := g.Undo(); err != nil || r.Why != WhyDeadline {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestOthersChangesSurvive(t *testing.T) {
	s := newSpace(t)
	g := s.arm(s.change())
	if err := g.Apply(t.Context(), []string{s.insert()}); err != nil {
		t.Fatal(err)
	}
	s.nft("insert rule inet fw in tcp dport 22 accept; add table ip other")
	if _, err := g.Undo(); err != nil {
		t.Fatal(err)
	}
	after := s.rules()
	if !strings.Contains(after, "dport 22") || !strings.Contains(after, "table ip other") || strings.Contains(after, mark) {
		t.Error(after)
	}
}

func TestKept(t *testing.T) {
	s := newSpace(t)
	g := s.arm(s.change())
	if err := g.Apply(t.Context(), []string{s.insert()}); err != nil {
		t.Fatal(err)
	}
	if err := g.Keep(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(s.rules(), mark) || len(s.left()) != 0 {
		t.Error(s.rules(), s.left())
	}
}

func TestAFailedCommandIsTold(t *testing.T) {
	s := newSpace(t)
	before := s.rules()
	g := s.arm(s.change())
	err := g.Apply(t.Context(), []string{s.insert(), "echo no such thing >&2; exit 3"})
	if err == nil || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("%v", err)
	}
	if _, err := g.Undo(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(before, s.rules()); diff != "" {
		t.Error(diff)
	}
}

// owner is a process that has armed a guard.
type owner struct {
	cmd   *exec.Cmd
	guard int
	said  *bufio.Scanner
}

func (s space) owner(commands ...string) owner {
	s.t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{s.Name, s.remove()}, commands...)...)
	cmd.Env = append(os.Environ(), ownerEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	o := owner{cmd: cmd, said: bufio.NewScanner(out)}
	s.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	pid, _ := strings.CutPrefix(s.line(o), "armed ")
	if o.guard, err = strconv.Atoi(pid); err != nil {
		s.t.Fatal(err)
	}
	return o
}

func (s space) line(o owner) string {
	s.t.Helper()
	if !o.said.Scan() {
		s.t.Fatal("the owner said nothing")
	}
	return o.said.Text()
}

// gone waits until a process that is not our child has ended.
func gone(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for {
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1); n == 1 {
			return
		} else if !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
}

func TestOwnerKilled(t *testing.T) {
	s := newSpace(t)
	before := s.rules()
	o := s.owner(s.insert())
	s.line(o)
	o.cmd.Process.Kill()
	gone(t, o.guard)
	if diff := cmp.Diff(before, s.rules()); diff != "" {
		t.Error(diff)
	}
	if len(s.left()) != 0 {
		t.Error("the record is left")
	}
	s.wantAudit("changes", "(ended)")
}

// A command that still runs when its owner is killed changes something later: the undo comes after it.
func TestOwnerKilledWhileACommandRuns(t *testing.T) {
	s := newSpace(t)
	before := s.rules()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	o := s.owner("read -r x <" + fifo + "; " + s.insert())
	f, err := os.OpenFile(fifo, os.O_WRONLY, 0) // returns once the command reads
	if err != nil {
		t.Fatal(err)
	}
	o.cmd.Process.Kill()
	o.cmd.Wait()
	if list := s.left(); len(list) != 1 || list[0].Left {
		t.Errorf("pending while the command runs: %+v", list)
	}
	fmt.Fprintln(f, "go on")
	f.Close()
	gone(t, o.guard)
	if diff := cmp.Diff(before, s.rules()); diff != "" {
		t.Error(diff)
	}
}

func TestGuardKilledToo(t *testing.T) {
	s := newSpace(t)
	before := s.rules()
	o := s.owner(s.insert())
	s.line(o)
	syscall.Kill(o.guard, syscall.SIGKILL)
	o.cmd.Process.Kill()
	o.cmd.Wait()
	gone(t, o.guard)
	if list := s.left(); len(list) != 1 || !list[0].Left {
		t.Fatalf("pending: %+v", list)
	}
	done, err := Replay()
	if err != nil || len(done) != 1 || done[0].Why != WhyLeft {
		t.Errorf("%+v, %v", done, err)
	}
	if diff := cmp.Diff(before, s.rules()); diff != "" {
		t.Error(diff)
	}
	if again, err := Replay(); err != nil || len(again) != 0 {
		t.Errorf("a second time: %+v, %v", again, err)
	}
	s.wantAudit("changes", "(left)")
}

func TestGuardKilledAlone(t *testing.T) {
	s := newSpace(t)
	before := s.rules()
	g := s.arm(s.change())
	if err := g.Apply(t.Context(), []string{s.insert()}); err != nil {
		t.Fatal(err)
	}
	g.cmd.Process.Kill()
	if done, err := Replay(); len(done) != 0 || err != nil {
		t.Errorf("replayed while its owner lives: %+v, %v", done, err)
	}
	if r, err := g.Undo(); err != nil || r.Why != WhyLeft {
		t.Errorf("%+v, %v", r, err)
	}
	if diff := cmp.Diff(before, s.rules()); diff != "" {
		t.Error(diff)
	}
	if len(s.left()) != 0 {
		t.Error("the record is left")
	}
}

func TestDetached(t *testing.T) {
	s := newSpace(t)
	before := s.rules()
	g := s.arm(s.change())
	if err := g.Apply(t.Context(), []string{s.insert()}); err != nil {
		t.Fatal(err)
	}
	if err := g.Detach(); err != nil {
		t.Fatal(err)
	}
	list := s.left()
	if len(list) != 1 || list[0].Left || !strings.Contains(s.rules(), mark) {
		t.Fatalf("pending: %+v\n%s", list, s.rules())
	}
	if err := list[0].Record.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, s.rules()); diff != "" {
		t.Error(diff)
	}
	s.wantAudit("changes", "(terminated)")
}

func TestNothingWasChangedYet(t *testing.T) {
	s := newSpace(t)
	before := s.rules()
	c := s.change()
	c.Undo = []string{"false"} // must not be needed
	g := s.arm(c)
	if _, err := g.Undo(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(before, s.rules()); diff != "" {
		t.Error(diff)
	}
}

func TestRoutes(t *testing.T) {
	s := newSpace(t)
	ip := "ip -n " + s.Name + " route "
	c := Change{Netns: s.Netns, What: "a route", Undo: []string{"ip route del blackhole 192.0.2.0/24", "ip route add blackhole 198.51.100.0/24"}, For: time.Hour}
	s.run("sh", "-c", ip+"add blackhole 198.51.100.0/24")
	for _, test := range []struct {
		name     string
		commands []string
	}{
		{"not changed yet", nil},
		{"half", []string{ip + "add blackhole 192.0.2.0/24"}},
		{"whole", []string{ip + "add blackhole 192.0.2.0/24", ip + "del blackhole 198.51.100.0/24"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := s.arm(c)
			if err := g.Apply(t.Context(), test.commands); err != nil {
				t.Fatal(err)
			}
			if _, err := g.Undo(); err != nil {
				t.Error(err)
			}
			if got := strings.TrimSpace(s.run("sh", "-c", ip)); got != "blackhole 198.51.100.0/24" {
				t.Error(got)
			}
		})
	}
}

func TestAnUndoThatFailsStaysRecorded(t *testing.T) {
	s := newSpace(t)
	c := s.change()
	c.Mark, c.Undo = "", []string{"echo not now >&2; false"}
	g := s.arm(c)
	if _, err := g.Undo(); err == nil || !strings.Contains(err.Error(), "not now") {
		t.Errorf("%v", err)
	}
	if list := s.left(); len(list) != 1 || !list[0].Left {
		t.Errorf("pending: %+v", list)
	}
	s.wantAudit("changes", "failed: ")
}

// A rule that another program's lock keeps in place is taken back once that is free.
func TestUndoIsRepeatedUntilTheMarkIsGone(t *testing.T) {
	s := newSpace(t)
	before := s.rules()
	tries := filepath.Join(t.TempDir(), "tries")
	c := s.change()
	c.Undo = []string{"echo >>" + tries + "; [ $(wc -l <" + tries + ") -lt 3 ] || { " + s.remove() + "; }"}
	g := s.arm(c)
	if err := g.Apply(t.Context(), []string{s.insert()}); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Undo(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(before, s.rules()); diff != "" {
		t.Error(diff)
	}
}

// leftover is a record whose process and guard have been killed.
func (s space) leftover() Record {
	s.t.Helper()
	o := s.owner(s.insert())
	s.line(o)
	syscall.Kill(o.guard, syscall.SIGKILL)
	o.cmd.Process.Kill()
	o.cmd.Wait()
	gone(s.t, o.guard)
	return s.left()[0].Record
}

func TestNothingLeftToUndo(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(space, *Record)
		note    string
	}{
		"namespace gone":        {func(s space, _ *Record) { s.run("ip", "netns", "del", s.Name) }, "the namespace is gone"},
		"another namespace":     {func(_ space, r *Record) { r.Namespace.Cookie++ }, "the namespace is gone"},
		"host was booted since": {func(_ space, r *Record) { r.Boot = "another" }, "the host was started anew since"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpace(t)
			r := s.leftover()
			test.prepare(s, &r)
			f, _, err := open(r.path(s.dir))
			if err != nil {
				t.Fatal(err)
			}
			f.Truncate(0)
			if err := r.save(f, s.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			f.Close()
			s.Close() // our own hold on it
			done, err := Replay()
			if err != nil || len(done) != 1 || done[0].Note != test.note {
				t.Errorf("%+v, %v", done, err)
			}
			if len(s.left()) != 0 {
				t.Error("the record is left")
			}
		})
	}
}

func TestRecordsOfOthersAreNotRun(t *testing.T) {
	for name, spoil := range map[string]func(*testing.T, string, string){
		"directory": func(t *testing.T, dir, _ string) { chmod(t, dir, 0o777) },
		"file":      func(t *testing.T, _, file string) { chmod(t, file, 0o666) },
		"owner": func(t *testing.T, _, file string) {
			if err := os.Chown(file, 65534, 0); err != nil {
				t.Fatal(err)
			}
		},
		"link": func(t *testing.T, dir, file string) {
			if err := errors.Join(os.Rename(file, dir+"/x"), os.Symlink(dir+"/x", file)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpace(t)
			r := s.leftover()
			spoil(t, s.dir, r.path(s.dir))
			if done, err := Replay(); err == nil || len(done) != 0 {
				t.Errorf("%+v, %v", done, err)
			}
			if !strings.Contains(s.rules(), mark) {
				t.Error("it was run")
			}
		})
	}
}

func chmod(t *testing.T, name string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
}

func TestAlone(t *testing.T) {
	t.Setenv("PATHTRACE_STATE_DIR", filepath.Join(t.TempDir(), "state"))
	release, err := Alone()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Alone(); !errors.Is(err, ErrBusy) {
		t.Errorf("a second one: %v", err)
	}
	release()
	if release, err = Alone(); err != nil {
		t.Fatal(err)
	}
	release()
}

func TestSettled(t *testing.T) {
	for stderr, want := range map[string]bool{
		"RTNETLINK answers: File exists":             true,
		"RTNETLINK answers: No such process":         true,
		"RTNETLINK answers: Operation not permitted": false,
		"": false,
		"RTNETLINK answers: File exists\nsomething else":                   false,
		`Cannot open network namespace "x": No such file or directory`:     false,
		"Cannot find device \"eth7\"":                                      true,
		"sh: 1: ip: not found":                                             false,
		"Error: ipv4: FIB table does not exist.\nRTNETLINK answers: ESRCH": false,
	} {
		if got := settled(stderr); got != want {
			t.Errorf("%q: %v", stderr, got)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"id":"0badcafe","undo":["true"]}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"id":"../../../etc"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parse(data)
		if err == nil && filepath.Dir(r.path("/run/x")) != "/run/x" {
			t.Errorf("%q leads out of its directory", r.ID)
		}
	})
}
