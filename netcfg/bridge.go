// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"encoding/binary"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// bridgePort is what a bridge says of one of its ports.
type bridgePort struct {
	state    string // empty: not told
	isolated bool   // since Linux 4.18
}

// portStates are the BR_STATE_ numbers of linux/if_bridge.h, as `bridge link` prints them.
var portStates = []string{"disabled", "listening", "learning", "forwarding", "blocking"}

// bridgePorts returns the ports of bridges by index (RTM_GETLINK of AF_BRIDGE).
// It asks only where there are any; a port that is not told is not blocked or
// isolated, as far as any verdict goes.
func (n *Netns) bridgePorts(links []netlink.Link) map[int]bridgePort {
	out := map[int]bridgePort{}
	if !hasBridge(links) {
		return out
	}
	n.eachLink(unix.AF_BRIDGE, func(index int, attributes []byte) {
		if p, ok := portInfo(attributes); ok {
			out[index] = p
		}
	})
	return out
}

func hasBridge(links []netlink.Link) bool {
	return slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Type() == "bridge" })
}

// eachLink gives every message of a link dump to f; none where there is no dump.
func (n *Netns) eachLink(family int, f func(index int, attributes []byte)) {
	messages, err := inside(n, func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfInfomsg(family))
		return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	})
	if err != nil {
		return
	}
	for _, m := range messages {
		if len(m) >= unix.SizeofIfInfomsg {
			link := nl.DeserializeIfInfomsg(m)
			f(int(link.Index), m[link.Len():])
		}
	}
}

// spanningTrees tells of each bridge whether a spanning tree decides about its ports (IFLA_BR_STP_STATE).
func (n *Netns) spanningTrees(links []netlink.Link) map[int]*bool {
	out := map[int]*bool{}
	if !hasBridge(links) {
		return out
	}
	n.eachLink(unix.AF_UNSPEC, func(index int, attributes []byte) {
		if stp := nested(attributes, unix.IFLA_LINKINFO, nl.IFLA_INFO_DATA, nl.IFLA_BR_STP_STATE); len(stp) == 4 &&
			string(nested(attributes, unix.IFLA_LINKINFO, nl.IFLA_INFO_KIND)) == "bridge\x00" {
			on := binary.NativeEndian.Uint32(stp) != 0
			out[index] = &on
		}
	})
	return out
}

// nested follows attributes inwards; nil when one is not there.
func nested(b []byte, path ...uint16) []byte {
	for _, want := range path {
		attrs, err := nl.ParseRouteAttr(b)
		if err != nil {
			return nil
		}
		i := slices.IndexFunc(attrs, func(a syscall.NetlinkRouteAttr) bool { return a.Attr.Type&nl.NLA_TYPE_MASK == want })
		if i < 0 {
			return nil
		}
		b = attrs[i].Value
	}
	return b
}

// portInfo reads IFLA_PROTINFO; ok is false when it is not there.
func portInfo(attributes []byte) (p bridgePort, ok bool) {
	info := nested(attributes, unix.IFLA_PROTINFO)
	if state := nested(info, nl.IFLA_BRPORT_STATE); len(state) == 1 && int(state[0]) < len(portStates) {
		p.state = portStates[state[0]]
	}
	if isolated := nested(info, nl.IFLA_BRPORT_ISOLATED); len(isolated) == 1 {
		p.isolated = isolated[0] != 0
	}
	return p, info != nil
}
