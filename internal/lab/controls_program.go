// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// programControls have the objects of the programs' faults, but none of them stops the probe.
func programControls() []Fault {
	other := func(f int) selector { return selector{family: f, port: Port + 1} }
	return slices.Concat(
		healthy("cgroup-other", "cgroup-ingress", "a program drops the packets of another cgroup", "", func(f int) func(*Lab) error {
			return steps(guarded(Bystander, ebpf.AttachCGroupInetIngress, cgroupDeny), guarded(Bystander, ebpf.AttachCGroupInetEgress, cgroupDeny), enclosed(Server), serve(f))
		}),
		healthy("cgroup-passes", "cgroup-ingress", "the programs of the service's cgroup let everything pass", "", func(f int) func(*Lab) error {
			return steps(guarded(Server, ebpf.AttachCGroupInetIngress, cgroupAllow), guarded(Server, ebpf.AttachCGroupInetEgress, cgroupAllow), serve(f))
		}),
		healthy("cgroup-connect-passes", "cgroup-connect", "a program of the client's cgroup lets connect() pass", "", func(f int) func(*Lab) error {
			attach := ebpf.AttachCGroupInet4Connect
			if f == 6 {
				attach = ebpf.AttachCGroupInet6Connect
			}
			return steps(guarded(Client, attach, cgroupAllow), serve(f))
		}),
		both(func(f int) Fault {
			x := atSocket(f, "control-cgroup-filter", "socket-filter", "the service's socket has a filter that drops; a program drops the packets of another cgroup", "picky",
				steps(guarded(Bystander, ebpf.AttachCGroupInetIngress, cgroupDeny), enclosed(Server), serving(f, Listen{Filter: ClassicDrop, Comm: "picky"})))
			x.Twin = "cgroup-ingress"
			return x
		}),
		both(func(f int) Fault {
			return Fault{Name: "control-cgroup-and-filter", Twin: "cgroup-ingress", Cause: "unexplained",
				Summary: "a program of the service's cgroup and a filter on its socket: the kernel does not say which of them drops",
				Setup:   steps(guarded(Server, ebpf.AttachCGroupInetIngress, cgroupAllow), serving(f, Listen{Filter: ClassicDrop})), Args: []string{"-w", "500ms"},
				Want: Want{Direction: forward, Role: Server}}
		}),
		healthy("tc-other-port", "tc-ingress", "tc filters drop another port", "", func(f int) func(*Lab) error {
			return steps(clsact(Server, HostDevice, netlink.HANDLE_MIN_INGRESS, other(f), tcShot), serve(f))
		}),
		healthy("tc-passes", "tc-egress-router", "a tc filter matches, and lets it pass", "", func(f int) func(*Lab) error {
			return steps(clsact(Router, DMZDevice, netlink.HANDLE_MIN_EGRESS, selector{family: f}, 0), serve(f)) // TC_ACT_OK
		}),
		healthy("tcx-other-port", "tcx-ingress", "a tcx program drops another port", "", func(f int) func(*Lab) error {
			return steps(tcx(Router, LANDevice, ebpf.AttachTCXIngress, other(f), tcShot), serve(f))
		}),
		healthy("xdp-passes", "xdp-generic", "XDP programs match, and let it pass", "", func(f int) func(*Lab) error {
			return steps(xdp(Server, HostDevice, link.XDPGenericMode, selector{family: f}, xdpPass),
				xdp(Router, LANDevice, link.XDPDriverMode, other(f), xdpDrop), serve(f))
		}),
		healthy("qdisc-room", "qdisc-fifo", "short queues that have room for a packet", "", func(f int) func(*Lab) error {
			return steps(tc(Router, "qdisc", "add", "dev", DMZDevice, "root", "pfifo", "limit", "1"), tc(Client, "qdisc", "add", "dev", HostDevice, "root", "bfifo", "limit", "10000"), serve(f))
		}),
		healthy("xfrm-other", "xfrm-in", "IPsec policies block other hosts and ports", "", func(f int) func(*Lab) error {
			return steps(ip(Server, f, "xfrm policy add src %s dst %%server dir in action block", nics[1].prefix(f).Addr()),
				ip(Router, f, "xfrm policy add src %%net dst %%dmz proto tcp dport 8081 dir fwd action block"),
				ip(Client, f, "xfrm policy add src %%client dst %%server proto udp dir out action block"), serve(f))
		}),
		healthy("xfrm-allow", "xfrm-in", "a policy with a lower priority blocks, one that comes first allows", "", func(f int) func(*Lab) error {
			return steps(ip(Server, f, "xfrm policy add src %%client dst %%server dir in priority 10 action allow"),
				ip(Server, f, "xfrm policy add src %%net dst %%server dir in priority 20 action block"), serve(f))
		}),
		healthy("nfqueue-accepts", "legacy-nfqueue-drop", "a program reads the queue and accepts", "", func(f int) func(*Lab) error {
			return steps(serve(f), rules(Server, "legacy", f, "-A INPUT -p tcp --dport %port -j NFQUEUE --queue-num 17"), reading(Server, false))
		}),
		healthy("nfqueue-bypass", "legacy-nfqueue-unread", "nobody reads the queue, but the rule lets pass then", "", func(f int) func(*Lab) error {
			return steps(serve(f), rules(Router, "legacy", f, "-A FORWARD -p tcp --dport %port -j NFQUEUE --queue-num 17 --queue-bypass"))
		}),
		passing("ct-valid", "ct-invalid-reply", "what conntrack calls invalid is dropped, and nothing is", Router,
			`table inet state { chain pass { type filter hook forward priority filter; policy drop; ct state invalid drop; ct state established accept; tcp dport %port accept; }; }`),
	)
}
