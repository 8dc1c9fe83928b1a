// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// Sysctls reads kernel settings as n sees them. A name is what sysctl(8)
// takes: with dots, where a dot within a part is a slash, as in
// net.ipv4.conf.eth0/100.rp_filter (see [SysctlName]), or the other way round
// when the first separator is a slash. Names that do not exist are left out;
// any other failure makes the section partial.
func (n *Netns) Sysctls(names ...string) evidence.Section[evidence.Sysctl] {
	list := make([]evidence.Sysctl, 0, len(names))
	var failed []error
	err := n.Do(func() error {
		for _, name := range names {
			value, err := readSysctl(name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				failed = append(failed, err)
				continue
			}
			list = append(list, evidence.Sysctl{Name: name, Value: value})
		}
		return nil
	})
	if err != nil {
		return evidence.Missing[evidence.Sysctl](err.Error())
	}
	s := evidence.Have(list)
	if len(failed) > 0 {
		s.Unread = errors.Join(failed...).Error()
	}
	return s
}

// readSysctl reads a setting in the namespace of the calling thread: below
// /proc/sys/net the kernel shows the namespace of the task that looks the
// name up (net_ctl_root.lookup in net/sysctl_net.c), which is the thread.
func readSysctl(name string) (string, error) {
	path, err := sysctlPath(name)
	if err != nil {
		return "", err
	}
	value, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("sysctl %s: %w", name, err)
	}
	return strings.TrimSuffix(string(value), "\n"), nil
}

// sysctlPath returns the file of a setting.
func sysctlPath(name string) (string, error) {
	path := name
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '.' {
		path = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, name)
	}
	if !fs.ValidPath(path) {
		return "", fmt.Errorf("sysctl %q: %w", name, fs.ErrInvalid)
	}
	return "/proc/sys/" + path, nil
}

// SysctlName returns the name of a setting of a device as sysctl(8) takes it.
// prefix and leaf are without separators at the seam:
// SysctlName("net.ipv4.conf", "eth0.100", "rp_filter") is
// "net.ipv4.conf.eth0/100.rp_filter".
func SysctlName(prefix, device, leaf string) string {
	return prefix + "." + strings.ReplaceAll(device, ".", "/") + "." + leaf
}

// Names of the settings of connection tracking.
const (
	ConntrackCount = "net.netfilter.nf_conntrack_count" // entries in use, of the namespace
	ConntrackMax   = "net.netfilter.nf_conntrack_max"   // the limit, of the whole host before Linux 6.15
)
