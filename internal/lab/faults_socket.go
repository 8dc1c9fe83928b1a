// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"slices"
)

// served is the address of the lab's service.
func served(family int) netip.AddrPort { return netip.AddrPortFrom(addr(Server, family), Port) }

// anywhere is the service's port on all addresses.
func anywhere(f int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(pick(f, "0.0.0.0", "::")), Port)
}

// serving starts a service on the server, on the lab's address where what names none.
func serving(family int, what Listen) func(*Lab) error {
	return func(l *Lab) error {
		if !what.Addr.IsValid() {
			what.Addr = served(family)
		}
		return l.Serve(Server, what)
	}
}

// atSocket is a fault of the service's socket, which must be named with its process.
func atSocket(family int, name, cause, summary, comm string, setup func(*Lab) error) Fault {
	return Fault{Name: name, Cause: cause, Summary: summary, Setup: setup,
		Want: Want{Direction: forward, Role: Server, Comm: comm, Socket: served(family).String()}}
}

func socketFaults() []Fault {
	return slices.Concat(queueFaults(), signatureFaults(), filterFaults(), timeWaitFaults(), boundElsewhere())
}

// floodedQueue fills the SYN queue with half-open connections, whose answers a black hole of the router swallows.
func floodedQueue(f int, comm string) func(*Lab) error {
	nobody := netip.MustParseAddr(pick(f, "198.18.77.7", "fd5c:7e1a:4d::7"))
	return steps(
		sysctl(Server, "net.ipv4.tcp_max_syn_backlog", "8"),
		ip(Router, f, "route add blackhole %s", netip.PrefixFrom(nobody, nobody.BitLen())),
		serving(f, Listen{Comm: comm, Backlog: 8}),
		func(l *Lab) error { return l.Flood(Client, Flood{From: nobody, To: served(f), Count: 40}) },
	)
}

func queueFaults() []Fault {
	return slices.Concat(
		both(func(f int) Fault {
			x := atSocket(f, "syn-queue-full", "syn-queue-full", "half-open connections fill the SYN queue, and SYN cookies are off", "sleepy",
				steps(sysctl(Server, "net.ipv4.tcp_syncookies", "0"), floodedQueue(f, "sleepy")))
			x.Fix = true
			return x
		}),
		both(func(f int) Fault {
			x := atSocket(f, "receive-buffer-full", "receive-buffer-full", "the service does not read its datagrams", "sleepy",
				serving(f, Listen{Network: pick(f, "udp4", "udp6"), Behaviour: NeverRead, Comm: "sleepy"}))
			x.Protocol, x.Want.Certainty = "udp", observed
			return x
		}),
	)
}

// signatureFaults are refused for what a segment bears.
func signatureFaults() []Fault {
	return slices.Concat(
		both(func(f int) Fault {
			x := atSocket(f, "md5-mismatch", "md5-mismatch", "the service wants signed segments (TCP-MD5)", "bgpd",
				serving(f, Listen{MD5: addr(Client, f), Comm: "bgpd"}))
			x.Want.Certainty = observed
			return x
		}),
		both(func(f int) Fault {
			x := atSocket(f, "min-ttl", "min-ttl", "the service takes segments of direct neighbours only (GTSM)", "bgpd",
				serving(f, Listen{MinTTL: 255, Comm: "bgpd"}))
			x.Want.Certainty = observed
			return x
		}),
	)
}

func filterFaults() []Fault {
	all := []Fault{}
	for _, c := range []struct {
		suffix  string
		filter  Filter
		summary string
	}{
		{"", ClassicDrop, "a classic filter on the service's socket drops everything"},
		{"-program", ProgramDrop, "a BPF program on the service's socket drops everything"},
	} {
		all = slices.Concat(all, both(func(f int) Fault {
			return atSocket(f, "socket-filter"+c.suffix, "socket-filter", c.summary, "picky", serving(f, Listen{Filter: c.filter, Comm: "picky"}))
		}), both(func(f int) Fault {
			x := atSocket(f, "socket-filter-udp"+c.suffix, "socket-filter", c.summary+" (datagrams)", "picky",
				serving(f, Listen{Network: pick(f, "udp4", "udp6"), Filter: c.filter, Comm: "picky", Behaviour: Echo}))
			x.Protocol = "udp"
			return x
		}))
	}
	return all
}

// oldConnection leaves a connection from the client's port 40000 in TIME_WAIT, on the side that closes first.
// Its sequence numbers are above those of any probe, and no timestamps tell old from new.
func oldConnection(f int, clientFirst bool) func(*Lab) error {
	behaviour := CloseFirst
	if clientFirst {
		behaviour = Hold
	}
	return steps(
		sysctl(Client, "net.ipv4.tcp_timestamps", "0"), sysctl(Server, "net.ipv4.tcp_timestamps", "0"),
		serving(f, Listen{Behaviour: behaviour}),
		func(l *Lab) error {
			return l.Hold(Client, Connect{From: netip.AddrPortFrom(addr(Client, f), 40000), To: served(f), Count: 1,
				Ended: true, First: clientFirst, ISN: 0x7fff8000})
		},
	)
}

// lasting lets no reset end a connection in TIME_WAIT (RFC 1337). Without it a FIN that a busy machine
// sent twice does: its second ACK finds the other side's socket gone, and is answered with a reset.
func lasting(r Role) func(*Lab) error { return sysctl(r, "net.ipv4.tcp_rfc1337", "1") }

func timeWaitFaults() []Fault {
	return slices.Concat(
		both(func(f int) Fault {
			return Fault{Name: "time-wait", Cause: "time-wait", Summary: "the client's own old connection holds the source port",
				Setup: steps(lasting(Client), oldConnection(f, true)), Args: []string{"-p", "40000"},
				Want: Want{Direction: forward, Role: Client, Socket: netip.AddrPortFrom(addr(Client, f), 40000).String()}}
		}),
		both(func(f int) Fault {
			return Fault{Name: "time-wait-server", Cause: "time-wait", Summary: "an old connection from the same port is in TIME_WAIT at the server, which ignores resets then",
				Setup: steps(lasting(Server), oldConnection(f, false)), Args: []string{"-p", "40000"},
				Want: Want{Direction: forward, Role: Server, Socket: served(f).String()}}
		}),
	)
}

// spareDevice gives the server one more device, without a cable to the others.
func spareDevice(l *Lab) error {
	return steps(ip(Server, 4, "link add spare0 type veth peer name spare1"), ip(Server, 4, "link set spare0 up"))(l)
}

// boundElsewhere listen where the probe does not come.
func boundElsewhere() []Fault {
	all := []Fault{}
	for _, protocol := range []string{"tcp", "udp"} {
		suffix := map[string]string{"tcp": "", "udp": "-udp"}[protocol]
		network := func(f int) string { return protocol + pick(f, "4", "6") }
		all = slices.Concat(all, both(func(f int) Fault {
			return Fault{Name: "listen-other-device" + suffix, Cause: "listener-elsewhere", Summary: "the service listens on another device only", Protocol: protocol,
				Setup: steps(spareDevice,
					serving(f, Listen{Network: network(f), Addr: anywhere(f), Device: "spare0", Comm: "ledger"})),
				Want: Want{Direction: forward, Role: Server, Comm: "ledger", Socket: anywhere(f).String()}}
		}))
	}
	return slices.Concat(all, both(func(f int) Fault {
		return Fault{Name: "no-listener-udp", Cause: "no-listener", Summary: "nothing takes datagrams on the port", Protocol: "udp",
			Setup: serve(f), // a TCP service on the same port
			Want:  Want{Certainty: observed, Direction: forward, Role: Server}}
	}), both(func(f int) Fault {
		loopback := netip.AddrPortFrom(netip.MustParseAddr(pick(f, "127.0.0.1", "::1")), Port)
		return Fault{Name: "listen-loopback-udp", Cause: "listener-elsewhere", Summary: "the service takes datagrams on loopback only", Protocol: "udp",
			Setup: serving(f, Listen{Network: pick(f, "udp4", "udp6"), Addr: loopback, Comm: "ledger"}),
			Want:  Want{Direction: forward, Role: Server, Comm: "ledger", Socket: loopback.String()}}
	}))
}
