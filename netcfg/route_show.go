// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// RouteLine is a route, and the lines that "ip route show" prints of it, without blanks at their ends.
type RouteLine struct {
	evidence.RouteItem
	Line string `json:"-"`
}

// RouteTable returns the routes of one table, in the kernel's order, IPv4
// first. table is a name or number as ip takes it, "all" for every table, or
// "" for main; family is 4, 6, or 0 for both. A table that does not exist has
// no routes; what is no table's name is a [*WordError].
func (n *Netns) RouteTable(table string, family int) ([]RouteLine, error) {
	p := n.routePrinter()
	lines := p
	lines.tables = table == "all"
	wanted := uint32(unix.RT_TABLE_MAIN)
	if table != "" && !lines.tables {
		var err error
		if wanted, err = (&words{names: p.words}).table(table); err != nil {
			return nil, err
		}
	}
	list := []RouteLine{}
	for _, f := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if family != 0 && family != ipVersion(f) {
			continue
		}
		routes, err := n.dumpRoutes(f)
		if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
			return nil, fmt.Errorf("routes: %w", err)
		}
		if err != nil {
			return nil, fmt.Errorf("routes: changed each of the %d times they were read", dumpTries)
		}
		for _, r := range routes {
			if lines.tables || r.table == wanted {
				line := strings.ReplaceAll(lines.text(r), " nexthop ", "\n\tnexthop ")
				list = append(list, RouteLine{p.item(r), line})
			}
		}
	}
	return list, nil
}

// RouteTableNames returns the names that ip knows for routing tables, sorted.
func RouteTableNames() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Values(readRouteNames().tables)), func(name string) bool { return name == "unspec" })
}
