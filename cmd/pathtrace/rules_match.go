// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// met says whether a packet meets a chain or a rule.
type met int

const (
	notMet met = iota
	mayMeet
	isMet
)

func (m met) String() string { return [...]string{"no", "may", "yes"}[m] }

// packet is what is known of one that is about to be sent: the first of a connection
// that nobody expects. What is not known is zero.
type packet struct {
	protocol      string // tcp, udp, icmp or ipv6-icmp
	source, dest  netip.Addr
	sport, dport  int
	iif, oif      string // "" where it has none
	inKnown       bool   // iif and oif are those of the hook
	stateUnknown  bool   // of conntrack, after a rule that may have it not tracked
	sourceUnknown bool   // after a rule that may translate it
	destUnknown   bool
}

// reading is what a rule's text says: whether the packet fits, and what becomes of it then.
type reading struct {
	fits met
	does string   // accept, drop, return, jump, goto, "" (goes on); other: not known
	to   []string // chains that it leads to
	snat bool     // it may translate the source
	dnat bool     // or the destination
	raw  bool     // it may exempt from conntrack
}

func (r *reading) condition(m met) { r.fits = min(r.fits, m) }

func yes(b bool) met {
	if b {
		return isMet
	}
	return notMet
}

// negated turns a condition round where "!" stands before it.
func (m met) negated(not bool) met {
	if not {
		return isMet - m
	}
	return m
}

func (p *packet) address(spec string, source bool) met {
	a, unknown := p.dest, p.destUnknown
	if source {
		a, unknown = p.source, p.sourceUnknown
	}
	if !a.IsValid() || unknown {
		return mayMeet
	}
	if prefix, err := netip.ParsePrefix(spec); err == nil {
		return yes(prefix.Contains(a))
	}
	if addr, err := netip.ParseAddr(spec); err == nil {
		return yes(addr == a)
	}
	return mayMeet
}

// port holds a number, or a range with - or : between its ends, against the packet's.
func (p *packet) port(spec string, source bool) met {
	n, unknown := p.dport, p.destUnknown
	if source {
		n, unknown = p.sport, p.sourceUnknown
	}
	if n == 0 || unknown {
		return mayMeet
	}
	first, last, isRange := strings.Cut(strings.ReplaceAll(spec, ":", "-"), "-")
	if !isRange {
		last = first
	}
	if isRange && first == "" {
		first = "0"
	}
	if isRange && last == "" {
		last = "65535"
	}
	a, err1 := strconv.Atoi(first)
	b, err2 := strconv.Atoi(last)
	if err1 != nil || err2 != nil {
		return mayMeet
	}
	return yes(a <= n && n <= b)
}

// device holds a name, in which a last + or * stands for any end, against the packet's.
func (p *packet) device(spec string, in bool) met {
	name := p.oif
	if in {
		name = p.iif
	}
	if !p.inKnown {
		return mayMeet
	}
	if head := strings.TrimRight(spec, "+*"); head != spec {
		return yes(name != "" && strings.HasPrefix(name, head))
	}
	return yes(name == spec)
}

func (p *packet) isProtocol(spec string) met {
	numbers := map[string]string{"6": "tcp", "17": "udp", "1": "icmp", "58": "ipv6-icmp", "icmpv6": "ipv6-icmp"}
	if name, ok := numbers[spec]; ok {
		spec = name
	}
	if spec == "all" || spec == "0" {
		return isMet
	}
	return yes(spec == p.protocol)
}

// state of conntrack: the packet is the first of its connection.
func (p *packet) state(name string) met {
	switch name = strings.ToLower(name); {
	case p.stateUnknown:
		return mayMeet
	case name == "new":
		return isMet
	case name == "established", name == "related", name == "invalid", name == "untracked":
		return notMet
	}
	return mayMeet // snat, dnat
}

// anyOf is the best of several choices.
func anyOf(list []string, f func(string) met) met {
	m := notMet
	for _, s := range list {
		m = max(m, f(s))
	}
	return m
}

// read reads a rule for the packet.
func (p *packet) read(backend, text string) reading {
	if text == "" {
		return reading{fits: mayMeet, does: "?"}
	}
	if backend == "nft" {
		return p.readNFT(tokens(text))
	}
	return p.readIPTables(tokens(text))
}

// tokens cuts a text into words; a word in quotes is one, and keeps its first quote.
func tokens(text string) []string {
	var out []string
	for text = strings.TrimLeft(text, " \t"); text != ""; text = strings.TrimLeft(text, " \t") {
		end := strings.IndexAny(text, " \t")
		if text[0] == '"' {
			end = 1
			for end < len(text) && text[end] != '"' {
				if text[end] == '\\' {
					end++
				}
				end++
			}
			end = min(end, len(text))
			out = append(out, text[:end])
			text = strings.TrimPrefix(text[end:], `"`)
			continue
		}
		if end < 0 {
			end = len(text)
		}
		out = append(out, text[:end])
		text = text[end:]
	}
	return out
}

// plainTargets of iptables go on with the next rule.
var plainTargets = []string{"LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "CLASSIFY", "TCPMSS", "TOS", "DSCP", "TTL", "HL", "CHECKSUM", "SET", "TRACE", "AUDIT"}

// readIPTables reads a line of iptables-save.
func (p *packet) readIPTables(words []string) reading {
	r := reading{fits: isMet}
	not := false
	value := func(i int) string {
		if i+1 < len(words) {
			return strings.TrimPrefix(words[i+1], `"`)
		}
		return ""
	}
	for i := 0; i < len(words); i++ {
		w := words[i]
		if w == "!" {
			not = true
			continue
		}
		v := value(i)
		i++
		switch w {
		case "-A", "-m", "--comment":
		case "-p":
			r.condition(p.isProtocol(v).negated(not))
		case "-s", "-d":
			r.condition(anyOf(strings.Split(v, ","), func(s string) met { return p.address(s, w == "-s") }).negated(not))
		case "-i", "-o":
			r.condition(p.device(v, w == "-i").negated(not))
		case "--dport", "--sport", "--dports", "--sports":
			source := strings.HasPrefix(w, "--s")
			r.condition(anyOf(strings.Split(v, ","), func(s string) met { return p.port(s, source) }).negated(not))
		case "--ctstate", "--state":
			r.condition(anyOf(strings.Split(v, ","), p.state).negated(not))
		case "-j", "-g":
			r.target(w, v)
			return r
		default:
			i-- // whether it takes a value is not known: a word that is none is not known either
			r.condition(mayMeet)
		}
		not = false
	}
	return r
}

func (r *reading) target(how, name string) {
	switch {
	case how == "-g":
		r.does, r.to = "goto", []string{name}
	case name == "ACCEPT", name == "DROP", name == "RETURN":
		r.does = strings.ToLower(name)
	case name == "REJECT":
		r.does = "drop"
	case slices.Contains(plainTargets, name):
	case name == "SNAT", name == "MASQUERADE":
		r.does, r.snat = "accept", true
	case name == "DNAT", name == "REDIRECT":
		r.does, r.dnat = "accept", true
	case name == "NETMAP":
		r.does, r.snat, r.dnat = "accept", true, true
	case name == "NOTRACK", name == "CT":
		r.raw = true
	case slices.Contains([]string{"NFQUEUE", "QUEUE", "TPROXY", "SYNPROXY", "TARPIT", "STEAL", "BPF", "CLUSTERIP"}, name):
		r.does = "?"
	default:
		r.does, r.to = "jump", []string{name} // or a target that is not known: then there is no such chain
	}
}
