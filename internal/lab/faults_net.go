// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// netFaults are those of links, bridges, neighbours and IP itself, in both directions.
func netFaults() []Fault {
	return slices.Concat(
		neighbourReplies(), neighbourFilters(), linkDownFaults(), macFaults(), bridgeFaults(), switchFirewalls(), netdevFaults(),
		disabledFaults(), strayFaults(), forwardingReplies(), martianFaults(), ttlFaults(), rpFilterPaths(),
		mtuFaults(), blackholeFaults(), checksumFaults(), fragmentFaults(), routeReplies(), ruleKinds(), remoteFaults(),
	)
}

// broken is a fault in both families, before a service that would answer.
func broken(name, cause, summary string, want Want, setup func(family int) func(*Lab) error) []Fault {
	return both(func(f int) Fault {
		return Fault{Name: name, Cause: cause, Summary: summary, Setup: steps(serve(f), setup(f)), Want: want}
	})
}

// each changes every fault of a list.
func each(faults []Fault, change func(*Fault)) []Fault {
	for i := range faults {
		change(&faults[i])
	}
	return faults
}

func mended(faults []Fault) []Fault { return each(faults, func(f *Fault) { f.Fix = true }) }

// with adds arguments of pathtrace.
func with(faults []Fault, args ...string) []Fault {
	return each(faults, func(f *Fault) { f.Args = args })
}

// fromSecond has the probe start from the client's second address.
func fromSecond(faults []Fault) []Fault {
	return each(faults, func(f *Fault) { f.Args = []string{"-s", second(f.Family).Addr().String()} })
}

// needing names the tools of the set-up.
func needing(faults []Fault, tools ...string) []Fault {
	return each(faults, func(f *Fault) { f.Tools = tools })
}

// hasty has a neighbour that does not answer be given up after three fifths of a second.
func hasty(r Role, family int, device string) func(*Lab) error {
	return sysctl(r, pick(family, "net.ipv4.neigh.", "net.ipv6.neigh.")+device+".retrans_time_ms", "200")
}

// conf is a sysctl of a device in the family.
func conf(r Role, family int, device, leaf, value string) func(*Lab) error {
	return sysctl(r, fmt.Sprintf("net.ipv%d.conf.%s.%s", family, device, leaf), value)
}

// onLink runs `ip link` with words separated by spaces.
func onLink(r Role, format string, args ...any) func(*Lab) error {
	return ip(r, 4, "link "+format, args...)
}

// run runs a program with words separated by spaces, which the family fills in.
func run(r Role, family int, command string) func(*Lab) error {
	return func(l *Lab) error { return l.Run(r, strings.Fields(expand(family, command))...) }
}

// chatter starts a UDP service on the server that answers each datagram, with so many bytes or, for 0, the same.
func chatter(family, size int) func(*Lab) error {
	return func(l *Lab) error {
		return l.Serve(Server, Listen{Network: pick(family, "udp4", "udp6"), Addr: addrPort(family), Behaviour: Echo, Banner: strings.Repeat("y", size)})
	}
}

// spareLink adds a pair of devices to a namespace: dead0 is up but without carrier, as its other end is down.
func spareLink(r Role) func(*Lab) error {
	return steps(onLink(r, "add dead0 type veth peer name dead1"), onLink(r, "set dead0 up"))
}

func addrPort(family int) netip.AddrPort { return netip.AddrPortFrom(addr(Server, family), Port) }
