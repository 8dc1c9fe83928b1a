// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// inTunnel is the server's address in the tunnel, by the family of what carries it.
func inTunnel(family int) netip.Addr {
	return netip.MustParseAddr(pick(family, "198.18.77.2", "fd5c:7e1a:77::2"))
}

// tunnel lays a VXLAN (RFC 7348) from the client to the server, whose ends know each other's link addresses,
// and starts a service at its far end.
func tunnel(family int) func(*Lab) error {
	end := func(r Role, own, other string, n int) func(*Lab) error {
		return steps(
			ip(r, family, "link add vxlan7 address 02:00:5e:00:53:%02x type vxlan id 7 local %s remote %s dstport 4789 dev eth0", n, own, other),
			ip(r, family, "addr add %s dev vxlan7", fmt.Sprintf(pick(family, "198.18.77.%d/24", "fd5c:7e1a:77::%d/64 nodad"), n)),
			onLink(r, "set vxlan7 up"),
			ip(r, family, "neigh add %s lladdr 02:00:5e:00:53:%02x dev vxlan7 nud permanent", fmt.Sprintf(pick(family, "198.18.77.%d", "fd5c:7e1a:77::%d"), 3-n), 3-n),
		)
	}
	at := netip.AddrPortFrom(inTunnel(family), Port)
	return steps(
		end(Client, "%client", "%server", 1), end(Server, "%server", "%client", 2),
		func(l *Lab) error { return l.Serve(Server, Listen{Addr: at}) },
		func(l *Lab) error {
			return l.Serve(Server, Listen{Network: pick(family, "udp4", "udp6"), Addr: at, Behaviour: Echo})
		},
	)
}

// tunnelled is a connection through the tunnel.
func tunnelled(name, cause, summary string, want Want, setup func(family int) func(*Lab) error) []Fault {
	return both(func(f int) Fault {
		return Fault{Name: name, Cause: cause, Summary: summary, Tools: []string{"nft"}, Setup: steps(tunnel(f), setup(f)), Want: want,
			Target: fixed(netip.AddrPortFrom(inTunnel(f), Port).String())}
	})
}

// onCarriers is a rule of a namespace about the packets that carry the probe's.
func onCarriers(r Role, hook, rule string) func(family int) func(*Lab) error {
	return func(f int) func(*Lab) error {
		return nft(r, f, "table inet edge { chain guard { type filter hook "+strings.ToLower(hook)+" priority filter; policy accept; "+rule+"; }; }")
	}
}

// tunnelFaults are those of the packets that carry the probe's.
func tunnelFaults() []Fault {
	const closed, other = "udp dport 4789 drop", "udp dport 8472 drop"
	by := func(direction string, r Role, hook string) Want {
		return Want{Direction: direction, Role: r, Hook: hook, Rule: nftRule("inet", "edge", 1, closed, "guard")}
	}
	onWay := func(name, summary string) []Fault {
		return mended(tunnelled(name, "firewall-drop", summary, by(forward, Router, "FORWARD"), onCarriers(Router, "FORWARD", closed)))
	}
	datagram := each(onWay("tunnel-forward-datagram", "the router drops the packets of the tunnel that the datagram goes through"),
		func(f *Fault) { f.Protocol = "udp" })
	control := each(tunnelled("control-tunnel", "reachable", "the router drops the packets of other tunnels", Want{Role: Server, Comm: "labd"},
		onCarriers(Router, "FORWARD", other)), func(f *Fault) { f.Twin = "tunnel-forward" + pick(f.Family, "", "-v6") })
	// Not traced: the chains are all read, and the target is none of them.
	iptables := each(iptablesFault("nft", "tunnel-forward", "firewall-drop", "iptables of the router drops the packets of the tunnel", Router, "FORWARD",
		"-A FORWARD -p udp --dport 4789 -j DROP", "filter", 1, "-j DROP", "FORWARD"), func(f *Fault) {
		f.Protocol, f.Setup = "udp", steps(tunnel(f.Family), rules(Router, "nft", f.Family, "-A FORWARD -p udp --dport 4789 -j DROP"))
		f.Target = fixed(netip.AddrPortFrom(inTunnel(f.Family), Port).String())
	})
	gone := each(tunnelled("tunnel-gone", "no-listener", "the far end of the tunnel is gone",
		Want{Certainty: observed, Direction: forward, Role: Server}, func(int) func(*Lab) error { return onLink(Server, "del vxlan7") }),
		func(f *Fault) { f.Sees = []error{unix.ETIMEDOUT} }) // the ICMP error is about the carrier: the client does not get it
	return slices.Concat(
		iptables, onWay("tunnel-forward", "the router drops the packets of the tunnel that the connection goes through"), datagram, control,
		mended(tunnelled("tunnel-reply", "firewall-drop", "the server does not let the tunnel's packets out that carry the answer",
			by(reply, Server, "OUTPUT"), onCarriers(Server, "OUTPUT", closed))),
		gone,
	)
}
