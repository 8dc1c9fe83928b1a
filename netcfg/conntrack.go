// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// Flows returns the conntrack entries of n, of both families, that match
// keeps; all when match is nil. Where connection tracking is not compiled in
// or not loaded the section is missing: the question would load it.
func (n *Netns) Flows(match func(evidence.Flow) bool) evidence.Section[evidence.Flow] {
	if count := n.Sysctls(ConntrackCount); count.Read() && len(count.Items) == 0 {
		return evidence.Missing[evidence.Flow]("conntrack: not loaded in this kernel")
	}
	flows, err := inside(n, func() ([]*netlink.ConntrackFlow, error) {
		v4, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
			return nil, err
		}
		v6, err6 := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET6)
		if err6 != nil && !errors.Is(err6, nl.ErrDumpInterrupted) {
			return nil, err6
		}
		return append(v4, v6...), errors.Join(err, err6)
	})
	list := []evidence.Flow{}
	for _, f := range flows {
		flow := evidence.Flow{Protocol: flowProtocol(f.Forward.Protocol), Original: tuple(f.Forward), Reply: tuple(f.Reverse), Mark: f.Mark}
		if tcp, ok := f.ProtoInfo.(*netlink.ProtoInfoTCP); ok {
			flow.State = flowState(tcp.State)
		}
		if match == nil || match(flow) {
			list = append(list, flow)
		}
	}
	return section("conntrack", list, err)
}

func tuple(t netlink.IPTuple) evidence.Tuple {
	return evidence.Tuple{Source: hostPort(t.SrcIP, t.SrcPort), Dest: hostPort(t.DstIP, t.DstPort)}
}

func hostPort(ip net.IP, port uint16) string {
	addr, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(addr.Unmap(), port).String()
}

// flowProtocol is protocolName in the words of package evidence.
func flowProtocol(number uint8) string {
	if number == unix.IPPROTO_ICMPV6 {
		return "icmpv6"
	}
	return protocolName(number)
}

// flowState names enum tcp_conntrack (include/uapi/linux/netfilter/nf_conntrack_tcp.h).
func flowState(state uint8) string {
	names := [...]string{"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2"}
	if int(state) < len(names) {
		return names[state]
	}
	return ""
}
