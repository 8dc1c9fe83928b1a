// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg/libwrap"
)

// WrapLibrary is a libwrap that servers use, or that programs may which they start.
type WrapLibrary struct {
	Path string // opens the very file, also when another has taken its name
	Name string // as those processes see it
	// Users are the processes that hold the listening sockets and map it, or may start a program that does.
	Users []int
}

// Listeners are the processes that hold TCP sockets which listen on a port.
type Listeners struct {
	Processes []evidence.Process
	Libraries []WrapLibrary // the libwrap of those that use one, each file once
	// Embedded are those of Processes that map no libwrap and whose program names
	// hosts.deny, as one does that the library is linked into.
	Embedded []evidence.Process
}

// FindListeners finds the processes that listen on a TCP port in these
// namespaces, and which libwrap they use. Where nobody listens on it the
// packets may be translated to another port: then the libraries are those of
// all listeners there.
func FindListeners(spaces []*Netns, port uint16) (Listeners, error) {
	var l Listeners
	wanted, err := listenerInodes(spaces, port)
	translated := err == nil && len(wanted) == 0
	if translated {
		wanted, err = listenerInodes(spaces, 0)
	}
	if len(wanted) == 0 {
		return l, err
	}
	holders, _ := socketHolders(wanted)
	pids := map[int]bool{}
	for _, list := range holders {
		for _, pid := range list {
			pids[pid] = true
		}
	}
	byFile := map[string]int{}
	for _, pid := range slices.Sorted(maps.Keys(pids)) {
		p, err := readProcess(pid)
		noted := err == nil && !translated && len(l.Processes) < maxListeners
		if noted {
			l.Processes = append(l.Processes, p)
		}
		lib, id, ok := mappedWrap(pid)
		if !ok {
			lib, id, ok = childrensWrap(pid)
		}
		if !ok {
			if noted && namesRules(pid) {
				l.Embedded = append(l.Embedded, p)
			}
			continue
		}
		i, known := byFile[id]
		if !known {
			i = len(l.Libraries)
			byFile[id] = i
			l.Libraries = append(l.Libraries, lib)
		}
		l.Libraries[i].Users = append(l.Libraries[i].Users, pid)
	}
	return l, err
}

// maxListeners bounds the processes that are kept: a server may have hundreds of workers.
const maxListeners = 64

// listenerInodes returns the TCP sockets that listen on port; 0: on any.
func listenerInodes(spaces []*Netns, port uint16) (map[uint64][]int, error) {
	wanted := map[uint64][]int{}
	var errs []error
	for _, n := range spaces {
		list, err := n.diagDump(diagRequest{protocol: unix.IPPROTO_TCP, states: 1 << unix.BPF_TCP_LISTEN, local: netip.AddrPortFrom(netip.Addr{}, port)})
		if err != nil {
			errs = append(errs, fmt.Errorf("listening sockets in %s: %w", n.Name, err))
		}
		for _, s := range list {
			if s.inode != 0 && (port == 0 || s.local.Port() == port) {
				wanted[uint64(s.inode)] = nil
			}
		}
	}
	return wanted, errors.Join(errs...)
}

// mappedWrap finds libwrap among what a process has mapped, proc_pid_maps(5).
func mappedWrap(pid int) (lib WrapLibrary, id string, ok bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	data, err := os.ReadFile(dir + "/maps")
	if err != nil {
		return lib, "", false
	}
	for line := range bytes.Lines(data) {
		if !bytes.Contains(line, []byte("/libwrap.so")) {
			continue
		}
		f := strings.Fields(string(line))
		if len(f) < 6 || !strings.HasPrefix(path.Base(f[5]), "libwrap.so") {
			continue
		}
		return WrapLibrary{Path: dir + "/map_files/" + f[0], Name: f[5]}, f[3] + " " + f[4], true
	}
	return lib, "", false
}

// maxConstants bounds what is read of a program's constants, in bytes.
const maxConstants = 4 << 20

// namesRules reports whether the program of a process has the name of libwrap's
// file of rules among its constants.
func namesRules(pid int) bool {
	f, err := elf.Open("/proc/" + strconv.Itoa(pid) + "/exe")
	if err != nil {
		return false
	}
	defer f.Close()
	s := f.Section(".rodata")
	if s == nil || s.Type == elf.SHT_NOBITS {
		return false
	}
	data, _ := io.ReadAll(io.LimitReader(s.Open(), maxConstants)) // what cannot be read does not count
	return bytes.Contains(data, []byte(libwrap.DenyPath+"\x00"))
}

// superServers hand their connections to programs that they start, which may
// be linked with libwrap where they are not, or be tcpd.
var superServers = []string{"inetd", "systemd", "init", "tcpserver", "tcpsvd", "dovecot", "busybox"}

// wrapPlaces are where distributions install libwrap.
var wrapPlaces = []string{"lib/*-linux-gnu/libwrap.so.0", "usr/lib/*-linux-gnu/libwrap.so.0", "usr/lib64/libwrap.so.0", "usr/lib/libwrap.so.0", "usr/local/lib/libwrap.so.0"}

// childrensWrap finds the libwrap that a program would map which a super-server starts.
func childrensWrap(pid int) (lib WrapLibrary, id string, ok bool) {
	p, err := readProcess(pid)
	if err != nil || !slices.ContainsFunc(superServers, func(s string) bool { return strings.HasSuffix(p.Comm, s) }) {
		return lib, "", false
	}
	dir := "/proc/" + strconv.Itoa(pid) + "/root"
	root, err := os.OpenRoot(dir) // its links stay below it
	if err != nil {
		return lib, "", false
	}
	defer root.Close()
	for _, pattern := range wrapPlaces {
		names, _ := fs.Glob(root.FS(), pattern) // the patterns are well formed
		for _, name := range names {
			info, err := root.Stat(name)
			if err != nil || !info.Mode().IsRegular() {
				continue
			}
			id := name
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				id = fmt.Sprintf("%02x:%02x %d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
			}
			return WrapLibrary{Path: dir + "/" + name, Name: "/" + name}, id, true
		}
	}
	return lib, "", false
}
