// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// Actions and flags of include/uapi/linux/fib_rules.h. The actions that end a
// lookup have the numbers of the route types.
const (
	fibRuleInvert      = 0x2
	fibRuleUnresolved  = 0x4
	fibRuleIIFDetached = 0x8
	fibRuleOIFDetached = 0x10

	frActTable = 1
	frActGoto  = 2
	frActNop   = 3
)

// ipRule is a message of type RTM_NEWRULE: struct fib_rule_hdr and its
// attributes. github.com/vishvananda/netlink v1.3.1 drops the action.
type ipRule struct {
	route            // dst, src, their lengths and tos are at the same places
	action    uint8  // FR_ACT_*
	ruleFlags uint32 // FIB_RULE_*
}

func parseRule(b []byte) (ipRule, error) {
	const sizeofRuleHeader = 12
	if len(b) < sizeofRuleHeader {
		return ipRule{}, fmt.Errorf("ip rule message of %d bytes", len(b))
	}
	r := ipRule{action: b[7], ruleFlags: binary.NativeEndian.Uint32(b[8:])}
	r.route = route{family: b[0], dstLen: b[1], srcLen: b[2], tos: b[3], table: uint32(b[4]), attrs: map[uint16]attribute{}}
	for _, a := range attributes(b[sizeofRuleHeader:]) {
		r.attrs[a.kind] = a
	}
	if a, ok := r.attrs[nl.FRA_TABLE]; ok {
		r.table = a.u32()
	}
	return r, nil
}

// IPRules returns the rules of the routing policy database of both families
// (RTM_GETRULE), each family in the order in which the kernel asks them.
func (n *Netns) IPRules() evidence.Section[evidence.IPRule] {
	words := readRouteNames()
	var list []evidence.IPRule
	var interrupted error
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		rules, err := n.dumpRules(family)
		switch {
		case errors.Is(err, nl.ErrDumpInterrupted):
			interrupted = err
		case err != nil:
			return evidence.Missing[evidence.IPRule](fmt.Sprintf("ip rules: %v", err))
		}
		for _, r := range rules {
			list = append(list, r.evidence(words))
		}
	}
	return section("ip rules", list, interrupted)
}

func (r ipRule) evidence(words *routeNames) evidence.IPRule {
	e := evidence.IPRule{Family: ipVersion(r.family), Priority: int(r.attrs[nl.FRA_PRIORITY].u32()), Text: r.text(words)}
	switch r.action {
	case frActTable:
		e.Action, e.Table = "lookup", words.table(r.table)
		if _, ok := r.attrs[nl.FRA_L3MDEV]; ok {
			e.Table = "[l3mdev-table]"
		}
	case frActGoto:
		e.Action = "goto"
	case frActNop:
		e.Action = "nop"
	default:
		e.Action = routeType(r.action)
	}
	return e
}

// text words a rule as "ip rule" prints it (print_rule in iproute2's
// ip/iprule.c), with a space where ip has a tab.
func (r ipRule) text(words *routeNames) string {
	w := []string{strconv.FormatUint(uint64(r.attrs[nl.FRA_PRIORITY].u32()), 10) + ":"}
	add := func(words ...string) { w = append(w, words...) }
	if r.ruleFlags&fibRuleInvert != 0 {
		add("not")
	}
	add("from", r.prefix(nl.FRA_SRC, r.srcLen, "all"))
	if to := r.prefix(nl.FRA_DST, r.dstLen, ""); to != "" {
		add("to", to)
	}
	add(r.selectors(words)...)
	add(r.decision(words)...)
	if a, ok := r.attrs[nl.FRA_PROTOCOL]; ok && a.u8() != unix.RTPROT_UNSPEC && a.u8() != unix.RTPROT_KERNEL {
		add("proto", words.protocol(a.u8()))
	}
	return strings.Join(w, " ")
}

// selectors words what a packet must be like beside its addresses.
func (r ipRule) selectors(words *routeNames) []string {
	var w []string
	add := func(format string, args ...any) { w = append(w, fmt.Sprintf(format, args...)) }
	attr := func(kind uint16) (attribute, bool) { a, ok := r.attrs[kind]; return a, ok }
	if r.tos != 0 {
		add("tos %s", words.dsfield(r.tos))
	}
	mark, hasMark := attr(nl.FRA_FWMARK)
	mask, hasMask := attr(nl.FRA_FWMASK)
	switch {
	case hasMask && mask.u32() != ^uint32(0):
		add("fwmark %s/%s", hex(mark.u32()), hex(mask.u32()))
	case hasMark || hasMask:
		add("fwmark %s", hex(mark.u32()))
	}
	if a, ok := attr(nl.FRA_IIFNAME); ok {
		add("iif %s", a.text())
		if r.ruleFlags&fibRuleIIFDetached != 0 {
			add("[detached]")
		}
	}
	if a, ok := attr(nl.FRA_OIFNAME); ok {
		add("oif %s", a.text())
		if r.ruleFlags&fibRuleOIFDetached != 0 {
			add("[detached]")
		}
	}
	if a, ok := attr(nl.FRA_L3MDEV); ok && a.u8() != 0 {
		add("lookup [l3mdev-table]")
	}
	if a, ok := attr(nl.FRA_UID_RANGE); ok && len(a.value) >= 8 {
		add("uidrange %d-%d", a.u32(), binary.NativeEndian.Uint32(a.value[4:]))
	}
	if a, ok := attr(nl.FRA_IP_PROTO); ok {
		add("ipproto %s", protocolName(a.u8()))
	}
	w = append(w, r.ports()...)
	if a, ok := attr(nl.FRA_TUN_ID); ok {
		add("tun_id %d", a.be64())
	}
	if r.selectsMore() {
		add("…")
	}
	return w
}

// ports words the ports that a packet must have.
func (r ipRule) ports() []string {
	var w []string
	for _, port := range []struct {
		kind uint16
		word string
	}{{nl.FRA_SPORT_RANGE, "sport"}, {nl.FRA_DPORT_RANGE, "dport"}} {
		a, ok := r.attrs[port.kind]
		if !ok || len(a.value) < 4 {
			continue
		}
		first, last := a.u16(), binary.NativeEndian.Uint16(a.value[2:])
		if first == last {
			w = append(w, fmt.Sprintf("%s %d", port.word, first))
		} else {
			w = append(w, fmt.Sprintf("%s %d-%d", port.word, first, last))
		}
	}
	return w
}

// selectsMore reports whether the rule has a selector that is not worded here
// (those of Linux 6.13 and later: dscp, flowlabel, port masks). The text must
// then not look as if the rule took more packets than it does.
func (r ipRule) selectsMore() bool {
	const sportMask, dportMask = 28, 29
	for kind, a := range r.attrs {
		switch {
		case kind == sportMask || kind == dportMask:
			if a.u16() != 0xffff {
				return true
			}
		case kind > nl.FRA_DPORT_RANGE:
			return true
		}
	}
	return false
}

// decision words what the rule does.
func (r ipRule) decision(words *routeNames) []string {
	var w []string
	if r.table != 0 {
		w = append(w, "lookup", words.table(r.table))
		if a, ok := r.attrs[nl.FRA_SUPPRESS_PREFIXLEN]; ok && int32(a.u32()) != -1 {
			w = append(w, "suppress_prefixlength", strconv.Itoa(int(int32(a.u32()))))
		}
		if a, ok := r.attrs[nl.FRA_SUPPRESS_IFGROUP]; ok && int32(a.u32()) != -1 {
			w = append(w, "suppress_ifgroup", words.group(a.u32()))
		}
	}
	if a, ok := r.attrs[nl.FRA_FLOW]; ok {
		flow := a.u32()
		if from := flow >> 16; from != 0 {
			w = append(w, "realms "+words.realm(from)+"/"+words.realm(flow&0xffff))
		} else {
			w = append(w, "realms "+words.realm(flow&0xffff))
		}
	}
	switch r.action {
	case frActTable:
	case frActGoto:
		target := "none"
		if a, ok := r.attrs[nl.FRA_GOTO]; ok {
			target = strconv.FormatUint(uint64(a.u32()), 10)
		}
		w = append(w, "goto", target)
		if r.ruleFlags&fibRuleUnresolved != 0 {
			w = append(w, "[unresolved]")
		}
	case frActNop:
		w = append(w, "nop")
	default:
		w = append(w, routeType(r.action))
	}
	return w
}

// hex prints as C's %#x does, which has no prefix for 0.
func hex(v uint32) string {
	if v == 0 {
		return "0"
	}
	return fmt.Sprintf("%#x", v)
}

// protocolName names the IP protocols that have ports or that one filters by,
// as /etc/protocols does; a number for others.
func protocolName(number uint8) string {
	return nameOr(protocolNames, uint32(number), "%d")
}

var protocolNames = map[uint32]string{unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp",
	unix.IPPROTO_DCCP: "dccp", unix.IPPROTO_GRE: "gre", unix.IPPROTO_ESP: "esp", unix.IPPROTO_AH: "ah",
	unix.IPPROTO_ICMPV6: "ipv6-icmp", unix.IPPROTO_SCTP: "sctp", unix.IPPROTO_UDPLITE: "udplite"}
