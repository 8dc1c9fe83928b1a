// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/pathtrace/pathtrace/netcfg"
)

var (
	// Tables that belong to a running process, such as a trace of another pathtrace: they go with it.
	ownedTable = regexp.MustCompile(`(?m)^table [^\n]*\n\tflags owner\n(?:\t[^\n]*\n|\n)*}\n`)
	// Routes that the kernel makes and ages by itself, and what it says of the state of a cable.
	volatileRoute = regexp.MustCompile(` expires |fe80::|^(multicast|anycast) `)
	cableState    = regexp.MustCompile(` (linkdown|dead)\b`)
	// Counters as iptables-save prints them at the end of a line.
	saveCounters = regexp.MustCompile(` \[\d+:\d+\]$`)
)

// configuration is what a fix may change in a namespace, line by line, without
// counters and handles, and without what the kernel derives from the state of cables and neighbours.
func configuration(ctx context.Context, n *netcfg.Netns) ([]string, error) {
	rules, routes, links, neighbors := n.IPRules(), n.Routes(), n.Links(), n.Neighbors()
	for _, why := range []string{rules.Why(), routes.Why(), links.Why(), neighbors.Why()} {
		if why != "" {
			return nil, errors.New(why)
		}
	}
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, r := range rules.Items {
		add("ipv%d rule %s", r.Family, r.Text)
	}
	for _, r := range routes.Items {
		if !volatileRoute.MatchString(r.Text) {
			add("ipv%d route %s table %s", r.Family, cableState.ReplaceAllString(r.Text, ""), r.Table)
		}
	}
	for _, l := range links.Items {
		add("link %s up %v mtu %d master %q isolated %v port %q", l.Name, l.Up, l.MTU, l.Master, l.Isolated, l.PortState)
	}
	for _, nb := range neighbors.Items {
		if nb.State == "PERMANENT" {
			add("neighbour %s dev %s lladdr %s", nb.Address, nb.Device, nb.MAC)
		}
	}
	for _, s := range n.Sysctls(sysctls(links.Items)...).Items {
		if s.Name != netcfg.ConntrackCount {
			add("sysctl %s = %s", s.Name, s.Value)
		}
	}
	text, err := rulesets(ctx, n)
	for line := range strings.Lines(text) {
		line = saveCounters.ReplaceAllString(strings.TrimRight(line, " \t\n"), "")
		if line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	return lines, err
}

// rulesets is every firewall rule, in the words of the user's own tools.
func rulesets(ctx context.Context, n *netcfg.Netns) (string, error) {
	var b strings.Builder
	out, _, err := n.Output(ctx, "nft", "-s", "list", "ruleset")
	if err != nil && !errors.Is(err, exec.ErrNotFound) { // whoever has no nft changes nothing by it
		return "", err
	}
	b.WriteString(ownedTable.ReplaceAllString(string(out), ""))
	for i, tool := range []string{"iptables-legacy-save", "ip6tables-legacy-save"} {
		tables, err := n.LegacyTableNames(4 + 2*i)
		if err != nil {
			return "", err
		}
		slices.Sort(tables)
		for _, t := range tables { // another that is listed would come to be
			out, _, err := n.Output(ctx, tool, "-t", t)
			if err != nil {
				return "", err
			}
			b.Write(out)
		}
	}
	return b.String(), nil
}

// differing lists the lines that went, with a -, and those that came, with a +.
func differing(before, after []string) (lines []string) {
	count := map[string]int{}
	for _, l := range before {
		count[l]++
	}
	for _, l := range after {
		if count[l]--; count[l] < 0 {
			lines = append(lines, "+ "+l)
		}
	}
	for _, l := range before {
		if count[l] > 0 {
			count[l]--
			lines = append(lines, "- "+l)
		}
	}
	if len(lines) == 0 && !slices.Equal(before, after) {
		lines = append(lines, "the order of lines")
	}
	return lines
}
