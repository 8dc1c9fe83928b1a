// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// cgroupPrefix begins the name of a lab's cgroup, below the root of the cgroup v2
// hierarchy. In it is one for each role that needs it.
const cgroupPrefix = "/pathtrace-lab-"

// cgroupRoot is where the cgroup v2 hierarchy is mounted.
func cgroupRoot() (string, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 2 && fields[2] == "cgroup2" {
			return fields[1], nil
		}
	}
	return "", errors.New("no cgroup v2 hierarchy is mounted")
}

// CgroupPath is the path of a role's cgroup within the hierarchy, whether or not it exists.
func (l *Lab) CgroupPath(r Role) string { return cgroupPrefix + l.prefix + "/" + string(r) }

// Cgroup opens the cgroup that the client is to run in; nil when the fault asks for none. The caller closes it.
func (l *Lab) Cgroup() (*os.File, error) {
	dir := l.cgroups[Client]
	if dir == "" {
		return nil, nil
	}
	return os.Open(dir)
}

// Join moves this process into the client's cgroup, where the fault asks for one; leave moves it back.
func (l *Lab) Join() (leave func() error, err error) {
	leave = func() error { return nil }
	dir := l.cgroups[Client]
	if dir == "" {
		return leave, nil
	}
	root, err := cgroupRoot()
	if err != nil {
		return leave, err
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return leave, err
	}
	home := "/"
	for line := range strings.Lines(string(b)) {
		if p, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			home = p
		}
	}
	move := func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("move into cgroup %s: %w", dir, err)
		}
		return nil
	}
	return func() error { return move(filepath.Join(root, home)) }, move(dir)
}

// cgroup returns the directory of a role's cgroup, which is made when it is first asked for.
func (l *Lab) cgroup(r Role) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if dir := l.cgroups[r]; dir != "" {
		return dir, nil
	}
	root, err := cgroupRoot()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, l.CgroupPath(r))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make a cgroup: %w", err)
	}
	l.cgroups[r] = dir
	return dir, nil
}

// guarded attaches a program that always returns value to a role's cgroup.
func guarded(r Role, attach ebpf.AttachType, value int32) func(*Lab) error {
	return func(l *Lab) error {
		dir, err := l.cgroup(r)
		if err != nil {
			return err
		}
		kind := ebpf.CGroupSockAddr
		switch attach {
		case ebpf.AttachCGroupInetIngress, ebpf.AttachCGroupInetEgress:
			kind = ebpf.CGroupSKB
		case ebpf.AttachCGroupInetSockCreate:
			kind = ebpf.CGroupSock
		}
		p, err := load("lab_gate", kind, attach, always(value))
		if err != nil {
			return err
		}
		defer p.Close()
		return l.keep(link.AttachCgroup(link.CgroupOptions{Path: dir, Attach: attach, Program: p}))
	}
}

// enclosed makes the role's cgroup without a program.
func enclosed(r Role) func(*Lab) error {
	return func(l *Lab) error {
		_, err := l.cgroup(r)
		return err
	}
}

// removeCgroups removes what is left of a lab's cgroups. Their processes have ended.
func removeCgroups(prefix string) error {
	root, err := cgroupRoot()
	if err != nil {
		return nil // then there is none
	}
	top := filepath.Join(root, cgroupPrefix+prefix)
	var errs []error
	for _, name := range append(slices.Clone(roles), "") { // the lab's own comes last
		if err := os.Remove(filepath.Join(top, string(name))); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove a cgroup of lab %s: %w", prefix, err))
		}
	}
	return errors.Join(errs...)
}
