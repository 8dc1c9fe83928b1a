// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Flags that x/sys does not have (include/uapi/linux/rtnetlink.h).
const (
	rtaNexthopID      = 30
	rtmFOffload       = 0x4000
	rtmFTrap          = 0x8000
	rtmFOffloadFailed = 0x20000000
	rtnhFTrap         = 0x40
	userHZ            = 100 // of every Linux architecture that Go has
)

// text words a route as "ip route show table ID" prints it (print_route in
// iproute2's ip/iproute.c), on one line and, unless p.tables is set, without the table.
func (p routePrinter) text(r route) string {
	var w []string
	add := func(words ...string) { w = append(w, words...) }
	has := func(kind uint16) bool { _, ok := r.attrs[kind]; return ok }
	if r.kind != unix.RTN_UNICAST {
		add(routeType(r.kind))
	}
	add(r.prefix(unix.RTA_DST, r.dstLen, "default"))
	if src := r.prefix(unix.RTA_SRC, r.srcLen, ""); src != "" {
		add("from", src)
	}
	if has(rtaNexthopID) {
		add("nhid", strconv.FormatUint(uint64(r.attrs[rtaNexthopID].u32()), 10))
	}
	if a := r.addr(unix.RTA_NEWDST); a.IsValid() {
		add("as to", a.String())
	}
	if has(unix.RTA_ENCAP) {
		add(encapText(r.attrs[unix.RTA_ENCAP_TYPE].u16()))
	}
	if r.tos != 0 {
		add("tos", p.words.dsfield(r.tos))
	}
	add(viaText(r.attrs)...)
	if has(unix.RTA_OIF) {
		add("dev", p.device(int(r.attrs[unix.RTA_OIF].u32())))
	}
	if p.tables && r.table != unix.RT_TABLE_MAIN {
		add("table", p.words.table(r.table))
	}
	if r.flags&unix.RTM_F_CLONED == 0 {
		if r.protocol != unix.RTPROT_BOOT {
			add("proto", p.words.protocol(r.protocol))
		}
		if r.scope != unix.RT_SCOPE_UNIVERSE {
			add("scope", p.words.scope(r.scope))
		}
	}
	if a := r.addr(unix.RTA_PREFSRC); a.IsValid() {
		add("src", a.String())
	}
	if has(unix.RTA_PRIORITY) {
		add("metric", strconv.FormatUint(uint64(r.attrs[unix.RTA_PRIORITY].u32()), 10))
	}
	if flags := routeFlags(r.flags); flags != "" {
		add(flags)
	}
	return strings.Join(append(w, p.tail(r)...), " ")
}

// tail words what ip prints after the flags.
func (p routePrinter) tail(r route) []string {
	var w []string
	if mark := r.attrs[unix.RTA_MARK].u32(); mark >= 16 {
		w = append(w, fmt.Sprintf("mark 0x%x", mark))
	} else if mark != 0 {
		w = append(w, fmt.Sprintf("mark %d", mark))
	}
	if flow, ok := r.attrs[unix.RTA_FLOW]; ok {
		w = append(w, p.words.realmPair(flow.u32()))
	}
	if info := r.attrs[unix.RTA_CACHEINFO].value; r.family == unix.AF_INET6 && len(info) >= 16 {
		// struct rta_cacheinfo: clntref, lastuse, expires, error
		if expires := int32(binary.NativeEndian.Uint32(info[8:])); expires != 0 {
			w = append(w, fmt.Sprintf("expires %dsec", expires/userHZ))
		}
		if errno := int32(binary.NativeEndian.Uint32(info[12:])); errno != 0 {
			w = append(w, fmt.Sprintf("error %d", errno))
		}
	}
	w = append(w, metricsText(r.attrs[unix.RTA_METRICS].value)...)
	if pref, ok := r.attrs[unix.RTA_PREF]; ok {
		w = append(w, "pref", nameOr(map[uint32]string{0: "medium", 1: "high", 3: "low"}, uint32(pref.u8()), "%d"))
	}
	if ttl, ok := r.attrs[unix.RTA_TTL_PROPAGATE]; ok {
		w = append(w, "ttl-propagate", map[bool]string{true: "enabled", false: "disabled"}[ttl.u8() != 0])
	}
	return append(w, p.nexthops(r.attrs[unix.RTA_MULTIPATH].value)...)
}

// nexthops words RTA_MULTIPATH.
func (p routePrinter) nexthops(b []byte) []string {
	var w []string
	for raw := range rawHops(b) {
		attrs := hopAttributes(raw)
		w = append(w, "nexthop")
		if _, ok := attrs[unix.RTA_ENCAP]; ok {
			w = append(w, encapText(attrs[unix.RTA_ENCAP_TYPE].u16()))
		}
		w = append(w, viaText(attrs)...)
		if flow, ok := attrs[unix.RTA_FLOW]; ok {
			w = append(w, p.words.realmPair(flow.u32()))
		}
		w = append(w, "dev", p.device(int(int32(binary.NativeEndian.Uint32(raw[4:])))), "weight", strconv.Itoa(int(raw[3])+1))
		if flags := routeFlags(uint32(raw[2])); flags != "" {
			w = append(w, flags)
		}
	}
	return w
}

func viaText(attrs map[uint16]attribute) []string {
	if a, ok := netip.AddrFromSlice(attrs[unix.RTA_GATEWAY].value); ok {
		return []string{"via", a.String()}
	}
	if v := attrs[unix.RTA_VIA].value; len(v) > 2 {
		if a, ok := netip.AddrFromSlice(v[2:]); ok {
			return []string{"via", map[bool]string{true: "inet", false: "inet6"}[a.Is4()], a.String()}
		}
	}
	return nil
}

// encapText names a light-weight tunnel. Its parameters, which ip would print
// too, are left out: an ellipsis stands for them.
func encapText(kind uint16) string {
	names := map[uint32]string{1: "mpls", 2: "ip", 3: "ila", 4: "ip6", 5: "seg6", 6: "bpf", 7: "seg6local", 8: "rpl", 9: "ioam6", 10: "xfrm"}
	return "encap " + nameOr(names, uint32(kind), "%d") + " …"
}

// routeFlags names the RTNH_F_ and RTM_F_ flags in the order of ip route.
func routeFlags(flags uint32) string {
	var w []string
	for _, f := range []struct {
		bit  uint32
		name string
	}{
		{unix.RTNH_F_DEAD, "dead"}, {unix.RTNH_F_ONLINK, "onlink"}, {unix.RTNH_F_PERVASIVE, "pervasive"},
		{unix.RTNH_F_OFFLOAD, "offload"}, {rtnhFTrap, "trap"}, {unix.RTM_F_NOTIFY, "notify"},
		{unix.RTNH_F_LINKDOWN, "linkdown"}, {unix.RTNH_F_UNRESOLVED, "unresolved"},
		{rtmFOffload, "rt_offload"}, {rtmFTrap, "rt_trap"}, {rtmFOffloadFailed, "rt_offload_failed"},
	} {
		if flags&f.bit != 0 {
			w = append(w, f.name)
		}
	}
	return strings.Join(w, " ")
}

// metricNames are the words for the elements of RTA_METRICS.
var metricNames = [...]string{unix.RTAX_MTU: "mtu", unix.RTAX_WINDOW: "window", unix.RTAX_RTT: "rtt", unix.RTAX_RTTVAR: "rttvar",
	unix.RTAX_SSTHRESH: "ssthresh", unix.RTAX_CWND: "cwnd", unix.RTAX_ADVMSS: "advmss", unix.RTAX_REORDERING: "reordering",
	unix.RTAX_HOPLIMIT: "hoplimit", unix.RTAX_INITCWND: "initcwnd", unix.RTAX_FEATURES: "features",
	unix.RTAX_RTO_MIN: "rto_min", unix.RTAX_INITRWND: "initrwnd", unix.RTAX_QUICKACK: "quickack",
	unix.RTAX_CC_ALGO: "congctl", unix.RTAX_FASTOPEN_NO_COOKIE: "fastopen_no_cookie"}

// metricsText words RTA_METRICS as print_rta_metrics does.
func metricsText(b []byte) []string {
	byKind := [len(metricNames)]*attribute{}
	for _, a := range attributes(b) {
		if int(a.kind) < len(byKind) {
			byKind[a.kind] = &a
		}
	}
	var locked uint32
	if a := byKind[unix.RTAX_LOCK]; a != nil {
		locked = a.u32()
	}
	var w []string
	for kind := unix.RTAX_MTU; kind < len(metricNames); kind++ {
		a := byKind[kind]
		if a == nil || kind == unix.RTAX_HOPLIMIT && a.u32() == ^uint32(0) {
			continue
		}
		w = append(w, metricNames[kind])
		if locked&(1<<kind) != 0 {
			w = append(w, "lock")
		}
		w = append(w, metricValue(kind, *a))
	}
	return w
}

func metricValue(kind int, a attribute) string {
	value := a.u32()
	switch kind {
	case unix.RTAX_CC_ALGO:
		return a.text()
	case unix.RTAX_FEATURES:
		if value == unix.RTAX_FEATURE_ECN {
			return "ecn"
		}
		return fmt.Sprintf("0x%x", value)
	case unix.RTAX_RTT:
		value /= 8
	case unix.RTAX_RTTVAR:
		value /= 4
	case unix.RTAX_RTO_MIN:
	default:
		return strconv.FormatUint(uint64(value), 10)
	}
	if value >= 1000 {
		return fmt.Sprintf("%gs", float64(value)/1000)
	}
	return fmt.Sprintf("%dms", value)
}
