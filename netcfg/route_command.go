// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// command words a change of the route as a line for /bin/sh that calls ip:
// verb is add, append, prepend, replace or del. All of the route stands there,
// with numbers where a name may not be known to every ip. The error says what
// of the route ip has no words for.
func (p routePrinter) command(verb string, r route) (string, error) {
	w := []string{"ip", fmt.Sprintf("-%d", ipVersion(r.family)), "route", verb}
	add := func(words ...string) { w = append(w, words...) }
	num := func(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
	has := func(kind uint16) bool { _, ok := r.attrs[kind]; return ok }
	w = append(w, p.commandHead(r)...)
	if table := (RouteWords{route: r}).inTable(); table != r.table || r.table != unix.RT_TABLE_MAIN {
		add("table", tableNumber(r.table))
	}
	if r.protocol != unix.RTPROT_BOOT || verb == "del" {
		add("proto", nameOr(map[uint32]string{2: "kernel", 3: "boot", 4: "static"}, uint32(r.protocol), "%d"))
	}
	if r.family == unix.AF_INET && (verb == "del" || (RouteWords{route: r}).inScope() != r.scope) {
		add("scope", nameOr(map[uint32]string{0: "global", 253: "link", 254: "host"}, uint32(r.scope), "%d"))
	}
	if a := r.addr(unix.RTA_PREFSRC); a.IsValid() {
		add("src", a.String())
	}
	if has(unix.RTA_PRIORITY) {
		add("metric", num(r.metric()))
	}
	if flags := routeFlags(r.flags & routeSetFlags); flags != "" {
		add(flags)
	}
	tail, err := p.commandTail(r)
	if err != nil {
		return "", fmt.Errorf("%s: %w", p.text(r), err)
	}
	return strings.Join(append(w, tail...), " "), nil
}

// commandHead words what stands before the table of a route.
func (p routePrinter) commandHead(r route) (w []string) {
	add := func(words ...string) { w = append(w, words...) }
	if r.kind != unix.RTN_UNICAST {
		add(routeType(r.kind))
	}
	add(r.prefix(unix.RTA_DST, r.dstLen, "default"))
	if src := r.prefix(unix.RTA_SRC, r.srcLen, ""); src != "" {
		add("from", src)
	}
	if r.tos != 0 {
		add("tos", fmt.Sprintf("0x%02x", r.tos))
	}
	if id, ok := r.attrs[rtaNexthopID]; ok {
		add("nhid", strconv.FormatUint(uint64(id.u32()), 10))
	} else {
		add(viaText(r.attrs)...)
		if oif, ok := r.attrs[unix.RTA_OIF]; ok {
			add("dev", quote(p.device(int(oif.u32()))))
		}
	}
	return w
}

// commandTail words what stands behind the flags of a route.
func (p routePrinter) commandTail(r route) (w []string, err error) {
	for kind, what := range map[uint16]string{unix.RTA_ENCAP: "its encapsulation", unix.RTA_NEWDST: "its new destination",
		unix.RTA_TTL_PROPAGATE: "how it propagates the TTL"} {
		if _, ok := r.attrs[kind]; ok {
			return nil, fmt.Errorf("%s could not be restored", what)
		}
	}
	if flow, ok := r.attrs[unix.RTA_FLOW]; ok {
		w = append(w, "realms", realmNumbers(flow.u32()))
	}
	if expires, ok := r.attrs[unix.RTA_EXPIRES]; ok {
		w = append(w, "expires", strconv.FormatUint(uint64(expires.u32()), 10))
	}
	metrics, err := metricWords(r.attrs[unix.RTA_METRICS].value)
	if err != nil {
		return nil, err
	}
	w = append(w, metrics...)
	if pref := r.attrs[unix.RTA_PREF].u8(); pref != 0 {
		w = append(w, "pref", nameOr(map[uint32]string{1: "high", 3: "low"}, uint32(pref), "%d"))
	}
	if _, byID := r.attrs[rtaNexthopID]; byID {
		return w, nil
	}
	hops, err := p.hopWords(r.attrs[unix.RTA_MULTIPATH].value)
	return append(w, hops...), err
}

// metricWords words RTA_METRICS for ip to read: values as the kernel has them.
func metricWords(b []byte) ([]string, error) {
	var w []string
	var locked uint32
	list := attributes(b)
	for _, a := range list {
		if a.kind == unix.RTAX_LOCK {
			locked = a.u32()
		}
	}
	for _, a := range list {
		kind := int(a.kind)
		lock := locked&(1<<kind) != 0
		switch {
		case kind == unix.RTAX_LOCK:
			continue
		case kind >= len(metricNames) || metricNames[kind] == "",
			lock && 1<<kind&lockable == 0 && kind != unix.RTAX_RTO_MIN, !lock && kind == unix.RTAX_RTO_MIN,
			kind == unix.RTAX_FEATURES && a.u32() != unix.RTAX_FEATURE_ECN:
			return nil, fmt.Errorf("its metric number %d could not be restored", kind)
		}
		w = append(w, metricNames[kind])
		if lock && kind != unix.RTAX_RTO_MIN {
			w = append(w, "lock")
		}
		switch kind {
		case unix.RTAX_CC_ALGO:
			w = append(w, quote(a.text()))
		case unix.RTAX_FEATURES:
			w = append(w, "ecn")
		default:
			w = append(w, strconv.FormatUint(uint64(a.u32()), 10))
		}
	}
	return w, nil
}

// hopWords words RTA_MULTIPATH for ip to read.
func (p routePrinter) hopWords(b []byte) ([]string, error) {
	var w []string
	for raw := range rawHops(b) {
		attrs := hopAttributes(raw)
		if _, ok := attrs[unix.RTA_ENCAP]; ok {
			return nil, fmt.Errorf("the encapsulation of its next hops could not be restored")
		}
		w = append(append(w, "nexthop"), viaText(attrs)...)
		if index := int(binary.NativeEndian.Uint32(raw[4:])); index != 0 {
			w = append(w, "dev", quote(p.device(index)))
		}
		w = append(w, "weight", strconv.Itoa(int(raw[3])+1))
		if flow, ok := attrs[unix.RTA_FLOW]; ok {
			w = append(w, "realms", realmNumbers(flow.u32()))
		}
		if flags := routeFlags(uint32(raw[2]) & routeSetFlags); flags != "" {
			w = append(w, flags)
		}
	}
	return w, nil
}

func tableNumber(id uint32) string {
	return nameOr(map[uint32]string{253: "default", 254: "main", 255: "local"}, id, "%d")
}

func realmNumbers(flow uint32) string {
	if from := flow >> 16; from != 0 {
		return fmt.Sprintf("%d/%d", from, flow&0xffff)
	}
	return strconv.FormatUint(uint64(flow), 10)
}

// command words a change of the rule as a line for /bin/sh that calls ip: verb is add or del.
func (r ipRule) command(verb string) (string, error) {
	numbers := &routeNames{tables: map[uint32]string{253: "default", 254: "main", 255: "local"}, protocols: map[uint32]string{4: "static"}}
	if r.selectsMore() {
		return "", fmt.Errorf("%s: a selector of it could not be restored", r.text(numbers))
	}
	var w []string
	if r.ruleFlags&fibRuleInvert != 0 {
		w = append(w, "not")
	}
	w = append(w, "from", r.prefix(nl.FRA_SRC, r.srcLen, "all"))
	if to := r.prefix(nl.FRA_DST, r.dstLen, ""); to != "" {
		w = append(w, "to", to)
	}
	shown := r
	shown.ruleFlags &= fibRuleInvert // states such as [detached] are nobody's to set
	for _, word := range strings.Fields(strings.Join(append(shown.selectors(numbers), shown.decision(numbers)...), " ")) {
		w = append(w, quote(word))
	}
	line := strings.Join(w, " ")
	line = strings.Replace(line, "lookup '[l3mdev-table]'", "l3mdev", 1)
	if a, ok := r.attrs[nl.FRA_PROTOCOL]; ok && a.u8() != unix.RTPROT_UNSPEC {
		line += fmt.Sprintf(" protocol %d", a.u8())
	}
	return fmt.Sprintf("ip -%d rule %s pref %d %s", ipVersion(r.family), verb, r.priority(), line), nil
}

// quote makes one word of a line for /bin/sh. Names of devices may hold anything but blanks and slashes.
func quote(word string) string {
	if word != "" && strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:@%+,-") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
