// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// Counters reads the SNMP, netstat and conntrack counters of n, by the names
// that nstat prints: IpExtInNoRoutes, TcpExtListenOverflows, Ip6InDiscards;
// those of IPsec have the kernel's names, as in XfrmInPolBlock.
// Those of conntrack, which nstat does not print, are called Conntrack and
// their column in /proc/net/stat/nf_conntrack, as in ConntrackInsert_failed;
// they are summed over all CPUs. A counter that runs negative is left out.
// Files that this kernel does not have are left out, too.
func (n *Netns) Counters() (map[string]uint64, error) {
	counters := map[string]uint64{}
	// thread-self: /proc/net leads to the namespace of the main thread.
	const dir = "/proc/thread-self/net/"
	err := n.Do(func() error {
		for file, parse := range map[string]func(string, map[string]uint64){
			"snmp": parsePairs, "netstat": parsePairs, "snmp6": parseLines, "xfrm_stat": parseLines, "stat/nf_conntrack": parseColumns,
		} {
			text, err := os.ReadFile(dir + file)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			parse(string(text), counters)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("counters: %w", err)
	}
	return counters, nil
}

// CounterDelta returns the counters that have grown, by name.
func CounterDelta(before, after map[string]uint64) evidence.Section[evidence.Counter] {
	if before == nil || after == nil {
		return evidence.Missing[evidence.Counter]("counters: not read before and after")
	}
	list := []evidence.Counter{}
	for name, value := range after {
		if value > before[name] {
			list = append(list, evidence.Counter{Name: name, Delta: value - before[name]})
		}
	}
	slices.SortFunc(list, func(a, b evidence.Counter) int { return cmp.Compare(a.Name, b.Name) })
	return evidence.Have(list)
}

// parsePairs reads snmp and netstat: a line of names, then one of values,
// both with the same prefix.
func parsePairs(text string, counters map[string]uint64) {
	lines := strings.Split(text, "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		prefix, names, _ := strings.Cut(lines[i], ":")
		same, values, _ := strings.Cut(lines[i+1], ":")
		if prefix != same {
			return
		}
		value := strings.Fields(values)
		for j, name := range strings.Fields(names) {
			if j >= len(value) {
				break
			}
			if v, err := strconv.ParseUint(value[j], 10, 64); err == nil {
				counters[prefix+name] = v
			}
		}
	}
}

// parseLines reads snmp6: a name and a value on each line.
func parseLines(text string, counters map[string]uint64) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 2 {
			continue
		}
		if v, err := strconv.ParseUint(fields[1], 10, 64); err == nil {
			counters[fields[0]] = v
		}
	}
}

// parseColumns reads stat/nf_conntrack: names, then a line of hexadecimal
// values for each CPU. "entries" is the same number on each of them.
func parseColumns(text string, counters map[string]uint64) {
	lines := strings.Split(text, "\n")
	names := strings.Fields(lines[0])
	for _, line := range lines[1:] {
		for j, field := range strings.Fields(line) {
			if j >= len(names) || names[j] == "entries" || names[j] == "" {
				continue
			}
			v, err := strconv.ParseUint(field, 16, 64)
			if err != nil {
				continue
			}
			counters["Conntrack"+strings.ToUpper(names[j][:1])+names[j][1:]] += v
		}
	}
}
