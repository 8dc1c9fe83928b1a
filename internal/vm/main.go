// SPDX-License-Identifier: Apache-2.0

// Command vm runs one command as root on a Debian kernel under QEMU, without
// KVM: the tests of other kernels than the host's.
//
//	vm [-k 6.1|6.12|DIR] [-c CPUS] [-m MIB] [-t DURATION] [-o DIR] -- COMMAND [ARG ...]
//
// The guest sees the host's root file system read-only below a layer in memory,
// and DIR read-write as /out; the current directory is kept. Its exit status is
// the command's: 124 for a time-out, 125 when the machine died before.
//
// The same program is the host's side and, as process 1, the guest's. It needs
// qemu-system-x86_64, kmod and, to fetch kernels, apt-get and dpkg-deb.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	exitTimeout = 124
	exitDied    = 125
)

// order is what the guest is to do, as JSON in its initial file system.
type order struct {
	Argv    []string
	Env     []string
	Dir     string
	Kernel  string   // directory of the unpacked package, on the host
	Release string   // uname -r
	Modules []string // to be loaded before the root file system can be mounted, in order
	Out     bool     // /out is shared
}

type options struct {
	kernel  string
	cpus    int
	memory  int
	timeout time.Duration
	out     string
	console bool
}

func main() {
	if os.Getpid() == 1 {
		guest() // does not return
	}
	var o options
	flag.StringVar(&o.kernel, "k", "6.12", "`kernel`: a line of Debian's, or a directory with an unpacked package")
	flag.IntVar(&o.cpus, "c", 2, "`processors`; with one, x_tables keeps its counters elsewhere")
	flag.IntVar(&o.memory, "m", 1536, "memory in `MiB`")
	flag.DurationVar(&o.timeout, "t", 5*time.Minute, "give up after this `time`")
	flag.StringVar(&o.out, "o", "", "`directory` that the guest writes to as /out")
	flag.BoolVar(&o.console, "v", false, "print the guest's console in the end")
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	code, err := run(ctx, o, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
	}
	os.Exit(code)
}

func run(ctx context.Context, o options, argv []string) (code int, err error) {
	cache, err := cacheDir()
	if err != nil {
		return 2, err
	}
	k, err := openKernel(ctx, cache, o.kernel)
	if err != nil {
		return 2, err
	}
	dir, err := os.MkdirTemp(cache, "run-")
	if err != nil {
		return 2, err
	}
	defer os.RemoveAll(dir)
	wd, err := os.Getwd()
	if err != nil {
		return 2, err
	}
	r := order{Argv: argv, Env: environment(), Dir: wd, Kernel: k.dir, Release: k.release, Out: o.out != ""}
	if o.out != "" {
		if o.out, err = filepath.Abs(o.out); err != nil {
			return 2, err
		}
	}
	initrd := filepath.Join(dir, "initrd")
	if err := writeInitrd(initrd, k, r); err != nil {
		return 2, fmt.Errorf("make the initial file system: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	return boot(ctx, o, k, dir, initrd)
}

// environment that the command gets: what tests look at, and nothing of the host's session.
func environment() []string {
	env := []string{"HOME=/root", "VM=1"}
	for _, name := range []string{"PATH", "CI", "ARGS", "PT", "T", "PTH_BIN", "KEEP", "PATHTRACE", "PATHTRACE_HOOKS", "VMTESTS"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

func cacheDir() (string, error) {
	dir := os.Getenv("VM_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			base = "/var/cache"
		}
		dir = filepath.Join(base, "pathtrace-vm")
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// command runs a tool of the host, and returns what it said on standard output.
func command(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	var e *exec.ExitError
	if errors.As(err, &e) {
		return out, fmt.Errorf("%s: %w: %s", name, err, e.Stderr)
	}
	return out, err
}
