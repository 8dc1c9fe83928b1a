// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

var (
	// What changes by itself or is derived from the rest.
	volatileRoute = regexp.MustCompile(`expires|fe80|multicast|anycast`)
	// What the kernel makes of the state of a cable, some time after that has changed.
	carrier = regexp.MustCompile(`NO-CARRIER,|,LOWER_UP| linkdown| dead| state [A-Z]+`)
	// Counters as iptables-save prints them.
	counters = regexp.MustCompile(` \[\d+:\d+\]$`)
	// Tables that belong to a running process, such as a trace that goes on elsewhere on this host:
	// the kernel removes them with their owner, shortly after its end.
	owned = regexp.MustCompile(`(?m)^table [^\n]*\n\tflags owner\n(?:\t[^\n]*\n|\n)*}\n`)
	// Sysctls that decide where packets go, or that a rule trace may change.
	watched = regexp.MustCompile(`^net\.ipv[46]\.(ip_forward|tcp_syncookies|conf\.[a-z0-9]+\.(forwarding|rp_filter|disable_ipv6|route_localnet)) |^net\.netfilter\.nf_log`)
)

// Snapshot returns the configuration of every namespace of the lab as text: two of them
// are equal when nothing was changed in between. Counters and handles are left out,
// and so are nftables that some running process owns.
func (l *Lab) Snapshot() (string, error) {
	var b strings.Builder
	for _, r := range roles {
		if _, exists := l.ns[r]; !exists {
			continue
		}
		fmt.Fprintf(&b, "== %s\n", r)
		text, err := l.snapshot(r)
		if err != nil {
			return "", fmt.Errorf("snapshot of %s: %w", l.Netns(r), err)
		}
		for _, line := range strings.Split(text, "\n") {
			line = counters.ReplaceAllString(strings.TrimRight(line, " \t"), "")
			if line != "" && line[0] != '#' {
				b.WriteString(line + "\n")
			}
		}
	}
	return b.String(), nil
}

func (l *Lab) snapshot(r Role) (string, error) {
	commands := [][]string{
		{"ip", "-4", "rule"}, {"ip", "-6", "rule"}, {"ip", "-4", "route", "show", "table", "all"},
		{"ip", "-6", "route", "show", "table", "all"}, {"ip", "-o", "link"}, {"tc", "qdisc", "show"},
		{"ip", "neigh", "show", "nud", "permanent"},
	}
	if r == Switch {
		commands = append(commands, []string{"bridge", "-d", "link"})
	}
	if _, err := tool("nft"); err == nil {
		commands = append(commands, []string{"nft", "-s", "list", "ruleset"})
	}
	for _, legacy := range [][2]string{{"ip_tables_names", "iptables-legacy-save"}, {"ip6_tables_names", "ip6tables-legacy-save"}} {
		// Only tables that exist: to list another would create it.
		tables, err := l.read(r, "/proc/net/"+legacy[0])
		if err != nil {
			continue // the module is not there
		}
		names := strings.Fields(tables)
		slices.Sort(names)
		for _, t := range names {
			commands = append(commands, []string{legacy[1], "-t", t})
		}
	}
	var b strings.Builder
	for _, c := range commands {
		out, err := l.Output(r, c...)
		if err != nil {
			return "", err
		}
		for _, line := range strings.SplitAfter(owned.ReplaceAllString(out, ""), "\n") {
			if c[0] != "ip" {
				b.WriteString(line)
			} else if !volatileRoute.MatchString(line) {
				b.WriteString(carrier.ReplaceAllString(line, ""))
			}
		}
	}
	sysctls, err := l.sysctls(r)
	return b.String() + sysctls, err
}

func (l *Lab) sysctls(r Role) (string, error) {
	var b strings.Builder
	err := within(l.ns[r], func() error {
		for _, dir := range []string{"net/ipv4", "net/ipv6/conf", "net/netfilter"} {
			readSysctls(&b, dir)
		}
		return nil
	})
	return b.String(), err
}

func readSysctls(b *strings.Builder, dir string) {
	entries, _ := os.ReadDir("/proc/sys/" + dir) // not there: nothing to compare
	for _, e := range entries {
		path := dir + "/" + e.Name()
		if e.IsDir() {
			readSysctls(b, path)
			continue
		}
		line := strings.ReplaceAll(path, "/", ".") + " "
		if !watched.MatchString(line) {
			continue
		}
		if value, err := os.ReadFile("/proc/sys/" + path); err == nil {
			fmt.Fprintf(b, "%s= %s\n", line, strings.TrimSpace(string(value)))
		}
	}
}

func (l *Lab) read(r Role, path string) (text string, err error) {
	err = within(l.ns[r], func() error {
		// /proc/net would be that of the process, not of this thread.
		b, err := os.ReadFile(strings.Replace(path, "/proc/", "/proc/thread-self/", 1))
		text = string(b)
		return err
	})
	return text, err
}
