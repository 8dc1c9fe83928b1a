// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrNoNetns is wrapped by the error of [Open] when the namespace does not
// exist, or when what was named is not a network namespace.
var ErrNoNetns = errors.New("no such network namespace")

// The directories where network namespaces are kept by name. The first is
// where "ip netns" keeps them (/var/run is /run on every current system, but
// mounts are listed by the path that was used), the last is Docker's.
var nameDirs = []string{"/run/netns/", "/var/run/netns/", "/run/docker/netns/", "/var/run/docker/netns/"}

// Netns is a network namespace of this host, held open: it lives at least
// until [Netns.Close].
type Netns struct {
	Name  string // "init", the name below /run/netns, or "net:[inode]"
	Inode uint64 // of the namespace in nsfs

	handle netns.NsHandle
	path   string // that leads to it for other programs
	own    bool   // the calling process is in it
	long   map[string]longChain
}

// Current returns the namespace of the calling process.
func Current() (*Netns, error) {
	n, err := openPath("/proc/self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("own network namespace: %w", err)
	}
	return n, nil
}

// Open returns the namespace that spec names: a name as "ip netns" knows it,
// "init", a path, the id of a process that is in it, or the form net:[inode]
// in which this package names those that have no name. A name made of digits
// is taken before a process id.
//
// The error wraps [ErrNoNetns] when there is no such namespace, and
// [fs.ErrPermission] when it may not be entered.
func Open(spec string) (*Netns, error) {
	path, what := specPath(spec)
	if path == "" {
		return openInode(spec)
	}
	n, err := openPath(path)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH), errors.Is(err, unix.ENOTDIR):
		return nil, fmt.Errorf("%s: %w", what, ErrNoNetns)
	}
	return nil, fmt.Errorf("%s: %w", what, err)
}

// specPath says where the namespace called spec is to be found, and how to
// call it in a message. The path is empty for net:[inode].
func specPath(spec string) (path, what string) {
	if strings.ContainsRune(spec, '/') {
		return spec, spec
	}
	if strings.HasPrefix(spec, "net:[") {
		return "", spec
	}
	what = fmt.Sprintf("netns %q", spec)
	if spec == "" || spec == "." || spec == ".." {
		return "/run/netns/\x00", what // cannot exist
	}
	for _, dir := range nameDirs {
		if _, err := os.Lstat(dir + spec); err == nil {
			return dir + spec, what
		}
	}
	if spec == "init" {
		return "/proc/1/ns/net", what
	}
	if pid, err := strconv.ParseUint(spec, 10, 31); err == nil {
		return fmt.Sprintf("/proc/%d/ns/net", pid), fmt.Sprintf("process %d", pid)
	}
	return nameDirs[0] + spec, what
}

func openInode(spec string) (*Netns, error) {
	all, err := List()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", spec, err)
	}
	var found *Netns
	for _, n := range all {
		if found == nil && fmt.Sprintf("net:[%d]", n.Inode) == spec {
			found = n
			continue
		}
		n.Close()
	}
	if found == nil {
		return nil, fmt.Errorf("%s: %w", spec, ErrNoNetns)
	}
	return found, nil
}

// openPath opens the namespace at path and names it.
func openPath(path string) (*Netns, error) {
	n, err := openHandle(path)
	if err != nil {
		return nil, err
	}
	readNames().describe(n)
	return n, nil
}

// openHandle opens the namespace at path and checks that it is one.
func openHandle(path string) (*Netns, error) {
	if strings.ContainsRune(path, 0) {
		return nil, fs.ErrNotExist
	}
	// O_NONBLOCK: what the user named may be a pipe.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	handle := netns.NsHandle(fd)
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		handle.Close()
		return nil, fmt.Errorf("not a network namespace: %w", ErrNoNetns)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		handle.Close()
		return nil, err
	}
	return &Netns{Inode: st.Ino, handle: handle, path: path}, nil
}

// Close gives the namespace up. n may not be used afterwards.
func (n *Netns) Close() error {
	if !n.handle.IsOpen() {
		return nil
	}
	return n.handle.Close()
}

// Enter returns the words to put in front of a command so that it runs in n
// when typed where pathtrace was started: nothing for its own namespace.
func (n *Netns) Enter() []string {
	switch {
	case n.own:
		return nil
	case filepath.Dir(n.path) == "/run/netns" || filepath.Dir(n.path) == "/var/run/netns":
		return []string{"ip", "netns", "exec", filepath.Base(n.path)}
	}
	return []string{"nsenter", "--net=" + n.path}
}
