// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

func programFaults() []Fault {
	return slices.Concat(cgroupFaults(), tcFaults(), xdpFaults(), qdiscFaults(), xfrmFaults())
}

// echo starts a service that answers datagrams.
func echo(f int) func(*Lab) error {
	return serving(f, Listen{Network: pick(f, "udp4", "udp6"), Behaviour: Echo})
}

func cgroupFaults() []Fault {
	attach := func(f int, v4, v6 ebpf.AttachType) ebpf.AttachType {
		if f == 6 {
			return v6
		}
		return v4
	}
	fault := func(name, summary, protocol, direction string, r Role, v4, v6 ebpf.AttachType) []Fault {
		return both(func(f int) Fault {
			service := serve(f)
			if protocol == "udp" {
				service = echo(f)
			}
			return Fault{Name: name, Cause: "cgroup-bpf", Summary: summary, Protocol: protocol,
				Setup: steps(guarded(r, attach(f, v4, v6), cgroupDeny), service),
				Want:  Want{Direction: direction, Role: r, Cgroup: r, Program: "lab_gate"}}
		})
	}
	const in, out = ebpf.AttachCGroupInetIngress, ebpf.AttachCGroupInetEgress
	return slices.Concat(
		fault("cgroup-ingress", "an ingress program of the service's cgroup drops it", "", forward, Server, in, in),
		fault("cgroup-ingress-udp", "an ingress program of the service's cgroup drops the datagram", "udp", forward, Server, in, in),
		fault("cgroup-ingress-client", "an ingress program of the client's own cgroup drops the answer", "", reply, Client, in, in),
		fault("cgroup-egress", "an egress program of the client's own cgroup drops it", "", forward, Client, out, out),
		fault("cgroup-egress-udp", "an egress program of the client's own cgroup drops the datagram", "udp", forward, Client, out, out),
		fault("cgroup-egress-server", "an egress program of the service's cgroup drops the answer", "", reply, Server, out, out),
		fault("cgroup-egress-server-udp", "an egress program of the service's cgroup drops the datagram that answers", "udp", reply, Server, out, out),
		fault("cgroup-connect", "a program of the client's own cgroup refuses connect()", "", forward, Client, ebpf.AttachCGroupInet4Connect, ebpf.AttachCGroupInet6Connect),
		fault("cgroup-connect-udp", "a program of the client's own cgroup refuses connect() of a datagram socket", "udp", forward, Client, ebpf.AttachCGroupInet4Connect, ebpf.AttachCGroupInet6Connect),
	)
}

// deviceFault is a program or queue of a device that takes the request or the answer.
func deviceFault(name, cause, summary, direction string, r Role, device string, part func(s selector) func(*Lab) error) []Fault {
	return both(func(f int) Fault {
		return Fault{Name: name, Cause: cause, Summary: summary,
			Setup: steps(serve(f), part(selector{family: f, reply: direction == reply})),
			Want:  Want{Certainty: observed, Direction: direction, Role: r, Device: device}}
	})
}

func tcFaults() []Fault {
	act := func(r Role, device string, parent uint32) func(selector) func(*Lab) error {
		return func(s selector) func(*Lab) error { return clsact(r, device, parent, s, tcShot) }
	}
	linked := func(r Role, device string, attach ebpf.AttachType) func(selector) func(*Lab) error {
		return func(s selector) func(*Lab) error { return tcx(r, device, attach, s, tcShot) }
	}
	return slices.Concat(
		deviceFault("tc-ingress", "tc-drop", "a tc filter of the server drops what arrives", forward, Server, HostDevice, act(Server, HostDevice, netlink.HANDLE_MIN_INGRESS)),
		deviceFault("tc-egress-router", "tc-drop", "a tc filter of the router drops what leaves", forward, Router, DMZDevice, act(Router, DMZDevice, netlink.HANDLE_MIN_EGRESS)),
		deviceFault("tc-egress-client", "tc-drop", "a tc filter of the client drops what leaves", forward, Client, HostDevice, act(Client, HostDevice, netlink.HANDLE_MIN_EGRESS)),
		deviceFault("tc-reply-egress", "tc-drop", "a tc filter of the server drops its answer", reply, Server, HostDevice, act(Server, HostDevice, netlink.HANDLE_MIN_EGRESS)),
		deviceFault("tc-reply-ingress", "tc-drop", "a tc filter of the router drops the answer", reply, Router, DMZDevice, act(Router, DMZDevice, netlink.HANDLE_MIN_INGRESS)),
		deviceFault("tcx-ingress", "tc-drop", "a tcx program of the router drops what arrives", forward, Router, LANDevice, linked(Router, LANDevice, ebpf.AttachTCXIngress)),
		deviceFault("tcx-reply-egress", "tc-drop", "a tcx program of the router drops the answer as it leaves", reply, Router, LANDevice, linked(Router, LANDevice, ebpf.AttachTCXEgress)),
	)
}

func xdpFaults() []Fault {
	on := func(r Role, device string, mode link.XDPAttachFlags) func(selector) func(*Lab) error {
		return func(s selector) func(*Lab) error { return xdp(r, device, mode, s, xdpDrop) }
	}
	return slices.Concat(
		deviceFault("xdp-generic", "xdp-drop", "an XDP program of the server drops it (generic mode)", forward, Server, HostDevice, on(Server, HostDevice, link.XDPGenericMode)),
		deviceFault("xdp-driver", "xdp-drop", "an XDP program of the router drops it (driver mode)", forward, Router, LANDevice, on(Router, LANDevice, link.XDPDriverMode)),
		deviceFault("xdp-reply-generic", "xdp-drop", "an XDP program of the router drops the answer (generic mode)", reply, Router, DMZDevice, on(Router, DMZDevice, link.XDPGenericMode)),
		deviceFault("xdp-reply-driver", "xdp-drop", "an XDP program of the client drops the answer (driver mode)", reply, Client, HostDevice, on(Client, HostDevice, link.XDPDriverMode)),
	)
}

// tc runs tc(8) in a namespace.
func tc(r Role, args ...string) func(*Lab) error {
	return func(l *Lab) error { return l.Run(r, append([]string{"tc"}, args...)...) }
}

// acquainted makes the neighbours of the path known, which a queue without room would prevent.
func acquainted(f int) func(*Lab) error {
	return func(l *Lab) error {
		return l.Hold(Client, Connect{To: served(f), Count: 1, Ended: true, First: true})
	}
}

func qdiscFaults() []Fault {
	fault := func(name, summary, direction string, r Role, device string, qdisc ...string) []Fault {
		return both(func(f int) Fault {
			return Fault{Name: name, Cause: "qdisc-drop", Summary: summary, Tools: []string{"tc"},
				Setup: steps(serve(f), acquainted(f), tc(r, append([]string{"qdisc", "add", "dev", device, "root"}, qdisc...)...)),
				Want:  Want{Certainty: observed, Direction: direction, Role: r, Device: device}}
		})
	}
	return slices.Concat(
		fault("qdisc-fifo", "the router's queue has no room for a packet", forward, Router, DMZDevice, "bfifo", "limit", "10"),
		fault("qdisc-tbf", "the client's token bucket takes no packet of that size", forward, Client, HostDevice, "tbf", "rate", "1mbit", "burst", "50", "limit", "10000"),
		fault("qdisc-reply", "the server's queue has no room for the answer", reply, Server, HostDevice, "bfifo", "limit", "10"),
		fault("qdisc-reply-router", "the router's queue has no room for the answer", reply, Router, LANDevice, "bfifo", "limit", "10"),
	)
}

func xfrmFaults() []Fault {
	fault := func(name, summary, direction string, r Role, policy string) []Fault {
		return both(func(f int) Fault {
			return Fault{Name: name, Cause: "xfrm-policy", Summary: summary,
				Setup: steps(serve(f), ip(r, f, "xfrm policy add %s action block", policy)),
				Want:  Want{Direction: direction, Role: r}}
		})
	}
	return slices.Concat(
		fault("xfrm-in", "an IPsec policy of the server blocks what arrives", forward, Server, "src %client dst %server proto tcp dir in"),
		fault("xfrm-forward", "an IPsec policy of the router blocks what it forwards", forward, Router, "src %net dst %dmz dir fwd"),
		fault("xfrm-out", "an IPsec policy of the client blocks what leaves", forward, Client, "src %client dst %server dir out"),
		fault("xfrm-reply-in", "an IPsec policy of the client blocks the answer", reply, Client, "src %server dst %client dir in"),
		fault("xfrm-reply-forward", "an IPsec policy of the router blocks the answer", reply, Router, "src %dmz dst %net dir fwd"),
		fault("xfrm-reply-out", "an IPsec policy of the server blocks its answer", reply, Server, "src %server dst %client dir out"),
	)
}
