// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Reader is what a process may read by the mode of files. The zero value may read all.
type Reader struct {
	user   uint32
	groups []uint32
	known  bool
	exempt bool // it has a capability that overrides modes
}

// NewReader reads whom a process acts as (proc_pid_status(5)); the zero Reader where it is gone.
func NewReader(pid int) Reader {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return Reader{}
	}
	return parseReader(string(data))
}

func parseReader(status string) (r Reader) {
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		switch {
		case key == "Uid" && len(f) == 4: // real, effective, saved, of the file system
			r.user, r.known = ownerID(f[3]), true
		case key == "Gid" && len(f) == 4:
			r.groups = append(r.groups, ownerID(f[3]))
		case key == "Groups":
			for _, g := range f {
				r.groups = append(r.groups, ownerID(g))
			}
		case key == "CapEff" && len(f) == 1:
			caps, _ := strconv.ParseUint(f[0], 16, 64)
			r.exempt = caps&(1<<unix.CAP_DAC_OVERRIDE|1<<unix.CAP_DAC_READ_SEARCH) != 0
		}
	}
	return r
}

// ownerID is the number of a user or group; nobody's where it is none.
func ownerID(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return ^uint32(0)
	}
	return uint32(n)
}

// refused reports whether the mode of a file keeps the process from reading it.
// Access control lists and security modules are not asked, nor the directories above.
func (r Reader) refused(file string) bool {
	var st unix.Stat_t
	if !r.known || r.exempt || unix.Stat(file, &st) != nil {
		return false
	}
	if n, err := unix.Getxattr(file, "system.posix_acl_access", nil); err == nil && n > 0 {
		return false // the list decides
	}
	switch {
	case r.user == st.Uid:
		return st.Mode&unix.S_IRUSR == 0
	case slices.Contains(r.groups, st.Gid):
		return st.Mode&unix.S_IRGRP == 0
	}
	return st.Mode&unix.S_IROTH == 0
}
