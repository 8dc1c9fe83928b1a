// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"slices"
)

// proxyPort is where transparent proxies of the lab listen.
const proxyPort = 15006

// steered hands the service's connections to the port of a transparent proxy.
func steered(f int) func(*Lab) error {
	to := netip.AddrPortFrom(addr(Server, f), proxyPort).String()
	return nft(Server, f, `table inet mesh { chain steer { type filter hook prerouting priority mangle; policy accept; tcp dport %port tproxy %ip to `+to+`; }; }`)
}

func tproxyFaults() []Fault {
	nobody := slices.Concat(
		iptablesFault("legacy", "tproxy-nobody", "firewall-drop", "TPROXY finds no proxy to hand it to", Server, "PREROUTING",
			`-t mangle -A PREROUTING -p tcp --dport %port -j TPROXY --on-port 15006`, "mangle", 1, "-j TPROXY --on-port 15006", "PREROUTING"),
		iptablesFault("nft", "tproxy-nobody", "firewall-drop", "TPROXY finds no proxy to hand it to", Server, "PREROUTING",
			`-t mangle -A PREROUTING -p tcp --dport %port -j TPROXY --on-port 15006`, "mangle", 1, "-j TPROXY --on-port 15006", "PREROUTING"),
	)
	for i := range nobody {
		nobody[i].Fix = false // the proxy has to be started
		nobody[i].Want.Proof = []string{"IP_TRANSPARENT takes on port 15006"}
	}
	return slices.Concat(nobody, both(func(f int) Fault {
		proxy := netip.AddrPortFrom(addr(Server, f), proxyPort)
		return Fault{Name: "tproxy-queue-full", Cause: "accept-queue-full", Summary: "a transparent proxy does not accept its connections", Tools: []string{"nft"},
			Setup: steps(steered(f), func(l *Lab) error {
				return l.ServeFull(Server, Listen{Addr: proxy, Transparent: true, Backlog: 2, Comm: "sleepy"}, Client)
			}),
			Want: Want{Direction: forward, Role: Server, Comm: "sleepy", Socket: proxy.String(), Backlog: 2}}
	}), both(func(f int) Fault {
		proxy := netip.AddrPortFrom(addr(Server, f), proxyPort)
		return Fault{Name: "control-tproxy", Twin: "tproxy-queue-full", Cause: "reachable", Summary: "a transparent proxy accepts", Tools: []string{"nft"},
			Setup: steps(steered(f), serving(f, Listen{Addr: proxy, Transparent: true})),
			Want:  Want{Role: Server, Comm: "labd", Socket: proxy.String()}}
	}))
}
