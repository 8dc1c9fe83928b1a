// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/netcfg"
)

// Change is what is about to be done to the configuration of one namespace.
type Change struct {
	Netns *netcfg.Netns
	What  string // one line, for people
	// Mark is in the comment of every firewall rule that the change adds, and nowhere
	// else. The undo is repeated until no rule bears it. Empty for other changes.
	Mark string
	// Undo are commands of /bin/sh, run in Netns in this order. What of the change
	// was not made, or is gone, they need not undo: they may fail for that
	// in the words of iproute2. All other failures are.
	Undo []string
	For  time.Duration // until the change is taken back unasked
}

// Guard watches over one change. One of Undo, Keep, Drop or Detach ends it.
type Guard struct {
	record Record
	file   *os.File // the locked record
	socket *os.File
	said   *bufio.Reader
	cmd    *exec.Cmd
	ended  bool
	result Result
}

// Result is how an undo went.
type Result struct {
	Record Record `json:"record"`
	Why    string `json:"why"`            // the occasion: asked, deadline, ended, terminated, left
	Note   string `json:"note,omitempty"` // what was found otherwise than it was left
	Error  string `json:"error,omitempty"`
}

// Orders to a guard, one byte each.
const (
	orderArmed  = 'a' // the record is written
	orderUndo   = 'u'
	orderKeep   = 'k'
	orderDrop   = 'r' // the change was refused: nothing is to be taken back
	orderDetach = 'd' // the process that armed it may end; the deadline stays
)

// Arm writes the record of a change and starts its guard. Nothing may be
// changed before Arm has returned without an error, and nothing is when it
// returns one.
func Arm(c Change) (*Guard, error) {
	g, err := arm(c)
	if err != nil {
		return nil, fmt.Errorf("nothing was changed: no guard for the undo: %w", err)
	}
	return g, nil
}

func arm(c Change) (_ *Guard, err error) {
	if len(c.Undo) == 0 || c.For <= 0 {
		return nil, errors.New("a change without an undo or a deadline")
	}
	dir, _ := stateDir()
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	now := time.Now()
	r := Record{
		Version: version, ID: newID(), Boot: bootID(), Who: self(), User: user(), Made: now, Deadline: now.Add(c.For),
		Namespace: namespaceOf(c.Netns), What: c.What, Mark: c.Mark, Undo: c.Undo,
	}
	file, err := create(r.path(dir))
	if err != nil {
		return nil, err
	}
	g := &Guard{file: file}
	defer func() {
		if err != nil {
			os.Remove(file.Name())
			g.close()
		}
	}()
	if err := g.start(c.Netns, r.path(dir)); err != nil {
		return nil, err
	}
	r.Guard = process(g.cmd.Process.Pid)
	g.record = r
	if err := r.save(file, dir); err != nil {
		return nil, err
	}
	if err := audit("changes "+r.Namespace.Name, r, ""); err != nil {
		os.Remove(r.path(dir))
		return nil, fmt.Errorf("audit: %w", err)
	}
	if err := g.order(orderArmed); err != nil {
		os.Remove(r.path(dir))
		return nil, err
	}
	return g, nil
}

// start starts the guard's process and returns when nothing but SIGKILL can end it before its time.
func (g *Guard) start(n *netcfg.Netns, path string) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	g.socket = os.NewFile(uintptr(fds[0]), "guard")
	theirs := os.NewFile(uintptr(fds[1]), "guarded")
	defer theirs.Close()
	space, err := n.File()
	if err != nil {
		return err
	}
	defer space.Close()
	g.cmd = exec.Command("/proc/self/exe", "undo", "--guard", path)
	g.cmd.Args[0] = "pathtrace"
	g.cmd.Dir = "/"
	g.cmd.ExtraFiles = []*os.File{g.file, theirs, space}
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := g.cmd.Start(); err != nil {
		return err
	}
	g.said = bufio.NewReader(g.socket)
	if line, err := g.said.ReadString('\n'); line != ready {
		return fmt.Errorf("the guard did not start: %q, %w", line, err)
	}
	return nil
}

// ID identifies the record, as `pathtrace undo` takes it.
func (g *Guard) ID() string { return g.record.ID }

// Deadline is when the change is taken back unasked.
func (g *Guard) Deadline() time.Time { return g.record.Deadline }

func (g *Guard) order(o byte) error {
	_, err := g.socket.Write([]byte{o})
	return err
}

// Apply runs the commands of the change by /bin/sh, from where this process
// is, up to the first that fails. The guard waits for each with its undo,
// also when this process is killed meanwhile. None runs beyond the deadline.
func (g *Guard) Apply(ctx context.Context, commands []string) error {
	ctx, cancel := context.WithDeadline(ctx, g.record.Deadline)
	defer cancel()
	for _, c := range commands {
		if _, err := shell(ctx, c, g.socket, g.file); err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
	}
	return nil
}

// Undo has the change taken back, and waits for it. A guard that has done so
// before, at the deadline, says that in [Result.Why]. When the guard was killed
// the change is taken back here.
func (g *Guard) Undo() (Result, error) {
	if g.ended {
		return g.result, g.result.err()
	}
	g.ended = true
	defer g.close()
	_ = g.order(orderUndo) // a guard that cannot be told so has its result said, or is dead
	line, _ := g.said.ReadBytes('\n')
	g.cmd.Wait() // its lock goes with it
	g.cmd = nil
	if json.Unmarshal(line, &g.result) != nil {
		g.result = g.undoHere()
	}
	return g.result, g.result.err()
}

func (r Result) err() error {
	if r.Error == "" {
		return nil
	}
	return fmt.Errorf("%s could not be taken back: %s", r.Record.What, r.Error)
}

// undoHere takes the change back without the guard. Its record's lock is ours as well.
func (g *Guard) undoHere() Result {
	dir, _ := stateDir()
	n, err := g.record.Namespace.find()
	if err != nil && !errors.Is(err, netcfg.ErrNoNetns) {
		return Result{Record: g.record, Why: WhyLeft, Error: err.Error()}
	}
	if n != nil {
		defer n.Close()
	}
	return g.record.undo(n, g.file, g.record.path(dir), WhyLeft)
}

// Keep ends the guard and leaves the change as it is, for good.
func (g *Guard) Keep() error {
	return g.leave(orderKeep)
}

// Drop ends the guard of a change that was not made: the kernel has refused it whole.
func (g *Guard) Drop() error {
	return g.leave(orderDrop)
}

// Detach lets this process end: the change stays until the deadline, or until `pathtrace undo`.
func (g *Guard) Detach() error {
	return g.leave(orderDetach)
}

func (g *Guard) leave(order byte) error {
	if g.ended {
		return g.result.err()
	}
	err := g.order(order)
	var line string
	if err == nil {
		line, err = g.said.ReadString('\n')
	}
	if line == ready {
		g.ended = true
		g.close()
		return nil
	}
	var r Result
	if json.Unmarshal([]byte(line), &r) == nil { // the deadline came first
		g.ended, g.result = true, r
		g.close()
		return errors.Join(fmt.Errorf("taken back already (%s)", r.Why), r.err())
	}
	_, undone := g.Undo() // there is no guard any more
	return errors.Join(fmt.Errorf("the guard is gone, the change was taken back: %w", err), undone)
}

// close lets go of everything. A guard that has no other orders takes the change back.
func (g *Guard) close() {
	if g.socket != nil {
		g.socket.Close()
	}
	g.file.Close()
	if g.cmd != nil && g.cmd.Process != nil {
		go g.cmd.Wait() // a guard that is detached lives on
	}
}

// commandTime bounds one command.
const commandTime = 10 * time.Second

// shell runs a command line; the files stay open in it and in whatever it starts.
func shell(ctx context.Context, line string, files ...*os.File) (stderr string, err error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	var errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &errs
	cmd.ExtraFiles = files
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH="+searchPath())
	// A group of its own: neither Ctrl-C nor our deadline may leave half of a pipeline behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	stderr = strings.TrimSpace(errs.String())
	if err != nil && stderr != "" {
		err = fmt.Errorf("%w: %s", err, stderr[strings.LastIndexByte(stderr, '\n')+1:])
	}
	return stderr, err
}

// searchPath is PATH with the directories for administrators, which sudo and cron may leave out.
func searchPath() string {
	return strings.Trim(strings.Join(append(filepath.SplitList(os.Getenv("PATH")), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"), ":"), ":")
}
