// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"regexp"
	"slices"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// ruleText is a rule as its tool prints it, without what its author is free to
// write: comments, log prefixes, search strings and, of iptables, the chain it stands in;
// and without one device as that of both arrival and departure, which holds both ways.
type ruleText struct {
	iptables bool
	words    string
}

// readRule takes the text of a rule of one of the three backends apart.
func readRule(backend, text string) ruleText {
	if !strings.HasPrefix(backend, "iptables") {
		// nft knows no escape within quotes; extensions of iptables are printed as xt target "REJECT"
		return ruleText{words: nftQuoted.ReplaceAllStringFunc(sameDevice(text), func(s string) string {
			if strings.HasPrefix(s, "xt ") {
				return strings.ReplaceAll(s, `"`, "")
			}
			return `""`
		})}
	}
	words := saveWord.FindAllString(text, -1)
	if len(words) > 1 && words[0] == "-A" {
		words = words[2:]
	}
	for i := range words {
		if slices.Contains(freeOptions, words[i]) && i+1 < len(words) {
			words[i+1] = `""`
		}
	}
	return ruleText{iptables: true, words: sameDevice(strings.Join(words, " "))}
}

var (
	nftQuoted = regexp.MustCompile(`(?:xt (?:target|match) )?"[^"]*"`)
	saveWord  = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|\S+`) // iptables-save escapes with a backslash
)

// freeOptions of iptables take any text.
var freeOptions = []string{
	"--comment", "--log-prefix", "--nflog-prefix", "--ulog-prefix", "--string", "--hex-string", "--name", "--hashlimit-name", "--helper", "--bytecode",
}

var (
	nftRejects = regexp.MustCompile(`(^|[\s:])reject($|[\s;,}])|\bxt target REJECT\b`)
	iptRejects = regexp.MustCompile(`-j REJECT($|\s)`)
	nftDrops   = regexp.MustCompile(`(^|[\s:])(drop|reject|queue|synproxy|tproxy)($|[\s;,}])`)
	iptDrops   = regexp.MustCompile(`-j (DROP|REJECT|NFQUEUE|QUEUE|TPROXY|SYNPROXY)($|\s)`)
	nftJumps   = regexp.MustCompile(`(?:^|[\s:])(?:jump|goto) ([^\s;,}]+)`)
	iptJumps   = regexp.MustCompile(`(?:^|\s)-[jg] (\S+)`)
)

func (t ruleText) pick(nft, iptables *regexp.Regexp) *regexp.Regexp {
	if t.iptables {
		return iptables
	}
	return nft
}

// rejects reports whether the rule answers the packet that it throws away.
func (t ruleText) rejects() bool { return t.pick(nftRejects, iptRejects).MatchString(t.words) }

// drops reports whether the rule can keep the packet from going on.
func (t ruleText) drops() bool { return t.pick(nftDrops, iptDrops).MatchString(t.words) }

var iptProxies = regexp.MustCompile(`-j TPROXY .*--on-port ([1-9]\d*)`)

// proxyPort is where the rule's TPROXY looks for a socket; "" when the rule of iptables has none.
// That of nftables lets a packet go on for which there is no socket.
func (t ruleText) proxyPort() string {
	if m := iptProxies.FindStringSubmatch(t.words); t.iptables && m != nil {
		return m[1]
	}
	return ""
}

// leadsTo is the chain, or the target of iptables, that the rule hands the packet to; "" for none.
func (t ruleText) leadsTo() string {
	if m := t.pick(nftJumps, iptJumps).FindStringSubmatch(t.words); m != nil {
		return m[1]
	}
	return ""
}

var leaving = regexp.MustCompile(`\b(return|RETURN|goto)\b|(^|\s)-g `)

// leaves reports whether the rule can lead away from its chain for good.
func (t ruleText) leaves() bool { return leaving.MatchString(t.words) }

var passing = regexp.MustCompile(`\b(limit|quota|meter|numgen|hashlimit|recent|statistic|connlimit|connbytes|ct count|add @|update @)\b|(^|\s)(add|update) @`)

// mayPass reports whether the rule's decision depends on what went before, so that the next packet may fare better.
func (t ruleText) mayPass() bool { return passing.MatchString(t.words) }

var oneWay = regexp.MustCompile(`dport|flags|--syn|saddr|daddr|\bnew\b|\bNEW\b|iif|oif|(^|\s)-[iosd] `)

// oneWay reports whether the rule looks at what tells one way of an exchange
// from the other. back is a packet of the other way, whose addresses and ports
// decide what they can; nil where it is not known.
func (t ruleText) oneWay(back *evidence.Packet) bool {
	words := t.words
	var open strings.Builder
	for words != "" {
		term := simple.FindString(words)
		if term == "" {
			term, _, _ = strings.Cut(words, " ")
			open.WriteString(term + " ")
		} else if a := holds(term, back); a == no {
			return true
		} else if a == unknown {
			open.WriteString(term)
		}
		words = strings.TrimLeft(words[len(term):], " ")
	}
	return oneWay.MatchString(open.String())
}

var devices = regexp.MustCompile(`(! )?-i (\S+) (! )?-o (\S+)|iif(?:name)? (!= )?(\S+) oif(?:name)? (!= )?(\S+)`)

// sameDevice leaves out that one device must be both that of arrival and that of departure.
func sameDevice(words string) string {
	return devices.ReplaceAllStringFunc(words, func(s string) string {
		if m := devices.FindStringSubmatch(s); m[1] == m[3] && m[2] == m[4] && m[5] == m[7] && m[6] == m[8] {
			return ""
		}
		return s
	})
}

var established = regexp.MustCompile(`\bestablished\b.*\baccept\b|ESTABLISHED.*-j ACCEPT`)

// letsReplies reports whether the rule lets established connections pass.
func (t ruleText) letsReplies() bool { return established.MatchString(t.words) }
