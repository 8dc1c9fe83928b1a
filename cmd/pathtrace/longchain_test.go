// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg"
	"github.com/pathtrace/pathtrace/tracer"
)

// functionBench is a bench with the family of hooks that PATHTRACE_HOOKS names, or the best.
func functionBench(t *testing.T) *bench {
	t.Helper()
	family := os.Getenv("PATHTRACE_HOOKS")
	if family == "" {
		family = tracer.Best(tracer.Survey())
	}
	if family == tracer.Tracepoint {
		t.Skip("no hooks on functions here")
	}
	n, err := netcfg.Open(ownNetns(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return newBench(t, n, family)
}

func onPort(port int, text, verdict string) genRule {
	return genRule{text, func(p datagram) bool { return p.port == port }, func(datagram) (string, string) { return verdict, "" }}
}

// The rule that decides is named also where 20,000 stand before it, and where it stands among them.
func TestLongChains(t *testing.T) {
	const rules = 20_000
	b := functionBench(t)
	for _, c := range []struct {
		name string
		make func() *ruleset
	}{
		{"nft", func() *ruleset {
			chain := &ruleChain{family: "inet", table: "t0", name: "base0", hook: evidence.Output}
			for i := range rules {
				port := 10_000 + i
				if i == rules/2 {
					port = firstPort + 1
				}
				chain.rules = append(chain.rules, onPort(port, fmt.Sprintf("udp dport %d accept", port), "accept"))
			}
			chain.rules = append(chain.rules, onPort(firstPort, fmt.Sprintf("udp dport %d drop", firstPort), "drop"))
			return &ruleset{chains: []*ruleChain{chain}}
		}},
		{"iptables-legacy", func() *ruleset {
			r := &ruleset{legacy: true}
			for priority, table := range []string{"raw", "mangle", "filter", "security"} {
				r.chains = append(r.chains, &ruleChain{family: "ip", table: table, name: evidence.Output, hook: evidence.Output, priority: priority})
				if table != "raw" {
					r.chains = append(r.chains, &ruleChain{family: "ip", table: table, name: evidence.Input, hook: evidence.Input, priority: priority})
				}
			}
			r.order()
			chain := r.named(&ruleChain{family: "ip", table: "filter"}, evidence.Output)
			for i := range rules {
				port := 10_000 + i
				if i == rules/2 {
					port = firstPort + 1
				}
				chain.rules = append(chain.rules, onPort(port, fmt.Sprintf("-p udp --dport %d -j ACCEPT", port), "accept"))
			}
			chain.rules = append(chain.rules, onPort(firstPort, fmt.Sprintf("-p udp --dport %d -j DROP", firstPort), "drop"))
			return r
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.make()
			b.load(r)
			for _, port := range []int{firstPort, firstPort + 1, firstPort + 2} {
				p := datagram{"127.0.0.1", port}
				if d := cmp.Diff(r.judge(p), b.send(r, p)); d != "" {
					t.Errorf("port %d (-judge +kernel):\n%s\nunseen: %s", port, d, b.unseen)
				}
			}
		})
	}
}

// A rule is named by the handle that it has when the packet meets it, whatever
// was inserted, replaced or deleted since the tracer was opened.
func TestRulesetChangedMeanwhile(t *testing.T) {
	b := functionBench(t)
	verdict := func() string {
		b.send(&ruleset{}, datagram{"127.0.0.1", firstPort})
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, r := range b.records {
			if s := r.Event.Rule; s != nil && s.Table == "t" && r.Event.Direction == evidence.Forward {
				return fmt.Sprintf("%s %d %s", s.Chain, s.Handle, s.Verdict)
			}
		}
		return fmt.Sprintf("nothing; unseen: %s", b.unseen)
	}
	b.tool("nft", "flush", "ruleset", "")
	for _, step := range []struct{ command, rule, verdict string }{
		{"add table ip t\nadd chain ip t c { type filter hook output priority 0; }\nadd rule ip t c udp dport 5000 drop\n", "udp dport 5000 drop", "drop"},
		{"insert rule ip t c udp dport 5000 accept\n", "udp dport 5000 accept", "accept"},
		{"replace rule ip t c handle 3 udp dport 5001 accept\n", "udp dport 5000 drop", "drop"},
		{"insert rule ip t c position 2 ip saddr 127.0.0.1 udp dport 5000 accept\n", "ip saddr 127.0.0.1 udp dport 5000 accept", "accept"},
		{"delete rule ip t c handle 2\n", "ip saddr 127.0.0.1 udp dport 5000 accept", "accept"},
		{"flush chain ip t c\n", "", "accept"},
	} {
		b.tool("nft", "-f", "/dev/stdin", step.command)
		handle := "0" // the policy
		if step.rule != "" {
			list := b.tool("nft", "-a", "list", "chain", "ip", "t", "c", "")
			m := regexp.MustCompile(`(?m)^\s*` + step.rule + ` # handle (\d+)$`).FindStringSubmatch(list)
			if m == nil {
				t.Fatalf("after %q: no rule %q in\n%s", step.command, step.rule, list)
			}
			handle = m[1]
		}
		if got, want := verdict(), fmt.Sprintf("c %s %s", handle, step.verdict); got != want {
			t.Errorf("after %q: %s, want %s", step.command, got, want)
		}
	}
}
