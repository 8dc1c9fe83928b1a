// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg/libwrap"
)

// MapsLibwrap reports whether a process has libwrap mapped.
func MapsLibwrap(pid int) bool {
	_, _, ok := mappedWrap(pid)
	return ok
}

// ProcessRoot tells where a process sees its files.
func ProcessRoot(pid int) (evidence.Root, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	var mnt, root unix.Stat_t
	if err := unix.Stat(dir+"/ns/mnt", &mnt); err != nil {
		return evidence.Root{}, fmt.Errorf("mount namespace of process %d: %w", pid, err)
	}
	if err := unix.Stat(dir+"/root", &root); err != nil {
		return evidence.Root{}, fmt.Errorf("root of process %d: %w", pid, err)
	}
	return evidence.Root{MountNS: mnt.Ino, Device: root.Dev, Inode: root.Ino}, nil
}

// EvaluateWrap says what hosts.allow and hosts.deny decide about the request
// w, which was made for the connection between server and client. The files
// are read through /proc/PID/root of the first of the processes that sees the
// same files as the one that asked, who is by. mark is for the comment of the change that would let the client in.
func EvaluateWrap(w evidence.Wrap, server, client netip.AddrPort, by Reader, through []int, mark string) evidence.WrapDecision {
	r := wrapRequest(w, server, client)
	if slices.ContainsFunc(through, ownVariables) {
		return evidence.WrapDecision{Daemon: w.Daemon, Address: r.Client.String(),
			Unread: "the server has variables of its own for the names of its tables, which are not read"}
	}
	return evaluateRules(r, w.Tables, w.Root, through, mark, by.refused)
}

// EvaluateOpened says the same about a request that was not seen, of the
// process comm that opened these files last, in this order, while it held the connection from client.
func EvaluateOpened(comm string, opened []evidence.Opened, client netip.Addr, through []int, mark string) evidence.WrapDecision {
	last := opened[len(opened)-1]
	r := libwrap.Request{Daemon: daemonName(comm, last.Argv0), Client: client}
	r.AnyDaemon = r.Daemon == ""
	tables := [2]string{libwrap.AllowPath, libwrap.DenyPath}
	var refused [2]bool
	for _, o := range opened {
		i := 0
		if path.Base(o.Path) == path.Base(libwrap.DenyPath) {
			i = 1
		}
		tables[i], refused[i] = o.Path, o.Errno == "EACCES" || o.Errno == "EPERM"
	}
	return evaluateRules(r, tables, last.Root, through, mark, func(file string) bool {
		return path.Base(file) == path.Base(libwrap.AllowPath) && refused[0] || path.Base(file) == path.Base(libwrap.DenyPath) && refused[1]
	})
}

// daemonName is what a program calls itself to libwrap, as its source has it;
// empty for all others: most take it from their configuration, or from the service.
func daemonName(comm, argv0 string) string {
	switch comm {
	case "vsftpd", "sshd":
		return comm
	case "tcpd": // it was started by the name of the server that it stands for
		return path.Base(argv0)
	}
	return ""
}

// evaluateRules reads the tables where one of the processes through sees them.
// refused tells of hosts.allow and hosts.deny, by our path of it, whether the server may not open it.
func evaluateRules(r libwrap.Request, paths [2]string, root *evidence.Root, through []int, mark string, refused func(file string) bool) evidence.WrapDecision {
	d := evidence.WrapDecision{Daemon: r.Daemon, Address: r.Client.String()}
	if (paths[0] != "" || paths[1] != "") && paths != [2]string{libwrap.AllowPath, libwrap.DenyPath} {
		d.Unread = fmt.Sprintf("the server has its own tables, %s and %s", paths[0], paths[1])
		return d
	}
	dir, err := sameRoot(root, through)
	if err != nil {
		d.Unread = err.Error()
		return d
	}
	d.ReadAt = dir
	tables := libwrap.ReadTables(libwrap.Root(dir))
	for _, t := range []*libwrap.Table{&tables.Allow, &tables.Deny} {
		t.Refused = refused(path.Join(dir, t.Path))
	}
	e := libwrap.Evaluate(tables, r)
	d.Verdict, d.Option, d.Fault, d.Reasons = string(e.Verdict), e.Option, e.Fault, e.Reasons
	if e.File != "" {
		d.File = &evidence.FileLine{Path: e.File, Line: e.Line, Text: e.Text}
		if e.First != e.Line {
			d.File.First = e.First
		}
	}
	d.Matched = [2]evidence.Element{evidence.Element(e.Daemon), evidence.Element(e.Client)}
	_, warnings := libwrap.Parse(tables)
	for _, x := range warnings {
		d.Warnings = append(d.Warnings, fmt.Sprintf("%s:%d: %s", x.File, x.Line, x.Message))
	}
	if c, ok := libwrap.AllowChange(path.Join(dir, libwrap.AllowPath), errors.Is(tables.Allow.Err, fs.ErrNotExist), mark, r); ok {
		d.Allow, d.Commands, d.Undo = c.Rule, c.Commands, c.Undo
	}
	return d
}

// ownVariables reports whether the program of a process has the library's
// variables in its own data, as one that uses them and is linked at fixed
// places (R_X86_64_COPY): the library's are then not the ones that count.
func ownVariables(pid int) bool {
	f, err := elf.Open("/proc/" + strconv.Itoa(pid) + "/exe")
	if err != nil {
		return false
	}
	defer f.Close()
	symbols, _ := f.DynamicSymbols()
	return slices.ContainsFunc(symbols, func(s elf.Symbol) bool {
		return s.Section != elf.SHN_UNDEF && (s.Name == "hosts_allow_table" || s.Name == "hosts_deny_table")
	})
}

func wrapRequest(w evidence.Wrap, server, client netip.AddrPort) libwrap.Request {
	r := libwrap.Request{
		Daemon: w.Daemon, Client: client.Addr(), User: w.User, NoServer: w.FD < 0,
		ServerAddr: server.Addr(), ServerPort: server.Port(),
	}
	switch w.Client {
	case "unknown":
		r.ClientState = libwrap.NameUnknown
	case "paranoid":
		r.ClientState = libwrap.NameParanoid
	default:
		r.ClientName = w.Client
	}
	return r
}

// sameRoot returns the path of a root directory that is the wanted one: our own where it is that.
func sameRoot(want *evidence.Root, through []int) (string, error) {
	if want == nil {
		return "", errors.New("where the server sees its files is not known")
	}
	if own, err := ProcessRoot(os.Getpid()); err == nil && own == *want {
		return "/", nil
	}
	for _, pid := range through {
		if r, err := ProcessRoot(pid); err == nil && r == *want {
			return fmt.Sprintf("/proc/%d/root", pid), nil
		}
	}
	return "", errors.New("no process is left that sees the files which the server saw")
}

// LinkedLibwrap returns how a process comes to libwrap: the library that it
// maps, and by which chain of DT_NEEDED its program does; the chain is empty
// where the library was loaded at run time.
func LinkedLibwrap(pid int) (library string, chain []string, mapped bool) {
	lib, _, mapped := mappedWrap(pid)
	if !mapped {
		return "", nil, false
	}
	dir := "/proc/" + strconv.Itoa(pid)
	files := mappedFiles(pid)
	program, err := os.Readlink(dir + "/exe")
	if err != nil {
		return lib.Name, nil, true
	}
	// breadth first, so that the chain is a shortest one
	type step struct {
		path  string
		chain []string
	}
	todo, seen := []step{{dir + "/exe", []string{path.Base(program)}}}, map[string]bool{}
	for len(todo) > 0 && len(seen) < 512 {
		s := todo[0]
		todo = todo[1:]
		for _, need := range needed(s.path) {
			chain := append(slices.Clone(s.chain), need)
			if strings.HasPrefix(need, "libwrap.so") {
				return lib.Name, chain, true
			}
			if p := files[need]; p != "" && !seen[need] {
				seen[need] = true
				todo = append(todo, step{p, chain})
			}
		}
	}
	return lib.Name, nil, true
}

// mappedFiles returns the files a process has mapped, by base name and by the soname that this is by custom: a path that opens each.
func mappedFiles(pid int) map[string]string {
	dir := "/proc/" + strconv.Itoa(pid)
	data, err := os.ReadFile(dir + "/maps")
	if err != nil {
		return nil
	}
	files := map[string]string{}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 6 || !strings.HasPrefix(f[5], "/") {
			continue
		}
		name := path.Base(f[5])
		for { // libx.so.1.2.3 goes by libx.so.1.2 and libx.so.1 too
			if files[name] == "" {
				files[name] = dir + "/map_files/" + f[0]
			}
			i := strings.LastIndexByte(name, '.')
			if i < 0 || !strings.Contains(name[:i], ".so.") {
				break
			}
			name = name[:i]
		}
	}
	return files
}

// needed returns the DT_NEEDED entries of a file; none when it cannot be read as ELF.
func needed(file string) []string {
	f, err := elf.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	libraries, _ := f.ImportedLibraries()
	return libraries
}
