// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Do runs f on a goroutine of its own that is locked to a thread inside n, and
// returns its error. Sockets that f opens, and processes that it starts,
// belong to n; goroutines that it starts do not run there. f may not call
// [runtime.LockOSThread] or UnlockOSThread.
func (n *Netns) Do(f func() error) error {
	err := errors.New("the function did not return")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// The main thread must stay where it is: /proc/self shows its
			// namespace, and it cannot be thrown away. While it is
			// held here the other goroutine gets another thread.
			err = n.Do(f)
			runtime.UnlockOSThread()
			return
		}
		err = n.doLocked(f)
	}()
	<-done
	return err
}

// doLocked runs f in n on the calling thread, which is locked. If the thread
// cannot be restored it stays locked, so that it ends with its goroutine.
func (n *Netns) doLocked(f func() error) error {
	before, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("network namespace of the thread: %w", err)
	}
	defer before.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(before), &st); err == nil && st.Ino == n.Inode {
		// Already there. A setns would need privilege, reading often does not.
		defer runtime.UnlockOSThread()
		return f()
	}
	if err := netns.Set(n.handle); err != nil {
		// A setns that fails leaves the thread where it was.
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w", n.Name, err)
	}
	ferr := f()
	if err := netns.Set(before); err != nil {
		return errors.Join(ferr, fmt.Errorf("leave network namespace %s: %w", n.Name, err))
	}
	runtime.UnlockOSThread()
	return ferr
}

// Start starts cmd inside n. Nothing else of cmd is changed: it sees the same
// mounts, which for programs that speak netlink makes no difference. Where
// cmd.SysProcAttr.Pdeathsig is set the signal comes when a thread ends, not
// this process: do not set it.
func (n *Netns) Start(cmd *exec.Cmd) error { return n.Do(cmd.Start) }

// Command returns a command that looks for name as a shell of root would, with
// a plain locale. It runs inside n when started by [Netns.Start].
func (n *Netns) Command(ctx context.Context, name string, arg ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, arg...)
	if path := lookTool(name); path != "" {
		cmd = exec.CommandContext(ctx, path, arg...)
	}
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd
}

// Output runs a tool inside n and returns what it printed on stdout and on
// stderr. The error wraps [exec.ErrNotFound] when it is not installed, else
// it ends with the last line of stderr.
func (n *Netns) Output(ctx context.Context, name string, arg ...string) (stdout, stderr []byte, err error) {
	var out bytes.Buffer
	stderr, err = n.run(ctx, &out, name, arg...)
	return out.Bytes(), stderr, err
}

// lines is Output for a tool that may print a lot: each line is handed over, without its end, and not kept.
func (n *Netns) lines(ctx context.Context, each func(line string), name string, arg ...string) (stderr []byte, err error) {
	w := lineWriter{each: each}
	stderr, err = n.run(ctx, &w, name, arg...)
	if len(w.begun) > 0 {
		each(string(w.begun))
	}
	return stderr, err
}

func (n *Netns) run(ctx context.Context, out io.Writer, name string, arg ...string) (stderr []byte, err error) {
	var errs bytes.Buffer
	cmd := n.Command(ctx, name, arg...)
	cmd.Stdout, cmd.Stderr = out, &errs
	if err := n.Start(cmd); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := cmd.Wait(); err != nil {
		line := strings.TrimSpace(errs.String())
		if i := strings.LastIndexByte(line, '\n'); i >= 0 {
			line = line[i+1:]
		}
		return errs.Bytes(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(arg, " "), err, line)
	}
	return errs.Bytes(), nil
}

// lineWriter cuts what is written into lines.
type lineWriter struct {
	each  func(line string)
	begun []byte
}

func (w *lineWriter) Write(b []byte) (int, error) {
	n := len(b)
	for {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		w.begun = append(w.begun, line...)
		if !whole {
			return n, nil
		}
		w.each(string(w.begun))
		w.begun, b = w.begun[:0], rest
	}
}

// RunHere runs a command line of [Netns.Enter] and a tool, from where we are, and returns what it printed.
func RunHere(ctx context.Context, argv []string) ([]byte, error) {
	path := lookTool(argv[0])
	if path == "" {
		return nil, fmt.Errorf("%s: %w", argv[0], exec.ErrNotFound)
	}
	cmd := exec.CommandContext(ctx, path, argv[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return out, nil
}

// ExitCode is that of a command which ran and was not content.
func ExitCode(err error) (code int, ok bool) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() < 0 {
		return 0, false
	}
	return exit.ExitCode(), true
}

// lookTool finds a program in PATH or in the directories for administrators,
// which the PATH of cron and of plain users lacks. It returns "" if there is none.
func lookTool(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	if strings.ContainsRune(name, '/') {
		return ""
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	return ""
}
