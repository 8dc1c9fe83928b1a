// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// names is what the mount table and the first process say about namespaces.
type names struct {
	own, init uint64            // inodes; 0 when they may not be looked at
	mounts    map[uint64]string // inode to the best of the paths it is mounted at
}

// List returns every network namespace of this host that can be found and
// entered, each once: the caller's own first, then those that are mounted
// somewhere (as "ip netns" and Docker do), then those of processes. A
// namespace that only a single thread of a process, an open file or a socket
// keeps alive cannot be found. The caller closes them all.
func List() ([]*Netns, error) {
	own, err := Current()
	if err != nil {
		return nil, err
	}
	list, seen := []*Netns{own}, map[uint64]bool{own.Inode: true}
	known := readNames()
	add := func(inode uint64, path string) {
		if seen[inode] {
			return
		}
		n, err := openHandle(path)
		if err != nil || n.Inode != inode {
			// Gone since, hidden below another mount, or not ours to enter.
			if err == nil {
				n.Close()
			}
			return
		}
		seen[inode] = true
		known.describe(n)
		list = append(list, n)
	}
	paths := make([]string, 0, len(known.mounts))
	inodes := make(map[string]uint64, len(known.mounts))
	for inode, path := range known.mounts {
		paths, inodes[path] = append(paths, path), inode
	}
	slices.Sort(paths)
	for _, path := range paths {
		add(inodes[path], path)
	}
	for _, pid := range allPIDs() {
		path := "/proc/" + strconv.Itoa(pid) + "/ns/net"
		if target, err := os.Readlink(path); err == nil {
			add(parseInode(target), path)
		}
	}
	return list, nil
}

// readNames reads the names once. It cannot fail: what it may not see only
// costs a nicer name.
func readNames() *names {
	k := &names{mounts: map[uint64]string{}}
	if target, err := os.Readlink("/proc/self/ns/net"); err == nil {
		k.own = parseInode(target)
	}
	if target, err := os.Readlink("/proc/1/ns/net"); err == nil {
		k.init = parseInode(target)
	}
	if f, err := os.Open("/proc/self/mountinfo"); err == nil {
		defer f.Close()
		k.mounts = parseMounts(f)
	}
	return k
}

// describe fills in what n is called and how other programs enter it.
func (k *names) describe(n *Netns) {
	n.own = n.Inode == k.own
	mount := k.mounts[n.Inode]
	if mount != "" {
		n.path = mount
	}
	switch {
	case n.Inode == k.init:
		n.Name = "init"
		if mountRank(mount) != 0 {
			n.path = "/proc/1/ns/net"
		}
	case mountRank(mount) < len(nameDirs):
		n.Name = filepath.Base(mount)
	default:
		n.Name = fmt.Sprintf("net:[%d]", n.Inode)
	}
	// Words that hold for another process than this one.
	n.path = strings.Replace(n.path, "/proc/self/", "/proc/"+strconv.Itoa(os.Getpid())+"/", 1)
}

// mountRank orders the places where a namespace may be mounted, best first.
func mountRank(path string) int {
	dir := filepath.Dir(path) + "/"
	if i := slices.Index(nameDirs, dir); i >= 0 {
		return i
	}
	return len(nameDirs)
}

// parseMounts finds the network namespaces in the form of
// /proc/PID/mountinfo (proc_pid_mountinfo(5)), where they are the mounts with
// the root net:[inode].
func parseMounts(r io.Reader) map[uint64]string {
	mounts := map[uint64]string{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if !strings.Contains(lines.Text(), " net:[") {
			continue
		}
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		inode := parseInode(fields[3])
		if inode == 0 {
			continue
		}
		path := unescapeMount(fields[4])
		old, ok := mounts[inode]
		if !ok || mountRank(path) < mountRank(old) || mountRank(path) == mountRank(old) && path < old {
			mounts[inode] = path
		}
	}
	return mounts
}

// unescapeMount undoes the octal escapes of mountinfo.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// parseInode returns the inode in "net:[4026531840]", or 0.
func parseInode(link string) uint64 {
	digits, ok := strings.CutPrefix(link, "net:[")
	if !ok {
		return 0
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(digits, "]"), 10, 64)
	if err != nil {
		return 0
	}
	return inode
}

// allPIDs returns the ids of all processes that /proc shows, lowest first.
func allPIDs() []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	entries, _ := dir.Readdirnames(-1) // a part is better than nothing
	pids := make([]int, 0, len(entries))
	for _, name := range entries {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}
