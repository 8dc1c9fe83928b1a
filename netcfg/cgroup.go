// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/pathtrace/pathtrace/evidence"
)

// OwnCgroup returns the cgroup v2 path of this process within its hierarchy
// (proc_pid_cgroup(5)); "" where there is none.
func OwnCgroup() string {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if p, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return p
		}
	}
	return ""
}

// ConnectPrograms returns the BPF programs that decide about connect() of this
// process for one IP version, 4 or 6; see [CgroupPrograms].
func ConnectPrograms(version int) evidence.Section[evidence.CgroupProgram] {
	if version == 6 {
		return CgroupPrograms(OwnCgroup(), "connect6")
	}
	return CgroupPrograms(OwnCgroup(), "connect4")
}

// attachTypes are those of cgroup programs that can stop a packet or a connect().
var attachTypes = map[string]ebpf.AttachType{
	"connect4": ebpf.AttachCGroupInet4Connect, "connect6": ebpf.AttachCGroupInet6Connect,
	"ingress": ebpf.AttachCGroupInetIngress, "egress": ebpf.AttachCGroupInetEgress,
}

// bpfQueryEffective asks for the programs that run, inherited ones included (BPF_F_QUERY_EFFECTIVE).
const bpfQueryEffective = 1

// CgroupPrograms returns the BPF programs that run for the sockets of a cgroup v2,
// given by its path within the hierarchy: those attached to it and those that it
// inherits (BPF_PROG_QUERY, Linux 4.15). attach is connect4, connect6, ingress or egress.
func CgroupPrograms(cgroup, attach string) evidence.Section[evidence.CgroupProgram] {
	missing := func(err error) evidence.Section[evidence.CgroupProgram] {
		return evidence.Missing[evidence.CgroupProgram](fmt.Sprintf("%s programs of cgroup %s: %v", attach, cgroup, err))
	}
	root, err := cgroupMount()
	if err != nil {
		return missing(err)
	}
	kind, ok := attachTypes[attach]
	if !ok || !path.IsAbs(cgroup) {
		return missing(errors.New("no such cgroup or kind of program"))
	}
	list, err := attached(filepath.Join(root, cgroup), kind, bpfQueryEffective)
	if err != nil {
		return missing(err)
	}
	for cg := path.Clean(cgroup); ; cg = path.Dir(cg) { // whose they are is told by each cgroup above
		found, err := attached(filepath.Join(root, cg), kind, 0)
		if err != nil {
			return missing(err)
		}
		for i := range list {
			p := &list[i]
			p.Attach, p.In = attach, cgroup
			if p.Cgroup == "" && slices.ContainsFunc(found, func(f evidence.CgroupProgram) bool { return f.ID == p.ID }) {
				p.Cgroup = cg
			}
		}
		if cg == "/" {
			return evidence.Have(list)
		}
	}
}

func attached(dir string, attach ebpf.AttachType, flags uint32) ([]evidence.CgroupProgram, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	result, err := link.QueryPrograms(link.QueryOptions{Target: int(f.Fd()), Attach: attach, QueryFlags: flags})
	if err != nil {
		return nil, err
	}
	var out []evidence.CgroupProgram
	for _, p := range result.Programs {
		e := evidence.CgroupProgram{ID: uint32(p.ID)}
		if prog, err := ebpf.NewProgramFromID(p.ID); err == nil {
			if info, err := prog.Info(); err == nil {
				e.Name = info.Name
			}
			prog.Close()
		}
		out = append(out, e)
	}
	return out, nil
}

// cgroupMount finds where the cgroup v2 hierarchy is mounted: for this process,
// or, as `ip netns exec` gives it a /sys without, for the first one.
func cgroupMount() (string, error) {
	for _, process := range []struct{ mounts, root string }{{"/proc/self/mounts", "/"}, {"/proc/1/mounts", "/proc/1/root"}} {
		b, err := os.ReadFile(process.mounts)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(b)) {
			if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "cgroup2" {
				return filepath.Join(process.root, unescapeMount(fields[1])), nil
			}
		}
	}
	return "", errors.New("no cgroup v2 hierarchy is mounted")
}
