// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// guest is process 1: it mounts the host's files, runs the command, tells its status and ends the machine.
func guest() {
	code, err := serve()
	if err != nil {
		fmt.Println("vm:", err) // the console
	} else {
		_ = os.WriteFile("/run/vm/status", fmt.Appendln(nil, code), 0)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	select {}
}

func serve() (int, error) {
	text, err := os.ReadFile("/order.json")
	if err != nil {
		return 0, err
	}
	var r order
	if err := json.Unmarshal(text, &r); err != nil {
		return 0, err
	}
	if err := mountRoot(r); err != nil {
		return 0, err
	}
	if err := findPorts(); err != nil {
		return 0, err
	}
	return execute(r)
}

type mount struct{ source, target, kind, data string }

func (m mount) make(flags uintptr) error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.kind, flags, m.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
	}
	return nil
}

// mountRoot lays memory over the host's files and makes that the root.
func mountRoot(r order) error {
	for _, m := range []mount{{"proc", "/proc", "proc", ""}, {"sys", "/sys", "sysfs", ""}, {"dev", "/dev", "devtmpfs", ""}} {
		if err := m.make(0); err != nil {
			return err
		}
	}
	for _, file := range r.Modules {
		if err := load(file); err != nil {
			return err
		}
	}
	const share = "trans=virtio,version=9p2000.L,msize=512000"
	if err := (mount{"root", "/host", "9p", share + ",cache=loose"}).make(unix.MS_RDONLY); err != nil {
		return err
	}
	if err := (mount{"layer", "/layer", "tmpfs", ""}).make(0); err != nil {
		return err
	}
	for _, dir := range []string{"/layer/upper", "/layer/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := (mount{"root", "/root", "overlay", "lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work"}).make(0); err != nil {
		return err
	}
	modules := "/lib/modules/" + r.Release
	if err := (mount{"/host" + r.Kernel + modules, "/root/usr" + modules, "", ""}).make(unix.MS_BIND); err != nil {
		return err
	}
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if err := unix.Mount(dir, "/root"+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	if r.Out {
		if err := (mount{"out", "/root/out", "9p", share}).make(0); err != nil {
			return err
		}
	}
	return enter("/root")
}

// enter makes a mounted directory the root, and mounts what a running system has.
func enter(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(root, "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	for _, m := range []mount{
		{"devpts", "/dev/pts", "devpts", ""}, {"shm", "/dev/shm", "tmpfs", ""}, {"run", "/run", "tmpfs", ""}, {"bpf", "/sys/fs/bpf", "bpf", ""},
		{"tracefs", "/sys/kernel/tracing", "tracefs", ""}, {"cgroup2", "/sys/fs/cgroup", "cgroup2", ""},
	} {
		if err := m.make(0); err != nil {
			return err
		}
	}
	for name, to := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		if err := os.Symlink(to, "/dev/"+name); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return loopbackUp()
}

func load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
		return fmt.Errorf("load %s: %w", file, err)
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// findPorts links /run/vm/NAME to the device of each port.
func findPorts() error {
	if err := os.MkdirAll("/run/vm", 0o755); err != nil {
		return err
	}
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return err
	}
	for _, file := range names {
		name, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.Symlink("/dev/"+filepath.Base(filepath.Dir(file)), "/run/vm/"+strings.TrimSpace(string(name))); err != nil {
			return err
		}
	}
	return nil
}

// execute runs the command, and takes in the processes that others leave behind.
func execute(r order) (int, error) {
	var files []uintptr
	for i, port := range ports[:3] {
		flag := unix.O_WRONLY
		if i == 0 {
			flag = unix.O_RDONLY
		}
		f, err := os.OpenFile("/run/vm/"+port, flag, 0)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		files = append(files, f.Fd())
	}
	path, err := lookPath(r)
	if err != nil {
		return 127, os.WriteFile("/run/vm/err", []byte("vm: "+err.Error()+"\n"), 0)
	}
	pid, err := syscall.ForkExec(path, r.Argv, &syscall.ProcAttr{Dir: r.Dir, Env: append(r.Env, "VM_KERNEL="+r.Release), Files: files})
	if err != nil {
		return 0, err
	}
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case got == pid && ws.Exited():
			return ws.ExitStatus(), nil
		case got == pid:
			return 128 + int(ws.Signal()), nil
		}
	}
}

func lookPath(r order) (string, error) {
	name := r.Argv[0]
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(r.Dir, name)
		}
		return name, nil
	}
	for _, v := range r.Env {
		list, ok := strings.CutPrefix(v, "PATH=")
		for _, dir := range filepath.SplitList(list) {
			p := filepath.Join(dir, name)
			if st, err := os.Stat(p); ok && err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
				return p, nil
			}
		}
	}
	return "", fmt.Errorf("%s: not found", name)
}
