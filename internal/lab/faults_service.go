// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"slices"
)

const (
	observed = "observed"
	forward  = "forward"
	reply    = "reply"
)

// serviceFaults are those of the program that should answer.
func serviceFaults() []Fault {
	return slices.Concat(
		both(func(f int) Fault {
			return Fault{Name: "reachable", Cause: "reachable", Summary: "nothing is broken",
				Setup: serve(f), Want: Want{Role: Server, Comm: "labd"}}
		}),
		both(func(f int) Fault {
			return Fault{Name: "no-listener", Cause: "no-listener", Summary: "nothing listens on the port",
				Want: Want{Certainty: observed, Direction: forward, Role: Server}}
		}),
		both(func(f int) Fault {
			loopback := netip.MustParseAddrPort(pick(f, "127.0.0.1:8080", "[::1]:8080"))
			return Fault{Name: "listen-loopback", Cause: "listener-elsewhere", Summary: "the service listens on loopback only",
				Setup: func(l *Lab) error { return l.Serve(Server, Listen{Addr: loopback, Comm: "ledger"}) },
				Want:  Want{Direction: forward, Role: Server, Comm: "ledger", Socket: loopback.String()}}
		}),
		[]Fault{
			{Name: "listen-v4-only", Cause: "listener-elsewhere", Family: 6, Summary: "the service listens on IPv4 only",
				Setup: func(l *Lab) error {
					return l.Serve(Server, Listen{Addr: netip.MustParseAddrPort("0.0.0.0:8080"), Comm: "ledger"})
				},
				Want: Want{Direction: forward, Role: Server, Comm: "ledger", Socket: "0.0.0.0:8080"}},
			{Name: "listen-v6-only", Cause: "listener-elsewhere", Family: 4, Summary: "the service listens on IPv6 only",
				Setup: func(l *Lab) error {
					return l.Serve(Server, Listen{Network: "tcp6", Addr: netip.MustParseAddrPort("[::]:8080"), Comm: "ledger"})
				},
				Want: Want{Direction: forward, Role: Server, Comm: "ledger", Socket: "[::]:8080"}},
			{Name: "listen-other-address", Cause: "listener-elsewhere", Family: 4, Summary: "the service listens on another address of the server",
				Setup: func(l *Lab) error {
					if err := l.AddAddress(Server, HostDevice, netip.MustParsePrefix("198.18.9.81/24")); err != nil {
						return err
					}
					return l.Serve(Server, Listen{Addr: netip.MustParseAddrPort("198.18.9.81:8080"), Comm: "ledger"})
				},
				Want: Want{Direction: forward, Role: Server, Comm: "ledger", Socket: "198.18.9.81:8080"}},
			{Name: "listen-other-namespace", Cause: "listener-elsewhere", Family: 4, Summary: "the service listens in the router instead of the server",
				Setup: func(l *Lab) error {
					return l.Serve(Router, Listen{Addr: netip.MustParseAddrPort("0.0.0.0:8080"), Comm: "ledger"})
				},
				Want: Want{Certainty: "inferred", Direction: forward, Comm: "ledger", Socket: "0.0.0.0:8080", Role: Server}},
			{Name: "no-listener-dnat", Cause: "no-listener", Family: 4, Summary: "the router forwards a port to one where nothing listens", Tools: []string{"nft"},
				Setup: nft(Router, 4, `table ip shift {
					chain inbound { type nat hook prerouting priority dstnat; policy accept; ip daddr 198.18.4.254 tcp dport 9443 dnat to %server:8443; }
				}`),
				Target: fixed("198.18.4.254:9443"),
				Want:   Want{Direction: forward, Role: Server, NATTo: "198.18.9.80:8443"}},
		},
		both(func(f int) Fault {
			service := netip.AddrPortFrom(addr(Server, f), Port)
			return Fault{Name: "accept-queue-full", Cause: "accept-queue-full", Summary: "the service does not accept its connections",
				Setup: func(l *Lab) error {
					return l.ServeFull(Server, Listen{Addr: service, Backlog: 2, Comm: "sleepy"}, Client)
				},
				Want: Want{Direction: forward, Role: Server, Comm: "sleepy", Socket: service.String(), Backlog: 2}}
		}),
	)
}
