// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// traceBytes makes the payload of a trace message.
func traceBytes(family uint8, attributes ...[]byte) []byte {
	b := []byte{family, 0, 0, 0}
	for _, a := range attributes {
		b = append(b, a...)
	}
	return b
}

func TestParseTrace(t *testing.T) {
	jump := int32(-3)
	verdict := attrString(attrU32(nil, unix.NFTA_VERDICT_CODE, uint32(jump)), unix.NFTA_VERDICT_CHAIN, "services")
	m, err := parseTrace(traceBytes(pfInet,
		attrString(nil, unix.NFTA_TRACE_TABLE, "fw"), attrString(nil, unix.NFTA_TRACE_CHAIN, "input"),
		attr(nil, unix.NFTA_TRACE_RULE_HANDLE, binary.BigEndian.AppendUint64(nil, 7)),
		attrU32(nil, unix.NFTA_TRACE_TYPE, traceTypeRule), attrNest(nil, unix.NFTA_TRACE_VERDICT, verdict),
		attrU32(nil, unix.NFTA_TRACE_ID, 42)))
	if err != nil {
		t.Fatal(err)
	}
	want := evidence.RuleStep{Backend: "nft", Family: "inet", Table: "fw", Chain: "input", Handle: 7, Verdict: "jump", Target: "services", TraceID: 42}
	if d := cmp.Diff(want, m.step()); d != "" {
		t.Error(d)
	}
	m, _ = parseTrace(traceBytes(pfIPv4, attrString(nil, unix.NFTA_TRACE_TABLE, "filter"), attrString(nil, unix.NFTA_TRACE_CHAIN, "INPUT"),
		attrU32(nil, unix.NFTA_TRACE_TYPE, traceTypePolicy), attrU32(nil, unix.NFTA_TRACE_POLICY, 0)))
	want = evidence.RuleStep{Backend: "nft", Family: "ip", Table: "filter", Chain: "INPUT", Policy: true, Verdict: "drop"}
	if d := cmp.Diff(want, m.step()); d != "" {
		t.Error(d)
	}
}

func TestVerdictName(t *testing.T) {
	for v, want := range map[int32]string{
		-1: "continue", -2: "continue", -3: "jump", -4: "goto", -5: "return", 0: "drop", 1: "accept", 2: "stolen",
		3: "queue", 5<<16 | 3: "queue", 0x10002: "stolen",
	} {
		if got := verdictName(v); got != want {
			t.Errorf("%#x: %s, want %s", v, got, want)
		}
	}
}

// A packet is ours by its sequence numbers alone; a trace of somebody else's packet is not.
func TestTraceDirection(t *testing.T) {
	ip := make([]byte, 20)
	ip[0], ip[9] = 0x45, unix.IPPROTO_TCP
	tcp := func(seq, ack uint32, flags byte) []byte {
		b := make([]byte, 20)
		binary.BigEndian.PutUint32(b[4:], seq)
		binary.BigEndian.PutUint32(b[8:], ack)
		b[13] = flags
		return b
	}
	r := ruleTrace{key: Key{Protocol: unix.IPPROTO_TCP, ISN: 1000}, walks: map[uint32]walk{}, copies: map[copyKey]uint32{}}
	for i, c := range []struct {
		want string
		th   []byte
	}{
		{evidence.Forward, tcp(1000, 0, 2)},
		{evidence.Forward, tcp(1001, 77, 0x10)},
		{evidence.Reply, tcp(5_000_000, 1001, 0x12)},
		{evidence.Reply, tcp(0, 1001, 0x14)},
		{"", tcp(5_000_000, 1001, 2)}, // the field means nothing without ACK
		{"", tcp(999, 0, 2)},
		{"", tcp(1000+traceWindow+1, 0, 2)},
	} {
		m := traceMessage{id: uint32(i), network: ip, transport: c.th}
		w, ours := r.follow(&m)
		if w.direction != c.want || ours != (c.want != "") {
			t.Errorf("packet %d: %q, want %q", i, w.direction, c.want)
		}
		later := traceMessage{id: uint32(i)} // later steps carry no headers
		if got, _ := r.follow(&later); got != w {
			t.Errorf("packet %d, later step: %+v, want %+v", i, got, w)
		}
	}
}

// The kernel's trace id stays when another segment comes in the same buffer,
// and changes when one copy is walked twice on the loopback device.
func TestTraceCopies(t *testing.T) {
	packet := func(ipID uint16, seq uint32, flags byte) traceMessage {
		ip, th := make([]byte, 20), make([]byte, 20)
		ip[0], ip[9] = 0x45, unix.IPPROTO_TCP
		binary.BigEndian.PutUint16(ip[4:], ipID)
		binary.BigEndian.PutUint32(th[4:], seq)
		th[13] = flags
		return traceMessage{network: ip, transport: th}
	}
	translated := packet(500, 1000, 2)
	binary.BigEndian.PutUint16(translated.transport[2:], 8081) // another port by DNAT
	r := ruleTrace{key: Key{Protocol: unix.IPPROTO_TCP, ISN: 1000}, walks: map[uint32]walk{}, copies: map[copyKey]uint32{}}
	var got []uint32
	for _, x := range []struct {
		id uint32
		m  traceMessage
	}{{7, packet(500, 1000, 2)}, {7, packet(501, 1001, 0x18)}, {8, packet(501, 1001, 0x18)}, {9, packet(502, 1000, 2)}, {10, packet(0, 1000, 2)}, {11, packet(0, 1000, 2)}, {7, translated}} {
		x.m.id = x.id
		w, _ := r.follow(&x.m)
		got = append(got, w.number)
	}
	if d := cmp.Diff([]uint32{1, 2, 2, 3, 4, 5, 1}, got); d != "" {
		t.Error(d)
	}
}

func TestSymbolName(t *testing.T) {
	for in, want := range map[string]string{
		"tcp_v4_rcv\x00junk":                       "tcp_v4_rcv",
		"nft_do_chain [nf_tables]\x00":             "nft_do_chain",
		"ip_rcv_core.isra.0\x00":                   "ip_rcv_core",
		"__netif_receive_skb_core.constprop.0\x00": "__netif_receive_skb_core",
		"": "",
	} {
		if got := symbolName([]byte(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzParseTrace(f *testing.F) {
	f.Add(traceBytes(pfInet, attrString(nil, unix.NFTA_TRACE_TABLE, "fw"), attrU32(nil, unix.NFTA_TRACE_TYPE, 3)))
	f.Add([]byte{1, 0, 0, 0, 3, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := ruleTrace{key: Key{Protocol: unix.IPPROTO_TCP, ISN: 1000}, walks: map[uint32]walk{}, copies: map[copyKey]uint32{}}
		for _, m := range messages(b) {
			_ = m.ackErrno()
		}
		m, err := parseTrace(b)
		if err != nil {
			return
		}
		_ = m.step()
		_, _ = r.follow(&m)
	})
}

type noSymbols struct{}

func (noSymbols) names(a []uint64) ([]string, error) { return make([]string, len(a)), nil }

func FuzzEvent(f *testing.F) {
	f.Add(make([]byte, sampleSize))
	f.Add([]byte(strings.Repeat("\xff", sampleSize)))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSample(b)
		if err != nil {
			return
		}
		d := decoder{drops: reasons{2: "NOT_SPECIFIED"}, symbols: noSymbols{}, netns: func(uint32) string { return "ns" }}
		_, _ = d.event(&s)
		_ = s.moved()
		_ = newNFHook(&s)
	})
}

// A chain that a jump led to is in the hook of its base chain, also after the
// return to that; a base chain that is not known, as those of nat, is in none.
func TestTraceHooks(t *testing.T) {
	r := ruleTrace{places: map[uint32]place{}, hooks: map[[3]string]string{{"inet", "fw", "in"}: evidence.Input, {"ip", "raw", "pre"}: evidence.Prerouting}}
	for i, c := range []struct {
		step evidence.RuleStep
		want string
	}{
		{evidence.RuleStep{Family: "ip", Table: "raw", Chain: "pre", Verdict: "accept"}, evidence.Prerouting},
		{evidence.RuleStep{Family: "ip", Table: "nat", Chain: "dnat", Verdict: "jump", Target: "web"}, ""},
		{evidence.RuleStep{Family: "ip", Table: "nat", Chain: "web", Verdict: "accept"}, ""},
		{evidence.RuleStep{Family: "inet", Table: "fw", Chain: "in", Verdict: "jump", Target: "a"}, evidence.Input},
		{evidence.RuleStep{Family: "inet", Table: "fw", Chain: "a", Verdict: "goto", Target: "b"}, evidence.Input},
		{evidence.RuleStep{Family: "inet", Table: "fw", Chain: "b", Verdict: "return"}, evidence.Input},
		{evidence.RuleStep{Family: "inet", Table: "fw", Chain: "in", Verdict: "drop", Policy: true}, evidence.Input},
	} {
		if got := r.hookOf(1, c.step); got != c.want {
			t.Errorf("step %d: %q, want %q", i, got, c.want)
		}
	}
}

// A copy keeps its number when a translation changes its addresses and ports,
// and another copy of the same segment has another.
func TestTraceFollowsTranslation(t *testing.T) {
	ip := func(id uint16) []byte {
		b := make([]byte, 20)
		b[0], b[9] = 0x45, unix.IPPROTO_TCP
		binary.BigEndian.PutUint16(b[4:], id)
		return b
	}
	syn := func(port uint16) []byte {
		b := make([]byte, 20)
		binary.BigEndian.PutUint16(b[2:], port)
		binary.BigEndian.PutUint32(b[4:], 1000)
		b[13] = 2
		return b
	}
	r := ruleTrace{key: Key{Protocol: unix.IPPROTO_TCP, ISN: 1000}, walks: map[uint32]walk{}, copies: map[copyKey]uint32{}}
	number := func(m traceMessage) uint32 { w, _ := r.follow(&m); return w.number }
	first := number(traceMessage{id: 7, network: ip(1), transport: syn(80)})
	if n := number(traceMessage{id: 7, network: ip(1), transport: syn(8081)}); n != first {
		t.Errorf("behind a translation it is copy %d, before it was %d", n, first)
	}
	if n := number(traceMessage{id: 7, network: ip(2), transport: syn(80)}); n == first {
		t.Error("the segment sent again is taken for the first one")
	}
}
