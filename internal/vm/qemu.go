// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// ports of the guest's command. A port has one opener, and one whose other side
// is closed blocks who writes to it: so there is one for each direction.
var ports = []string{"in", "out", "err", "status"}

// boot runs the machine until its command has ended, and returns the command's status.
func boot(ctx context.Context, o options, k kernel, dir, initrd string) (int, error) {
	console := filepath.Join(dir, "console")
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", arguments(o, k, dir, initrd, console)...)
	var said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, &said, &said
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var wait sync.WaitGroup
	for _, to := range []*os.File{os.Stdout, os.Stderr} { // descriptors 3 and 4, see arguments
		r, w, err := os.Pipe()
		if err != nil {
			return 2, err
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, w)
		wait.Go(func() { _, _ = io.Copy(to, r); r.Close() })
	}
	err := cmd.Start()
	for _, w := range cmd.ExtraFiles {
		w.Close() // QEMU's alone now: it ends with it
	}
	if err == nil {
		err = cmd.Wait()
	}
	wait.Wait()
	if o.console {
		printTail(console, 1<<20)
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		printTail(console, 2000)
		return exitTimeout, fmt.Errorf("time-out after %v", o.timeout)
	case ctx.Err() != nil:
		return 130, ctx.Err()
	}
	status, _ := os.ReadFile(filepath.Join(dir, "status"))
	if code, e := strconv.Atoi(strings.TrimSpace(string(status))); e == nil {
		return code, nil
	}
	printTail(console, 4000)
	return exitDied, fmt.Errorf("the machine died (%v): %s", err, said.String())
}

// arguments of QEMU. One thread for all processors (MTTCG hangs when code is
// patched under traffic, as attaching to functions does), no hypervisor.
func arguments(o options, k kernel, dir, initrd, console string) []string {
	out := o.out
	if out == "" {
		out = dir
	}
	args := []string{
		"-M", "pc,usb=off", "-vga", "none", "-accel", "tcg,thread=single,tb-size=512", "-cpu", "max",
		"-smp", strconv.Itoa(o.cpus), "-m", strconv.Itoa(o.memory), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", k.image, "-initrd", initrd, "-serial", "file:" + console,
		"-append", "console=ttyS0 quiet loglevel=4 panic=-1 reboot=t mitigations=off no_timer_check nokaslr tsc=reliable random.trust_cpu=on " +
			"cryptomgr.notests 8250.nr_uarts=1 net.ifnames=0 rcupdate.rcu_expedited=1",
		"-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap", "-device", "virtio-9p-pci,fsdev=root,mount_tag=root",
		"-fsdev", "local,id=out,path=" + out + ",security_model=none,multidevs=remap", "-device", "virtio-9p-pci,fsdev=out,mount_tag=out",
		"-device", "virtio-serial-pci", "-chardev", "stdio,id=in,signal=off",
	}
	for _, p := range ports {
		path := map[string]string{"out": "/dev/fd/3", "err": "/dev/fd/4", "status": filepath.Join(dir, p)}[p]
		if path != "" {
			args = append(args, "-chardev", "file,id="+p+",path="+path)
		}
		args = append(args, "-device", "virtserialport,chardev="+p+",name="+p)
	}
	return args
}

// printTail prints the end of the guest's console.
func printTail(path string, most int) {
	data, err := os.ReadFile(path)
	if err != nil {
		return
	}
	os.Stderr.Write(data[max(0, len(data)-most):])
}
