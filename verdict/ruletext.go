// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"regexp"
	"slices"
	"strings"
)

// ruleText is a rule as its tool prints it, without what its author is free to
// write: comments, log prefixes, search strings and, of iptables, the chain it stands in.
type ruleText struct {
	iptables bool
	words    string
}

// readRule takes the text of a rule of one of the three backends apart.
func readRule(backend, text string) ruleText {
	if !strings.HasPrefix(backend, "iptables") {
		// nft knows no escape within quotes; extensions of iptables are printed as xt target "REJECT"
		return ruleText{words: nftQuoted.ReplaceAllStringFunc(text, func(s string) string {
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
	return ruleText{iptables: true, words: strings.Join(words, " ")}
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

// oneWay reports whether the rule looks at what tells one way of an exchange from the other.
func (t ruleText) oneWay() bool { return oneWay.MatchString(t.words) }

var established = regexp.MustCompile(`\bestablished\b.*\baccept\b|ESTABLISHED.*-j ACCEPT`)

// letsReplies reports whether the rule lets established connections pass.
func (t ruleText) letsReplies() bool { return established.MatchString(t.words) }
