// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"slices"
	"strings"
	"testing"

	"github.com/pathtrace/pathtrace/evidence"
)

// A fix is verified when the service answered with it, and did not again without it.
func TestCounterfactual(t *testing.T) {
	tried := func(cause, again string) *evidence.Counterfactual {
		return &evidence.Counterfactual{Cause: cause, Again: again, Certainty: "observed", Restored: true,
			Summary: "198.18.9.80:8080/tcp: about " + cause}
	}
	for name, test := range map[string]struct {
		fact     *evidence.Counterfactual
		verified bool
		proof    string
		unseen   string
	}{
		"not asked for":     {nil, false, "", ""},
		"healed":            {tried("reachable", "firewall-drop"), true, "with this rule skipped the service answers, and without it not", ""},
		"healed by itself":  {tried("reachable", "reachable"), false, "it was not the change that healed it", ""},
		"not probed again":  {tried("reachable", ""), false, "whether it would without the change by now was not", ""},
		"a second cause":    {tried("no-listener", ""), false, "behind it stands another cause (no-listener): about no-listener", ""},
		"not established":   {tried("unexplained", ""), false, "why is not established: about unexplained", ""},
		"not tried":         {&evidence.Counterfactual{Untried: "it was not confirmed"}, false, "", "no fix was tried: it was not confirmed"},
		"no such fix":       {&evidence.Counterfactual{Fix: 7, Cause: "reachable", Again: "firewall-drop"}, false, "", ""},
		"a negative number": {&evidence.Counterfactual{Fix: -1, Cause: "reachable", Again: "firewall-drop"}, false, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := evidence.Case{Target: evidence.Target{Address: "198.18.9.80", Port: 8080, Protocol: "tcp"}, Counterfactual: test.fact}
			v := Verdict{Cause: "firewall-drop", Where: Where{Rule: &Rule{Number: 3}}, Fixes: []Fix{{Summary: "let it pass", Netns: "web", Mark: "pathtrace-1234"}}}
			addCounterfactual(&c, &v)
			has := func(lines []string, part string) bool {
				return slices.ContainsFunc(lines, func(s string) bool { return strings.Contains(s, part) })
			}
			if v.Fixes[0].Verified != test.verified {
				t.Errorf("verified: %v", v.Fixes[0].Verified)
			}
			if test.proof == "" && len(v.Proof) > 0 || test.proof != "" && !has(v.Proof, test.proof) {
				t.Errorf("proof: %q", v.Proof)
			}
			if test.unseen == "" && len(v.Unseen) > 0 || test.unseen != "" && !has(v.Unseen, test.unseen) {
				t.Errorf("unseen: %q", v.Unseen)
			}
			if test.proof != "" && !has(v.Proof, "the configuration of web was read after that, and is the one of before") {
				t.Errorf("restored, and not said: %q", v.Proof)
			}
		})
	}
}

// Whatever is said to be tried does no more than to change a namespace's configuration in the kernel.
func TestFixesThatMayBeTried(t *testing.T) {
	tools := []string{"nft", "iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft", "ip", "bridge", "sysctl"}
	tryable := 0
	for _, one := range cases(t) {
		c, name := one.load(t), one.name
		for _, f := range Judge(c).Fixes {
			if f.Netns == "" {
				continue
			}
			tryable++
			n := c.Namespace(f.Netns)
			if n == nil || len(f.Undo) == 0 {
				t.Errorf("%s: %+v", name, f)
				continue
			}
			for _, line := range f.Commands {
				words := strings.Fields(strings.TrimPrefix(line, shell(n)))
				if len(words) == 0 || !slices.Contains(tools, words[0]) {
					t.Errorf("%s: %s", name, line)
				}
				if f.Mark != "" && !strings.Contains(line, f.Mark) {
					t.Errorf("%s: no mark in %s", name, line)
				}
			}
		}
	}
	if tryable == 0 {
		t.Error("none may be tried")
	}
}
