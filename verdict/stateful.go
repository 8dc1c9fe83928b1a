// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// use is when an expression that keeps state changes it.
type use int

const (
	always  use = iota // whenever it is evaluated: a quota, a count of connections, a round robin
	under              // while it is below its limit, and then it matches
	inverse            // while it is below its limit, and then it does not match
	acts               // an action: it is done when all before it has matched
	perhaps            // that depends on state which is not known
)

// keeper is an expression that keeps state, in the words of nft or iptables.
type keeper struct {
	did    string // what the probe has done with it
	what   string // its own words
	before string // of the rule, in front of it
	after  string
	use    use
}

// keepers tell the expressions apart. The first that fits a place counts. Whether a limit
// takes a token is told by nft_limit_eval, limit_mt and hashlimit_mt; that
// nft's quota and a count of connections always count, by nft_quota_do_eval and nft_connlimit_do_eval.
var keepers = []struct {
	text *regexp.Regexp
	use  use
	did  string
}{
	{regexp.MustCompile(`(add|update) @\S+ \{[^}]*\}`), acts, "left an entry by"},
	{regexp.MustCompile(`limit rate over \S+( \S*bytes/\S+)?( burst \d+ \w+)?`), inverse, "taken a token of"},
	{regexp.MustCompile(`limit rate \S+( \S*bytes/\S+)?( burst \d+ \w+)?`), under, "taken a token of"},
	{regexp.MustCompile(`limit name \S+`), perhaps, "taken a token of"},
	{regexp.MustCompile(`quota name \S+`), always, "been counted against"},
	{regexp.MustCompile(`quota (over |until )?\d+ \w*bytes`), always, "been counted against"},
	{regexp.MustCompile(`ct count (over )?\d+`), always, "been counted by"},
	{regexp.MustCompile(`numgen inc mod \d+( offset \d+)?`), acts, "taken a turn of"},
	{regexp.MustCompile(`counter name \S+`), acts, "been counted by"},
	{regexp.MustCompile(`-m limit --limit \S+( --limit-burst \d+)?`), under, "taken a token of"},
	{regexp.MustCompile(`-m hashlimit --hashlimit-upto \S+( --hashlimit-\S+ \S+)*`), under, "taken a token of"},
	{regexp.MustCompile(`-m hashlimit --hashlimit-above \S+( --hashlimit-\S+ \S+)*`), inverse, "taken a token of"},
	{regexp.MustCompile(`-m recent --set( --name \S+)?( --mask \S+)?( --r\w+)?`), acts, "been recorded by"},
	{regexp.MustCompile(`-m recent --(update|remove)( --\S+ [^-\s]\S*)*( --name \S+)?( --mask \S+)?( --r\w+)?`), perhaps, "been recorded by"},
	{regexp.MustCompile(`-m connlimit( --connlimit-\S+( [^-\s]\S*)?)*`), always, "been counted by"},
	{regexp.MustCompile(`-m quota --quota \d+`), under, "been counted against"},
	{regexp.MustCompile(`-m statistic --mode nth( --\S+ \d+)*`), always, "taken a turn of"},
	{regexp.MustCompile(`-j SET --(add|del)-set \S+ \S+( --exist)?( --timeout \d+)?`), acts, "left an entry by"},
}

// stateful lists the expressions of a rule that keep state.
func stateful(text string) (out []keeper) {
	bare := quotes.ReplaceAllStringFunc(text, func(s string) string { return strings.Repeat("_", len(s)) })
	for _, k := range keepers {
		for _, at := range k.text.FindAllStringIndex(bare, -1) {
			out = append(out, keeper{k.did, text[at[0]:at[1]], strings.TrimSpace(text[:at[0]]), strings.TrimSpace(text[at[1]:]), k.use})
			bare = bare[:at[0]] + strings.Repeat("_", at[1]-at[0]) + bare[at[1]:]
		}
	}
	return out
}

// quotes are comments and log prefixes, in which anything may stand; names of objects and devices are kept.
var quotes = regexp.MustCompile(`(--comment|--log-prefix|--nflog-prefix) ("(\\.|[^"\\])*"|\S+)|(comment|prefix) "(\\.|[^"\\])*"`)

// used reports whether a packet that met the rule changed the state.
func (k keeper) used(matched bool, p *evidence.Packet) answer {
	if matched {
		switch k.use {
		case inverse:
			return no // it was above its limit
		case perhaps:
			return unknown
		}
		return yes
	}
	reached := holds(k.before, p)
	last := !condition.MatchString(k.after)
	switch {
	case reached == no:
		return no
	case k.use == under && last:
		return no // it was above its limit, so it took nothing
	case reached == yes && (k.use == always || k.use == inverse && last):
		return yes
	}
	return unknown
}

// condition finds in what follows an expression whether it can still fail the rule.
var condition = regexp.MustCompile(`\b(ip|ip6|tcp|udp|th|meta|ct|iif|oif|iifname|oifname|ether|icmp|icmpv6|fib|socket|limit|quota|mark)\b|-m \w+ --|-p |@`)

// simple is a match of nft or iptables that the packet's headers decide.
var simple = regexp.MustCompile(`^(?:(tcp|udp|th) (dport|sport) (!= )?(\{[^}]*\}|\S+)|(ip6?) (saddr|daddr) (!= )?(\{[^}]*\}|\S+)|(counter(?: packets \d+ bytes \d+)?)` +
	`|-p (\S+)|(-m (?:tcp|udp|comment --comment (?:"[^"]*"|\S+)))|(!)? ?--(dport|sport|dports|sports) (\S+)|(!)? ?(-[sd]) (\S+)|-A \S+)\s*`)

// holds reports whether the beginning of a rule matches a packet.
func holds(text string, p *evidence.Packet) answer {
	all := yes
	for text = strings.TrimSpace(text); text != ""; {
		m := simple.FindStringSubmatch(text)
		if m == nil {
			return and(all, unknown)
		}
		text = text[len(m[0]):]
		switch {
		case p == nil:
			all = and(all, unknown)
		case m[2] != "":
			all = and(all, and(proto(m[1], p), flip(port(m[2] == "sport", m[4], p), m[3])))
		case m[6] != "":
			all = and(all, flip(address(m[6] == "saddr", m[8], p), m[7]))
		case m[10] != "":
			all = and(all, proto(m[10], p))
		case m[13] != "":
			all = and(all, flip(port(strings.HasPrefix(m[13], "s"), strings.ReplaceAll(m[14], ":", "-"), p), m[12]))
		case m[16] != "":
			all = and(all, flip(address(m[16] == "-s", m[17], p), m[15]))
		}
		if all == no {
			return no
		}
	}
	return all
}

func flip(a answer, negation string) answer {
	if negation != "" {
		return a.not()
	}
	return a
}

func proto(name string, p *evidence.Packet) answer {
	switch name {
	case "th":
		return yes
	case "tcp", "udp", "icmp":
		return said(p.Protocol == name)
	}
	return unknown
}

// port compares one with a number, a range or a list of them.
func port(source bool, value string, p *evidence.Packet) answer {
	have := p.DPort
	if source {
		have = p.SPort
	}
	return anyOf(value, func(item string) answer {
		low, high, isRange := strings.Cut(item, "-")
		if !isRange {
			high = low
		}
		a, err1 := strconv.Atoi(low)
		b, err2 := strconv.Atoi(high)
		if err1 != nil || err2 != nil {
			return unknown
		}
		return said(a <= have && have <= b)
	})
}

func address(source bool, value string, p *evidence.Packet) answer {
	have := p.Dest
	if source {
		have = p.Source
	}
	return anyOf(value, func(item string) answer { return within(item, have) })
}

// anyOf applies a test to each element of a set, or to the one value.
func anyOf(value string, is func(string) answer) answer {
	a := no
	for _, item := range strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune("{}, ", r) }) {
		switch is(item) {
		case yes:
			return yes
		case unknown:
			a = unknown
		}
	}
	return a
}
