// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// RuleWords is an ip rule as it was typed, in the grammar of ip-rule(8). What was not typed is not set.
type RuleWords struct {
	ipRule
	typed map[string]bool // not, from, to, tos, action, table
}

type ruleReader struct {
	*words
	r RuleWords
}

// ParseRule reads the words of a rule, as they follow "ip rule add". family is
// 4, 6, or 0 to take it from the words. An error that the words deserve is a [*WordError].
func (n *Netns) ParseRule(family int, list []string) (RuleWords, error) {
	p := ruleReader{words: n.newWords(list)}
	p.r.typed = map[string]bool{}
	p.r.attrs = map[uint16]attribute{}
	switch family {
	case 4:
		p.r.family = unix.AF_INET
	case 6:
		p.r.family = unix.AF_INET6
	}
	if len(list) == 0 {
		return RuleWords{}, badWord("rule", "what packets, and which table? from PREFIX lookup TABLE")
	}
	for len(p.rest) > 0 {
		if err := p.word(p.next()); err != nil {
			return RuleWords{}, err
		}
	}
	if p.r.family == 0 {
		p.r.family = unix.AF_INET
	}
	return p.r, nil
}

// The keywords that a value follows.
var (
	ruleSelectors = []string{"from", "to", "fwmark", "iif", "dev", "oif", "uidrange", "ipproto", "sport", "dport", "tos", "dsfield", "tun_id"}
	ruleDecisions = []string{"pref", "preference", "priority", "order", "table", "lookup", "suppress_prefixlength", "sup_pl",
		"suppress_ifgroup", "sup_group", "goto", "proto", "protocol", "realms"}
)

func (p *ruleReader) word(keyword string) error {
	switch keyword {
	case "not":
		p.r.ruleFlags |= fibRuleInvert
		p.r.typed["not"] = true
		return nil
	case "l3mdev":
		p.r.set(nl.FRA_L3MDEV, []byte{1})
		return p.action(keyword, frActTable)
	case "nop":
		return p.action(keyword, frActNop)
	case "blackhole", "unreachable", "prohibit":
		return p.action(keyword, uint8(slices.Index(routeTypes[:], keyword)))
	}
	if !slices.Contains(ruleSelectors, keyword) && !slices.Contains(ruleDecisions, keyword) {
		return badWord(keyword, "not a word of an ip rule")
	}
	value, err := p.value(keyword)
	if err != nil {
		return err
	}
	if slices.Contains(ruleSelectors, keyword) {
		return p.selector(keyword, value)
	}
	return p.decision(keyword, value)
}

func (p *ruleReader) action(keyword string, action uint8) error {
	if p.r.typed["action"] {
		return badWord(keyword, "a rule has one action")
	}
	p.r.action, p.r.typed["action"] = action, true
	return nil
}

// put32 sets an attribute of 32 bits.
func (p *ruleReader) put32(kind uint16, n uint32) {
	p.r.set(kind, binary.NativeEndian.AppendUint32(nil, n))
}

// selector reads what a packet must be like.
func (p *ruleReader) selector(keyword, value string) (err error) {
	r := &p.r
	switch keyword {
	case "from":
		r.typed[keyword] = true
		return r.setPrefix(nl.FRA_SRC, &r.srcLen, value)
	case "to":
		r.typed[keyword] = true
		return r.setPrefix(nl.FRA_DST, &r.dstLen, value)
	case "fwmark":
		return p.mark(value)
	case "iif", "dev", "oif":
		if len(value) == 0 || len(value) >= unix.IFNAMSIZ || strings.ContainsAny(value, "/ ") {
			return badWord(value, "not the name of a device")
		}
		kind := uint16(nl.FRA_IIFNAME)
		if keyword == "oif" {
			kind = nl.FRA_OIFNAME
		}
		r.set(kind, append([]byte(value), 0))
	case "uidrange":
		first, last, err := span(value, 32)
		if err != nil {
			return err
		}
		r.set(nl.FRA_UID_RANGE, binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, first), last))
	case "sport", "dport":
		first, last, err := span(value, 16)
		if err != nil {
			return err
		}
		kind := uint16(nl.FRA_SPORT_RANGE)
		if keyword == "dport" {
			kind = nl.FRA_DPORT_RANGE
		}
		r.set(kind, binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, uint16(first)), uint16(last)))
	case "ipproto":
		n, err := named(value, "protocol", protocolNames, 8)
		if err != nil {
			return err
		}
		r.set(nl.FRA_IP_PROTO, []byte{uint8(n)})
	case "tos", "dsfield":
		r.typed["tos"] = true
		r.tos, err = p.tos(value)
	case "tun_id":
		n, err := strconv.ParseUint(value, 0, 64)
		if err != nil {
			return badWord(value, "not the number of a tunnel")
		}
		r.set(nl.FRA_TUN_ID, binary.BigEndian.AppendUint64(nil, n))
	}
	return err
}

// mark reads MARK[/MASK]. The kernel takes a missing mask to be all ones.
func (p *ruleReader) mark(value string) error {
	text, maskText, two := strings.Cut(value, "/")
	mark, err := number(text, 32)
	if err != nil {
		return err
	}
	mask := ^uint32(0)
	if two {
		if mask, err = number(maskText, 32); err != nil {
			return err
		}
	}
	if mark != 0 { // as the kernel tells it
		p.put32(nl.FRA_FWMARK, mark)
	}
	p.put32(nl.FRA_FWMASK, mask)
	return nil
}

// decision reads the place of the rule and what it does.
func (p *ruleReader) decision(keyword, value string) (err error) {
	var n uint32
	switch keyword {
	case "pref", "preference", "priority", "order":
		n, err = number(value, 32)
		p.put32(nl.FRA_PRIORITY, n)
	case "table", "lookup":
		p.r.typed["table"] = true
		if p.r.table, err = p.table(value); err == nil {
			err = p.action(keyword, frActTable)
		}
	case "suppress_prefixlength", "sup_pl":
		n, err = number(value, 31)
		p.put32(nl.FRA_SUPPRESS_PREFIXLEN, n)
	case "suppress_ifgroup", "sup_group":
		n, err = named(value, "group of devices", p.names.groups, 31)
		p.put32(nl.FRA_SUPPRESS_IFGROUP, n)
	case "goto":
		if n, err = number(value, 32); err == nil {
			p.put32(nl.FRA_GOTO, n)
			err = p.action(keyword, frActGoto)
		}
	case "proto", "protocol":
		var id uint8
		id, err = p.protocol(value)
		p.r.set(nl.FRA_PROTOCOL, []byte{id})
	case "realms":
		n, err = p.realms(value)
		p.put32(nl.FRA_FLOW, n)
	}
	return err
}

// span reads N or N-M.
func span(word string, bits int) (first, last uint32, err error) {
	from, to, two := strings.Cut(word, "-")
	if first, err = number(from, bits); err != nil {
		return 0, 0, err
	}
	if last = first; two {
		if last, err = number(to, bits); err != nil {
			return 0, 0, err
		}
	}
	if last < first {
		return 0, 0, badWord(word, "ends before it begins")
	}
	return first, last, nil
}
