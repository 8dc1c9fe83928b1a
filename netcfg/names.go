// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// routeNames are the words that ip uses for numbers of the routing tables.
type routeNames struct {
	tables, protocols, scopes, dsfields, realms, groups map[uint32]string
}

// readRouteNames reads them from where iproute2 has them: its built-in lists,
// the files of the distribution, then those of the administrator.
func readRouteNames() *routeNames {
	w := &routeNames{
		tables: map[uint32]string{253: "default", 254: "main", 255: "local"},
		protocols: map[uint32]string{0: "unspec", 1: "redirect", 2: "kernel", 3: "boot", 4: "static", 8: "gated", 9: "ra",
			10: "mrt", 11: "zebra", 12: "bird", 13: "dnrouted", 14: "xorp", 15: "ntk", 16: "dhcp", 18: "keepalived",
			42: "babel", 186: "bgp", 187: "isis", 188: "ospf", 189: "rip", 192: "eigrp"},
		scopes:   map[uint32]string{0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"},
		dsfields: map[uint32]string{}, realms: map[uint32]string{}, groups: map[uint32]string{0: "default"},
	}
	for _, dir := range []string{"/usr/lib/iproute2", "/usr/share/iproute2", "/etc/iproute2"} {
		for file, names := range map[string]map[uint32]string{"rt_tables": w.tables, "rt_protos": w.protocols,
			"rt_scopes": w.scopes, "rt_dsfield": w.dsfields, "rt_realms": w.realms, "group": w.groups} {
			readNumberNames(filepath.Join(dir, file), names)
			parts, _ := filepath.Glob(filepath.Join(dir, file+".d", "*.conf"))
			for _, part := range parts {
				readNumberNames(part, names)
			}
		}
	}
	return w
}

// readNumberNames adds the lines "NUMBER NAME" of a file, if there is one.
func readNumberNames(path string, names map[uint32]string) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if number, err := strconv.ParseUint(fields[0], 0, 32); err == nil {
			names[uint32(number)] = fields[1]
		}
	}
}

func nameOr(names map[uint32]string, number uint32, format string) string {
	if name, ok := names[number]; ok {
		return name
	}
	return fmt.Sprintf(format, number)
}

func (w *routeNames) table(id uint32) string     { return nameOr(w.tables, id, "%d") }
func (w *routeNames) protocol(id uint8) string   { return nameOr(w.protocols, uint32(id), "%d") }
func (w *routeNames) scope(id uint8) string      { return nameOr(w.scopes, uint32(id), "%d") }
func (w *routeNames) dsfield(tos uint8) string   { return nameOr(w.dsfields, uint32(tos), "0x%02x") }
func (w *routeNames) group(id uint32) string     { return nameOr(w.groups, id, "%d") }
func (w *routeNames) realm(number uint32) string { return nameOr(w.realms, number, "%d") }

// realms words the two halves of an RTA_FLOW attribute.
func (w *routeNames) realmPair(flow uint32) string {
	if from := flow >> 16; from != 0 {
		return "realms " + w.realm(from) + "/" + w.realm(flow&0xffff)
	}
	return "realm " + w.realm(flow&0xffff)
}

// routeTypes are the RTN_ types of rtnetlink(7) by number, which are also
// the actions of ip rules that end a lookup.
var routeTypes = [...]string{"none", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable",
	"prohibit", "throw", "nat", "xresolve"}

func routeType(number uint8) string {
	if int(number) < len(routeTypes) {
		return routeTypes[number]
	}
	return strconv.Itoa(int(number))
}
