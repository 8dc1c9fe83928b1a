// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// shortID is what users type of a container's identifier: all its 64
// hexadecimal digits or the first few; runtimes print twelve.
var shortID = regexp.MustCompile(`^[0-9a-f]{4,64}$`)

// Container finds a running container by its identifier or the beginning of it,
// with or without the runtime in front (containerd://ID, as Kubernetes prints it),
// and returns its first process. Docker, Podman, containerd and CRI-O put the
// identifier into the name of the cgroup. The runtimes themselves are not asked.
func Container(id string) (pid int, err error) { return container(os.DirFS("/proc"), id) }

func container(proc fs.FS, id string) (int, error) {
	want := id
	if _, after, ok := strings.Cut(id, "://"); ok {
		want = after
	}
	if !shortID.MatchString(want) {
		return 0, fmt.Errorf("container %q: an identifier has 4 to 64 hexadecimal digits, as `docker ps` and `crictl ps` print it", id)
	}
	entries, err := fs.ReadDir(proc, ".")
	if err != nil {
		return 0, fmt.Errorf("container %s: %w", id, err)
	}
	first, begun := map[string]int{}, map[string]uint64{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cgroup, err := fs.ReadFile(proc, e.Name()+"/cgroup")
		if err != nil {
			continue // gone since
		}
		full := containerID.FindString(string(cgroup))
		if full == "" || !strings.HasPrefix(full, want) {
			continue
		}
		stat, err := fs.ReadFile(proc, e.Name()+"/stat")
		if err != nil {
			continue
		}
		// The first is the container's own: a later one may have another namespace.
		if at := startTime(string(stat)); first[full] == 0 || at < begun[full] || at == begun[full] && pid < first[full] {
			first[full], begun[full] = pid, at
		}
	}
	switch len(first) {
	case 0:
		return 0, fmt.Errorf("container %s: no process of such a container runs on this host", id)
	case 1:
		for _, pid := range first {
			return pid, nil
		}
	}
	var all []string
	for full := range first {
		all = append(all, full[:max(12, len(want))])
	}
	slices.Sort(all)
	return 0, fmt.Errorf("container %s: several begin so: %s", id, strings.Join(all, ", "))
}

// startTime of a process in clock ticks since boot: field 22 of /proc/PID/stat (proc_pid_stat(5)).
func startTime(stat string) uint64 {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0
	}
	n, _ := strconv.ParseUint(fields[19], 10, 64) // the kernel writes a number
	return n
}
