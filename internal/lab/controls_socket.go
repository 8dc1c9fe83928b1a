// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// healthy is a control in which the service answers all the same.
func healthy(name, twin, summary, protocol string, setup func(family int) func(*Lab) error, args ...string) []Fault {
	return both(func(f int) Fault {
		return Fault{Name: "control-" + name, Twin: twin, Cause: "reachable", Summary: summary, Protocol: protocol, Setup: setup(f), Args: args,
			Want: Want{Role: Server, Comm: "labd"}}
	})
}

func socketControls() []Fault {
	recovers := func(f int) func(*Lab) error {
		return func(l *Lab) error {
			return l.ServeFull(Server, Listen{Addr: served(f), Backlog: 2, Behaviour: Recover}, Client)
		}
	}
	return slices.Concat(
		healthy("queue-recovers", "accept-queue-full", "the accept queue is full, until the first connection was turned away", "", recovers),
		healthy("syn-cookies", "syn-queue-full", "half-open connections fill the SYN queue, but SYN cookies are on", "", func(f int) func(*Lab) error {
			return steps(sysctl(Server, "net.ipv4.tcp_syncookies", "1"), floodedQueue(f, "labd"))
		}),
		healthy("min-ttl", "min-ttl", "the service demands a TTL that the packet still has", "", func(f int) func(*Lab) error {
			return serving(f, Listen{MinTTL: 60})
		}),
		healthy("md5-other", "md5-mismatch", "the service wants signed segments of somebody else", "", func(f int) func(*Lab) error {
			return serving(f, Listen{MD5: addr(Router, f)})
		}),
		healthy("filter-passes", "socket-filter", "a filter on the service's socket takes everything", "", func(f int) func(*Lab) error {
			return serving(f, Listen{Filter: ClassicPass})
		}),
		healthy("filter-passes-udp", "socket-filter-udp", "a filter on the service's socket takes every datagram", "udp", func(f int) func(*Lab) error {
			return serving(f, Listen{Network: pick(f, "udp4", "udp6"), Filter: ClassicPass, Behaviour: Echo})
		}),
		healthy("time-wait-other", "time-wait", "an old connection of another port is in TIME_WAIT", "", func(f int) func(*Lab) error {
			return oldConnection(f, true)
		}, "-p", "40001"),
		healthy("time-wait-ends", "time-wait-server", "an old connection is in TIME_WAIT at the server, until a reset ends it", "", func(f int) func(*Lab) error {
			return oldConnection(f, false)
		}, "-p", "40000"),
		healthy("buffer-other", "receive-buffer-full", "the receive buffer of another service is full", "udp", func(f int) func(*Lab) error {
			network := pick(f, "udp4", "udp6")
			return steps(echo(f), serving(f, Listen{Network: network, Addr: netip.AddrPortFrom(addr(Server, f), Port+1), Behaviour: NeverRead, Comm: "sleepy"}))
		}),
		healthy("closes-after-answer", "app-closes-asked", "the service answers, then closes", "", func(f int) func(*Lab) error {
			return serving(f, Listen{Behaviour: CloseAfter, Banner: "bye\r\n"})
		}, "--send", "hello", "--expect", "bye"),
		both(func(f int) Fault {
			return Fault{Name: "control-silent-udp", Twin: "udp-silent", Cause: "reachable", Summary: "the service says nothing, and nothing is awaited",
				Protocol: "udp", Args: []string{"-w", "700ms"}, Setup: serving(f, Listen{Network: pick(f, "udp4", "udp6")}),
				Want: Want{Role: Server, Comm: "labd"}, Sees: []error{unix.ETIMEDOUT}}
		}),
		healthy("other-device", "listen-other-device", "a socket of another device stands beside the one that takes it", "", func(f int) func(*Lab) error {
			return steps(spareDevice, serving(f, Listen{Addr: anywhere(f), Device: "spare0", Comm: "ledger"}), serving(f, Listen{Addr: anywhere(f), Device: HostDevice}))
		}),
		both(func(f int) Fault {
			return Fault{Name: "control-echo", Twin: "echo-input", Cause: "reachable", Protocol: "icmp", Summary: "a rule drops echo requests of others", Tools: []string{"nft"},
				Setup: nft(Server, f, `table inet edge { chain guard { type filter hook input priority filter; policy accept; %ip saddr != %net icmp type echo-request drop; %ip saddr != %net icmpv6 type echo-request drop; }; }`),
				Want:  Want{Role: Server}}
		}),
		both(func(f int) Fault {
			return Fault{Name: "control-synproxy", Twin: "synproxy-input", Cause: "reachable", Summary: "a SYN proxy answers, and the server takes the connection from it", Tools: []string{"nft"},
				Setup: steps(serve(f), sysctl(Router, "net.netfilter.nf_conntrack_tcp_loose", "0"), nft(Router, f, synproxied)),
				Want:  Want{Role: Server, Comm: "labd"}}
		}),
		both(func(f int) Fault {
			return Fault{Name: "control-synproxy-closed", Twin: "synproxy-input", Cause: "no-listener", Summary: "a SYN proxy answers for a server on which nothing listens", Tools: []string{"nft"},
				Setup: steps(sysctl(Router, "net.netfilter.nf_conntrack_tcp_loose", "0"), nft(Router, f, synproxied)),
				Want:  Want{Direction: forward, Role: Server}, Sees: []error{nil, unix.ECONNRESET}}
		}),
	)
}
