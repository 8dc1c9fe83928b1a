// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
)

// nftReader reads the words of a rule of nft from left to right.
type nftReader struct {
	p     *packet
	words []string
	r     reading
	// lost: an expression was met that is not known. What looks like a comparison after it may be a part of it.
	lost bool
}

// readNFT reads a rule as "nft list" prints it. Whatever is not known here may match.
func (p *packet) readNFT(words []string) reading {
	n := nftReader{p: p, words: words, r: reading{fits: isMet}}
	for len(n.words) > 0 {
		if n.verdict() {
			return n.r
		}
		if !n.statement() && !n.match() {
			n.lose()
			n.next()
		}
	}
	return n.r
}

func (n *nftReader) lose() {
	n.lost = true
	n.r.condition(mayMeet)
}

func (n *nftReader) condition(m met) {
	if !n.lost {
		n.r.condition(m)
	}
}

// starts reports whether the next words are these, and takes them.
func (n *nftReader) starts(words ...string) bool {
	if len(n.words) < len(words) || !slices.Equal(n.words[:len(words)], words) {
		return false
	}
	n.words = n.words[len(words):]
	return true
}

func (n *nftReader) next() string {
	if len(n.words) == 0 {
		return ""
	}
	w := n.words[0]
	n.words = n.words[1:]
	return w
}

// verdict takes what ends a rule.
func (n *nftReader) verdict() bool {
	switch w := n.words[0]; w {
	case "accept", "drop", "return":
		n.r.does = w
	case "reject":
		n.r.does = "drop"
	case "jump", "goto":
		n.next()
		n.r.does, n.r.to = w, []string{strings.TrimPrefix(n.next(), `"`)}
	case "snat", "masquerade":
		n.r.does, n.r.snat = "accept", true
	case "dnat", "redirect":
		n.r.does, n.r.dnat = "accept", true
	case "queue", "tproxy", "synproxy", "fwd", "dup":
		n.r.does = "?"
	case "notrack":
		n.r.raw = true
	case "continue":
	default:
		return n.verdictMap()
	}
	return true
}

// verdictMap takes what a map decides: any of its verdicts, or none.
func (n *nftReader) verdictMap() bool {
	if !slices.Contains(n.words, "vmap") {
		return false
	}
	n.r.condition(mayMeet)
	n.r.does = "?"
	for i, w := range n.words[:len(n.words)-1] {
		if w == "jump" || w == "goto" {
			n.r.to = append(n.r.to, strings.Trim(n.words[i+1], `",`))
		}
	}
	return true
}

// statement takes what neither matches nor decides.
func (n *nftReader) statement() bool {
	switch {
	case n.starts("counter"):
		for n.starts("packets") || n.starts("bytes") {
			n.next()
		}
		if len(n.words) > 0 && n.words[0] == "name" {
			n.words = n.words[min(2, len(n.words)):]
		}
	case n.starts("comment"):
		n.next()
	case n.starts("log"):
		for n.starts("prefix") || n.starts("level") || n.starts("group") || n.starts("flags") || n.starts("snaplen") || n.starts("queue-threshold") {
			n.next()
		}
	default:
		return false
	}
	return true
}

// match takes a comparison.
func (n *nftReader) match() bool {
	p := n.p
	// What is compared is compared in packets of that protocol only, whatever the operator.
	switch n.words[0] {
	case "ip", "ip6":
		if p.dest.IsValid() && p.dest.Is4() != (n.words[0] == "ip") {
			n.condition(notMet)
		}
	case "tcp", "udp", "icmp":
		n.condition(p.isProtocol(n.words[0]))
	case "icmpv6":
		n.condition(p.isProtocol("ipv6-icmp"))
	}
	switch {
	case n.starts("ip", "saddr"), n.starts("ip6", "saddr"):
		n.compare(func(s string) met { return p.address(s, true) })
	case n.starts("ip", "daddr"), n.starts("ip6", "daddr"):
		n.compare(func(s string) met { return p.address(s, false) })
	case n.starts("tcp", "dport"), n.starts("udp", "dport"), n.starts("th", "dport"):
		n.compare(func(s string) met { return p.port(s, false) })
	case n.starts("tcp", "sport"), n.starts("udp", "sport"), n.starts("th", "sport"):
		n.compare(func(s string) met { return p.port(s, true) })
	case n.starts("meta", "l4proto"), n.starts("ip", "protocol"), n.starts("ip6", "nexthdr"):
		n.compare(p.isProtocol)
	case n.starts("meta", "nfproto"):
		n.compare(func(s string) met {
			if !p.dest.IsValid() {
				return mayMeet
			}
			return yes(s == "ipv4" && p.dest.Is4() || s == "ipv6" && p.dest.Is6())
		})
	case n.starts("iifname"), n.starts("iif"):
		n.compare(func(s string) met { return p.device(s, true) })
	case n.starts("oifname"), n.starts("oif"):
		n.compare(func(s string) met { return p.device(s, false) })
	case n.starts("ct", "state"):
		n.compare(p.state)
	default:
		return false
	}
	return true
}

// compare takes an operator and a value, a list or an anonymous set.
func (n *nftReader) compare(f func(string) met) {
	not := n.starts("!=")
	if n.starts("==") {
		not = false
	}
	var values []string
	switch w := n.next(); {
	case w == "{":
		for w := n.next(); w != "}" && w != ""; w = n.next() {
			if w = strings.Trim(w, `",`); w != "" {
				values = append(values, w)
			}
		}
	case w == "" || strings.ContainsAny(w[:1], "@<>&|^.$"):
		n.lose()
		return
	default:
		values = strings.Split(strings.Trim(w, `"`), ",")
	}
	if len(n.words) > 0 && slices.Contains([]string{"&", "|", "^", "<<", ">>", "map", ":", ".", "/"}, n.words[0]) {
		n.lose() // more than a plain comparison
		return
	}
	n.condition(anyOf(values, f).negated(not))
}
