// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
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
// process for one IP version, 4 or 6: those attached to its cgroup and to the
// cgroups above it (BPF_PROG_QUERY, Linux 4.17).
func ConnectPrograms(version int) evidence.Section[evidence.CgroupProgram] {
	root, err := cgroupMount()
	if err != nil {
		return evidence.Missing[evidence.CgroupProgram]("cgroup programs: " + err.Error())
	}
	attach, name := ebpf.AttachCGroupInet4Connect, "connect4"
	if version == 6 {
		attach, name = ebpf.AttachCGroupInet6Connect, "connect6"
	}
	list := []evidence.CgroupProgram{}
	for cg := OwnCgroup(); cg != ""; cg = path.Dir(cg) {
		found, err := attached(filepath.Join(root, cg), attach)
		if err != nil {
			return evidence.Missing[evidence.CgroupProgram](fmt.Sprintf("programs of cgroup %s: %v", cg, err))
		}
		for _, p := range found {
			p.Attach, p.Cgroup = name, cg
			list = append(list, p)
		}
		if cg == "/" {
			break
		}
	}
	return evidence.Have(list)
}

func attached(dir string, attach ebpf.AttachType) ([]evidence.CgroupProgram, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	result, err := link.QueryPrograms(link.QueryOptions{Target: int(f.Fd()), Attach: attach})
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

// cgroupMount finds where the cgroup v2 hierarchy is mounted.
func cgroupMount() (string, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 2 && fields[2] == "cgroup2" {
			return unescapeMount(fields[1]), nil
		}
	}
	return "", errors.New("no cgroup v2 hierarchy is mounted")
}
