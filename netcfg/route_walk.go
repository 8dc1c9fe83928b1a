// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// flow is a packet as the kernel compares it with routes and rules (struct flowi).
type flow struct {
	dst, src   netip.Addr // src is the unspecified address when it is not chosen yet
	iif, oif   uint32     // loopback's index comes in when this host sends
	mark, uid  uint32
	tos, proto uint8
	sport      uint16
	dport      uint16
	input      bool // it came in on a device
}

// decision is what rules and routes lead to.
type decision struct {
	rule  *ipRule // that decided, or led to the table that did; nil when none did
	route *route  // nil: the rule itself decided, or nothing did
	errno unix.Errno
	open  string // why it cannot be told; rule and route are then not set
}

// way says where a decision sends packets, and nothing else about it.
func (d decision) way() any {
	if d.route == nil || d.errno != 0 {
		return d.errno
	}
	type way struct {
		kind  uint8
		hops  [8]hop
		count int
	}
	w := way{kind: d.route.kind, count: len(d.route.hops())}
	for i, h := range d.route.hops() {
		if i < len(w.hops) {
			h.flags = 0
			w.hops[i] = h
		}
	}
	return w
}

// answer to whether a rule takes a packet.
type answer int

const (
	no answer = iota
	yes
	unknown
)

// decide follows the ip rules as fib_rules_lookup does. merged says that IPv4
// still has the local table within main, as it has until the first rule is
// changed: then the longest prefix of both wins, and no rule is asked.
func (t *routing) decide(f flow, merged bool) decision {
	if merged {
		return t.decideMerged(f)
	}
	for i := 0; i < len(t.rules); i++ {
		r := &t.rules[i]
		switch t.takes(r, f) {
		case no:
			continue
		case unknown:
			return decision{open: "ip rule " + r.text(readRouteNames())}
		}
		switch r.action {
		case frActNop:
			continue
		case frActGoto:
			to := slices.IndexFunc(t.rules, func(x ipRule) bool { return x.priority() == r.attrs[nl.FRA_GOTO].u32() })
			if to > i {
				i = to - 1
			}
			continue
		case frActTable:
		default:
			return decision{rule: r, errno: ruleErrno(r.action)}
		}
		d := t.lookup(f, r.table)
		if d.route == nil || d.errno == unix.EAGAIN {
			continue
		}
		suppressed := no
		if d.errno == 0 {
			suppressed = t.suppressed(r, d.route)
		}
		switch suppressed {
		case yes:
			continue
		case unknown:
			return decision{open: "ip rule " + r.text(readRouteNames())}
		}
		d.rule = r
		return d
	}
	return decision{errno: unix.ENETUNREACH}
}

// decideMerged asks local and main as one table, then default (fib_lookup without rules of the user's own).
func (t *routing) decideMerged(f flow) decision {
	for _, tables := range [][]uint32{{unix.RT_TABLE_LOCAL, unix.RT_TABLE_MAIN}, {unix.RT_TABLE_DEFAULT}} {
		d := t.lookup(f, tables...)
		if d.route == nil || d.errno == unix.EAGAIN {
			continue
		}
		// The rule that leads to this table says it as well as any.
		if i := slices.IndexFunc(t.rules, func(r ipRule) bool { return r.table == d.route.table }); i >= 0 {
			d.rule = &t.rules[i]
		}
		return d
	}
	return decision{errno: unix.ENETUNREACH}
}

// ruleErrno is how a rule refuses: its unreachable is the network's, not the host's.
func ruleErrno(action uint8) unix.Errno {
	if action == unix.RTN_UNREACHABLE {
		return unix.ENETUNREACH
	}
	return routeErrno(action)
}

// routeErrno is how a route of that type answers (fib_props); throw is EAGAIN.
func routeErrno(kind uint8) unix.Errno {
	switch kind {
	case unix.RTN_BLACKHOLE:
		return unix.EINVAL
	case unix.RTN_UNREACHABLE:
		return unix.EHOSTUNREACH
	case unix.RTN_PROHIBIT:
		return unix.EACCES
	case unix.RTN_THROW:
		return unix.EAGAIN
	case unix.RTN_NAT, unix.RTN_XRESOLVE:
		return unix.EINVAL
	}
	return 0
}

// takes compares a rule with the packet, as fib_rule_match does.
func (t *routing) takes(r *ipRule, f flow) answer {
	a := t.selects(r, f)
	switch {
	case a == unknown || r.ruleFlags&fibRuleInvert == 0:
		return a
	case a == yes:
		return no
	}
	return yes
}

func (t *routing) selects(r *ipRule, f flow) answer {
	for _, d := range []struct {
		kind uint16
		have uint32
	}{{nl.FRA_IIFNAME, f.iif}, {nl.FRA_OIFNAME, f.oif}} {
		a, ok := r.attrs[d.kind]
		if !ok {
			continue
		}
		dev, exists := t.devices[a.text()]
		if !exists || dev.index != d.have {
			return no
		}
		if dev.vrf {
			return unknown // a VRF puts its own device in a packet's place
		}
	}
	mask := ^uint32(0)
	if a, ok := r.attrs[nl.FRA_FWMASK]; ok {
		mask = a.u32()
	} else if _, ok := r.attrs[nl.FRA_FWMARK]; !ok {
		mask = 0
	}
	if (r.attrs[nl.FRA_FWMARK].u32()^f.mark)&mask != 0 {
		return no
	}
	if a, ok := r.attrs[nl.FRA_TUN_ID]; ok && a.be64() != 0 {
		return no // only packets out of a tunnel have one
	}
	if a, ok := r.attrs[nl.FRA_UID_RANGE]; ok && len(a.value) >= 8 {
		if f.uid < a.u32() || f.uid > binary.NativeEndian.Uint32(a.value[4:]) {
			return no
		}
	}
	if !r.holds(nl.FRA_DST, r.dstLen, f.dst) || !r.holds(nl.FRA_SRC, r.srcLen, f.src) || r.tos != 0 && r.tos != f.tos {
		return no
	}
	if a, ok := r.attrs[nl.FRA_IP_PROTO]; ok && a.u8() != 0 && a.u8() != f.proto {
		return no
	}
	for kind, port := range map[uint16]uint16{nl.FRA_SPORT_RANGE: f.sport, nl.FRA_DPORT_RANGE: f.dport} {
		if a, ok := r.attrs[kind]; ok && len(a.value) >= 4 {
			if port < a.u16() || port > binary.NativeEndian.Uint16(a.value[2:]) {
				return no
			}
		}
	}
	if r.selectsMore() {
		return unknown
	}
	if a, ok := r.attrs[nl.FRA_L3MDEV]; ok && a.u8() != 0 {
		for _, d := range t.devices {
			if d.vrf {
				return unknown
			}
		}
		return no
	}
	return yes
}

// suppressed reports whether the rule takes back what its table answered. By
// the group of its device that is not known of several next hops of IPv6, which
// picks one of them before it compares; IPv4 compares the first (fib4_rule_suppress).
func (t *routing) suppressed(rule *ipRule, r *route) answer {
	if a, ok := rule.attrs[nl.FRA_SUPPRESS_PREFIXLEN]; ok && int32(a.u32()) != -1 && int32(r.dstLen) <= int32(a.u32()) {
		return yes
	}
	a, ok := rule.attrs[nl.FRA_SUPPRESS_IFGROUP]
	if !ok || int32(a.u32()) == -1 {
		return no
	}
	var in, out bool
	for _, h := range r.hops() {
		group, found := t.group(h.index)
		in, out = in || found && group == a.u32(), out || !found || group != a.u32()
		if t.family == unix.AF_INET {
			break
		}
	}
	switch {
	case in && out:
		return unknown
	case in:
		return yes
	}
	return no
}
