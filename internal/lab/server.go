// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Program is a real server. It runs in mount and PID namespaces of its own,
// where /etc and /run are new: so it reads the files of the lab and no
// others of the host's, and nothing that it or its children do outlives it.
type Program struct {
	Argv []string
	// Files by their path, to be made in /etc or /run: absolute, with their text.
	Files map[string]string
	Dirs  []string
	Addr  netip.AddrPort // where it listens when it is ready
}

// copied from the host's /etc: who there is, and what ports are called.
var copied = []string{"passwd", "group", "shadow", "services", "protocols"}

// RunServer starts a real server in a namespace and returns when it listens.
func (l *Lab) RunServer(r Role, p Program) error {
	path, err := tool(p.Argv[0])
	if err != nil {
		return err
	}
	p.Argv = append([]string{path}, p.Argv[1:]...)
	_, err = l.start(r, job{Program: &p})
	return err
}

// supervise starts the server in new namespaces and reports when it listens.
// The server ends with its supervisor, for process 1 of its PID namespace does.
func (p Program) supervise(say func(string)) error {
	runtime.LockOSThread() // whose end, if this process is killed, is that of the server
	defer runtime.UnlockOSThread()
	out := new(tail)
	cmd, err := again(job{Enter: &p})
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Argv[0], err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	parentGone := make(chan struct{})
	go func() { io.Copy(io.Discard, os.Stdin); close(parentGone) }()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for ready := false; ; {
		select {
		case <-tick.C:
			if !ready && listening(p.Addr) {
				ready = true
				tick.Stop()
				say("ready")
			}
		case err := <-ended:
			return fmt.Errorf("%s ended: %v: %s", p.Argv[0], err, out)
		case <-parentGone:
			cmd.Process.Kill()
			<-ended
			return nil
		}
	}
}

// again is this program, to be started as a helper with another job.
func again(j job) (*exec.Cmd, error) {
	arg, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", string(arg))
	cmd.Env = append(os.Environ(), helperEnv+"=1")
	cmd.ExtraFiles = []*os.File{os.Stderr} // the place of the parent's pipe
	return cmd, nil
}

// tail keeps the end of what a server prints.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	t.text = t.text[max(0, len(t.text)-2048):]
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ReplaceAll(strings.TrimSpace(string(t.text)), "\n", "; ")
}

// listening reports whether a socket of this network namespace listens on the port of a.
func listening(a netip.AddrPort) bool {
	file := "/proc/net/tcp"
	if a.Addr().Is6() {
		file += "6"
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) { // proc(5): sl, local address, remote address, state; 0A is LISTEN
		f := strings.Fields(line)
		if len(f) > 3 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", a.Port())) {
			return true
		}
	}
	return false
}

// enter makes the files and runs the server. It is process 1 of its PID namespace:
// not the server, as few programs are made for that.
func (p Program) enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	files := map[string]string{"/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\nservices: files\n"}
	for _, name := range copied {
		b, err := os.ReadFile("/etc/" + name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		files["/etc/"+name] = string(b)
	}
	for name, text := range p.Files {
		files[name] = text
	}
	for _, dir := range []string{"/etc", "/run"} {
		if err := unix.Mount("lab", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	for _, dir := range p.Dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if strings.Contains(name, "key") { // servers refuse a private key that others can read
			mode = 0o600
		}
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			return err
		}
	}
	server, err := os.StartProcess(p.Argv[0], p.Argv, &os.ProcAttr{
		Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return err
	}
	for { // process 1 takes in whom others leave behind
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if err == nil && pid == server.Pid {
			return fmt.Errorf("it ended, status %#x", int(status))
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for it: %w", err)
		}
	}
}
