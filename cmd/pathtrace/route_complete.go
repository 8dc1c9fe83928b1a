// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pathtrace/pathtrace/netcfg"
)

// keywords are the words that a command knows, by its name.
var keywords = map[string][]string{
	"show":    {"table"},
	"get":     {"from", "iif", "oif", "mark", "uid", "tos", "ipproto", "sport", "dport"},
	"default": {"dev", "metric", "table", "src", "proto", "onlink", "mtu"},
	"route": {"default", "via", "dev", "table", "metric", "src", "proto", "scope", "tos", "from", "pref", "mtu", "onlink", "nexthop",
		"blackhole", "unreachable", "prohibit", "throw", "local", "broadcast", "multicast"},
	"rule": {"not", "from", "to", "iif", "oif", "fwmark", "uidrange", "ipproto", "sport", "dport", "tos", "priority", "lookup",
		"suppress_prefixlength", "suppress_ifgroup", "l3mdev", "goto", "nop", "blackhole", "unreachable", "prohibit"},
}

// complete offers the words that may come next: tables and devices where one must follow, else keywords.
func (j *routeJob) complete(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	last := ""
	if len(args) > 0 {
		last = args[len(args)-1]
	}
	switch last {
	case "table", "lookup":
		names := netcfg.RouteTableNames()
		if cmd.Name() == "show" {
			names = append(names, "all")
		}
		return names, none
	case "dev", "iif", "oif":
		n, err := openStart(j.netns)
		if err != nil {
			return nil, none
		}
		defer n.Close()
		var names []string
		for _, l := range n.Links().Items {
			names = append(names, l.Name)
		}
		return names, none
	case "ipproto":
		return []string{"tcp", "udp", "icmp"}, none
	case "via", "from", "to", "mark", "fwmark", "uid", "metric", "src", "priority", "goto":
		return nil, none
	}
	kind := cmd.Name()
	if parent := cmd.Parent().Name(); keywords[kind] == nil || parent == "rule" {
		kind = parent
	}
	if kind == "get" && len(args) == 0 {
		return nil, none
	}
	return slices.DeleteFunc(slices.Clone(keywords[kind]), func(word string) bool {
		return slices.Contains(args, word) && !strings.HasPrefix(word, "nexthop")
	}), none
}
