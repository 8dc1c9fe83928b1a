// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// Process describes the process pid from /proc/PID (proc(5)). Only that there
// is such a process is required; what may not be read stays empty. The error
// wraps [fs.ErrNotExist] when it has gone.
func Process(pid int) (evidence.Process, error) { return readProcess(pid) }

func readProcess(pid int) (evidence.Process, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if errors.Is(err, unix.ESRCH) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return evidence.Process{}, fmt.Errorf("process %d: %w", pid, err)
	}
	p := evidence.Process{PID: pid}
	p.Comm, p.State = parseStat(string(stat))
	if exe, err := os.Readlink(dir + "/exe"); err == nil {
		p.Exe = strings.TrimSuffix(exe, " (deleted)")
	}
	if cgroup, err := os.ReadFile(dir + "/cgroup"); err == nil {
		p.Cgroup, p.Unit = parseCgroup(string(cgroup))
		p.Container = containerID.FindString(string(cgroup))
	}
	return p, nil
}

// containerID is what Docker, Podman, containerd and CRI-O put into the paths of cgroups.
var containerID = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

// maxFrames bounds what is kept of a stack.
const maxFrames = 12

// Waiting reads where a process is now: its state, and where its first thread
// waits in the kernel (proc_pid_stack(5), which needs CAP_SYS_ADMIN).
func Waiting(p *evidence.Process) {
	dir := "/proc/" + strconv.Itoa(p.PID)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return
	}
	_, p.State = parseStat(string(stat))
	stack, err := os.ReadFile(dir + "/stack")
	if err != nil {
		return
	}
	p.Stack = parseStack(string(stack))
}

// maxThreads bounds how many threads of a process are looked at.
const maxThreads = 256

// Idle reports whether every thread of a process waits for something other than
// the processor or a disk: states S, I, T and t of proc_pid_stat(5). A process
// that has gone is not idle.
func Idle(pid int) bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	tasks, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer tasks.Close()
	threads, err := tasks.Readdirnames(maxThreads)
	if err != nil {
		return false
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(dir + "/" + thread + "/stat")
		if err != nil {
			return false
		}
		if _, state := parseStat(string(stat)); !strings.Contains("SITt", state) {
			return false
		}
	}
	return len(threads) > 0
}

// parseStack takes the functions out of lines like "[<0>] inet_csk_accept+0x2a/0x310".
func parseStack(text string) (functions []string) {
	for line := range strings.Lines(text) {
		_, f, _ := strings.Cut(line, "] ")
		f, _, _ = strings.Cut(strings.TrimSpace(f), "+")
		if f == "do_syscall_64" || f == "invoke_syscall" || len(functions) == maxFrames {
			break // what every system call begins with
		}
		if f != "" {
			functions = append(functions, f)
		}
	}
	return functions
}

// parseStat takes the name and the state out of /proc/PID/stat. The name is
// in parentheses and may itself hold any of these characters.
func parseStat(stat string) (comm, state string) {
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return "", ""
	}
	if fields := strings.Fields(stat[end+1:]); len(fields) > 0 {
		state = fields[0]
	}
	return stat[open+1 : end], state
}

// parseCgroup returns the path of the cgroup and the systemd unit from the
// form of /proc/PID/cgroup (cgroups(7)). Where both versions are mounted
// systemd keeps its tree in one of them and the other may be flat.
func parseCgroup(text string) (cgroup, unit string) {
	var v2, named string
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(parts) < 3:
		case parts[0] == "0" && parts[1] == "":
			v2 = parts[2]
		case parts[1] == "name=systemd":
			named = parts[2]
		}
	}
	cgroup = v2
	if (v2 == "" || v2 == "/") && named != "" {
		cgroup = named
	}
	if unit = unitOf(v2); unit == "" {
		unit = unitOf(named)
	}
	return cgroup, unit
}

// unitOf returns the innermost unit in a cgroup path: a service may have made
// groups of its own below it, and those of a user are below user@UID.service.
func unitOf(cgroup string) string {
	for dir := cgroup; dir != "/" && dir != "." && dir != ""; dir = path.Dir(dir) {
		switch path.Ext(dir) {
		case ".service", ".scope":
			return path.Base(dir)
		}
	}
	return ""
}

// addOwners fills in the processes that hold the sockets, lowest id first.
func addOwners(sockets []evidence.Socket) {
	wanted := map[uint64][]int{}
	for i := range sockets {
		if inode := sockets[i].Inode; inode != 0 {
			wanted[inode] = append(wanted[inode], i)
		}
	}
	if len(wanted) == 0 {
		return
	}
	holders, denied := socketHolders(wanted)
	for inode, at := range wanted {
		for _, i := range at {
			for _, pid := range holders[inode] {
				if p, err := readProcess(pid); err == nil {
					sockets[i].Process = append(sockets[i].Process, p)
				}
			}
			if len(sockets[i].Process) == 0 {
				sockets[i].Owner = denied
			}
		}
	}
}

// socketHolders looks through /proc/PID/fd of every process for the sockets
// with the wanted inodes. denied says why a
// socket may have been found with nobody.
func socketHolders(wanted map[uint64][]int) (holders map[uint64][]int, denied string) {
	holders = map[uint64][]int{}
	var unreadable int
	for _, pid := range allPIDs() {
		inodes, err := wantedSockets(pid, wanted)
		if errors.Is(err, fs.ErrPermission) {
			unreadable++
		}
		for _, inode := range inodes {
			holders[inode] = append(holders[inode], pid)
		}
	}
	switch {
	case unreadable > 0:
		denied = fmt.Sprintf("the open files of %d processes may not be read (/proc/PID/fd)", unreadable)
	case os.Geteuid() != 0:
		denied = "not root: /proc may hide the processes of others"
	default:
		// A socket with an inode is held by somebody.
		denied = "no process that /proc shows holds it: it belongs to another PID namespace or to the kernel"
	}
	return holders, denied
}

// wantedSockets returns which of the wanted sockets a process holds, each
// once. Hosts have tens of thousands of open files, so it neither allocates
// nor does a path walk for each.
func wantedSockets(pid int, wanted map[uint64][]int) ([]uint64, error) {
	dir, err := os.Open("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	fds, err := dir.Readdirnames(-1)
	var found []uint64
	var link [64]byte
	for _, fd := range fds {
		size, err := unix.Readlinkat(int(dir.Fd()), fd, link[:])
		if err != nil || size == len(link) {
			continue // closed since, or too long for a socket
		}
		inode := socketInode(link[:size])
		if _, ok := wanted[inode]; !ok {
			continue
		}
		if !slices.Contains(found, inode) {
			found = append(found, inode)
		}
	}
	return found, err
}

// socketInode returns the inode in "socket:[1234]", or 0.
func socketInode(link []byte) uint64 {
	const prefix = "socket:["
	if len(link) < len(prefix)+2 || string(link[:len(prefix)]) != prefix {
		return 0
	}
	var inode uint64
	for _, c := range link[len(prefix) : len(link)-1] {
		if c < '0' || c > '9' {
			return 0
		}
		inode = inode*10 + uint64(c-'0')
	}
	return inode
}
