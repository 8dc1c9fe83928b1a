// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// answer to whether a rule takes a packet.
type answer int

const (
	unknown answer = iota
	yes
	no
)

func (a answer) not() answer { return [...]answer{unknown, no, yes}[a] }

func and(a, b answer) answer {
	switch {
	case a == no || b == no:
		return no
	case a == yes && b == yes:
		return yes
	}
	return unknown
}

// selector is the text of an ip rule, taken apart.
type selector struct {
	invert    bool
	fields    [][2]string // from, to, fwmark, iif …, each with its value
	detached  bool        // its device is gone: it takes nothing (FIB_RULE_IIF_DETACHED)
	more      bool        // something that is not understood
	target    int         // of goto
	suppress  bool        // it may take its table's answer back
	anyTables bool        // lookup [l3mdev-table]
}

// parseIPRule reads the words that netcfg and ip rule print.
func parseIPRule(r *evidence.IPRule) selector {
	s := selector{target: -1}
	w := strings.Fields(r.Text)
	if len(w) == 0 {
		return selector{more: true}
	}
	for i := 1; i < len(w); i++ {
		value := ""
		if i+1 < len(w) {
			value = w[i+1]
		}
		switch w[i] {
		case "not":
			s.invert = true
			continue
		case "[detached]":
			s.detached = true
			continue
		case "from", "to", "fwmark", "iif", "oif", "tos", "dsfield", "uidrange", "ipproto", "sport", "dport", "tun_id":
			s.fields = append(s.fields, [2]string{w[i], value})
		case "lookup":
			s.anyTables = s.anyTables || value == "[l3mdev-table]"
		case "suppress_prefixlength", "suppress_ifgroup":
			s.suppress = true
		case "goto":
			s.target, _ = strconv.Atoi(value)
		case "realms", "proto":
		case "nop", "blackhole", "unreachable", "prohibit", "[unresolved]":
			continue
		default:
			s.more = true
			continue
		}
		i++
	}
	return s
}

// takes reports whether the rule takes the packet that a table was asked for.
func (s selector) takes(r *evidence.RouteLookup) answer {
	a := yes
	for _, f := range s.fields {
		a = and(a, field(f[0], f[1], r))
	}
	if s.more || s.anyTables {
		a = and(a, unknown)
	}
	if s.invert {
		return a.not()
	}
	if s.detached {
		return no
	}
	return a
}

// field compares one selector; what the question to the table did not tell stays unknown.
func field(name, value string, r *evidence.RouteLookup) answer {
	switch name {
	case "from":
		return within(value, r.Source)
	case "to":
		return within(value, r.Dest)
	case "fwmark":
		mark, mask, masked := strings.Cut(value, "/")
		m, err := strconv.ParseUint(mark, 0, 32)
		k := uint64(0xffffffff)
		if masked && err == nil {
			k, err = strconv.ParseUint(mask, 0, 32)
		}
		if err != nil {
			return unknown
		}
		return said((uint64(r.Mark)^m)&k == 0)
	case "iif":
		if r.IIF == "" || r.IIF == "lo" {
			return said(value == "lo") // LOOPBACK_IFINDEX stands for packets of the host's own
		}
		return said(value == r.IIF)
	case "oif":
		if r.IIF != "" && r.IIF != "lo" {
			return no // only a socket of this host can have a device to leave by
		}
	}
	return unknown
}

func said(is bool) answer {
	if is {
		return yes
	}
	return no
}

// within compares an address with a prefix, as ip rule prints it. An IPv4
// lookup without a source has the address 0.0.0.0; IPv6 may choose one by the rule.
func within(value, addr string) answer {
	if value == "all" {
		return yes
	}
	if !strings.Contains(value, "/") {
		if strings.Contains(value, ":") {
			value += "/128"
		} else {
			value += "/32"
		}
	}
	p, err := netip.ParsePrefix(value)
	if err != nil {
		return unknown
	}
	if addr == "" {
		if p.Addr().Is6() {
			return unknown
		}
		addr = "0.0.0.0"
	}
	a, ok := parseAddr(addr)
	if !ok {
		return unknown
	}
	return said(p.Masked().Contains(a))
}

// ruleWalk finds which rules can have led to the last of the tables that were
// asked: every way through the rules that asks just these tables, in that order.
type ruleWalk struct {
	n     *evidence.Namespace
	rules []*evidence.IPRule // of one family, by priority
	asked []string
	flow  *evidence.RouteLookup
	vrf   bool // an l3mdev rule is there: VRFs put their own device in a packet's place
	found []*evidence.IPRule
	seen  map[[2]int]bool // ways already tried: rule, tables asked before it
}

func (w *ruleWalk) from(rule, asked int) {
	for ; rule < len(w.rules); rule++ {
		if w.seen[[2]int{rule, asked}] {
			return
		}
		w.seen[[2]int{rule, asked}] = true
		r := w.rules[rule]
		s := parseIPRule(r)
		takes := s.takes(w.flow)
		if w.vrf && slices.ContainsFunc(s.fields, func(f [2]string) bool { return f[0] == "iif" || f[0] == "oif" }) {
			takes = unknown
		}
		if takes == no {
			continue
		}
		switch r.Action {
		case "lookup":
			if s.anyTables || r.Table == w.asked[asked] {
				if asked == len(w.asked)-1 {
					if !slices.Contains(w.found, r) {
						w.found = append(w.found, r)
					}
				} else {
					w.from(rule+1, asked+1)
				}
				if takes == yes {
					return
				}
			} else if takes == yes && w.exists(r.Table) {
				return // it would have been asked
			}
		case "goto":
			if to := slices.IndexFunc(w.rules, func(x *evidence.IPRule) bool { return x.Priority == s.target }); to > rule {
				w.from(to, asked)
				if takes == yes {
					return
				}
			}
		case "nop":
		default:
			if takes == yes {
				return // it would have ended the search
			}
		}
	}
}

// exists reports whether a table is known to be there: one that is not is passed over in silence.
func (w *ruleWalk) exists(table string) bool {
	family := 4
	if a, ok := parseAddr(w.flow.Dest); ok && a.Is6() {
		family = 6
	}
	return table == "main" || table == "local" || slices.Contains(w.asked, table) || w.n.Routes.Read() && tableExists(w.n, table, family)
}
