// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
)

// handTable makes a table from lines. "INPUT:" or "u:" begins a chain; a rule
// is its target, "" being "-", "goto u" a goto; the chain's end is added. A
// base chain (in capitals) ends with "policy ACCEPT" or "policy DROP". A
// number behind "=" is by how much the counter has moved.
func handTable(t *testing.T, text string) (*LegacyTable, func(int) uint64) {
	t.Helper()
	table := &LegacyTable{Family: 4, Name: "filter", HookEntry: map[string]int{}, Underflow: map[string]int{}}
	var moved []uint64
	starts := map[string]int{}
	chain, base, number := "", false, 0
	add := func(e LegacyEntry, m uint64) {
		e.Chain = chain
		table.Entries, moved = append(table.Entries, e), append(moved, m)
	}
	for _, line := range append(lines(text), "ERROR:") {
		rule, count, _ := strings.Cut(line, "=")
		m, _ := strconv.ParseUint(count, 10, 64)
		rule = strings.TrimSpace(rule)
		if name, ok := strings.CutSuffix(rule, ":"); ok {
			chain, base, number = name, strings.ToUpper(name) == name && name != "ERROR", 0
			if base {
				table.HookEntry[name] = len(moved)
			} else {
				add(LegacyEntry{Head: true, Jump: -1, Target: "ERROR"}, 0)
				starts[name] = len(moved)
			}
			continue
		}
		e := LegacyEntry{Jump: -1, Target: rule}
		switch word, rest, _ := strings.Cut(rule, " "); word {
		case "policy":
			e.Policy, e.Target, e.standard = true, rest, true
			table.Underflow[chain] = len(moved)
		case "end":
			e.End, e.Target, e.standard = true, "RETURN", true
		case "goto":
			e.Goto, e.Target = true, rest
		case "-":
			e.Target = ""
		}
		if !e.Policy && !e.End {
			number++
			e.Number = number
		}
		add(e, m)
	}
	for i := range table.Entries {
		e := &table.Entries[i]
		if to, ok := starts[e.Target]; ok && !e.Head {
			e.Jump, e.standard = to, true
		}
		switch e.Target {
		case "", "ACCEPT", "DROP", "QUEUE", "RETURN":
			e.standard = true
		}
	}
	return table, func(i int) uint64 { return moved[i] }
}

func stepText(steps []evidence.RuleStep) string {
	var list []string
	for _, s := range steps {
		place := strconv.Itoa(s.Number)
		if s.Policy {
			place = "policy"
		}
		list = append(list, strings.TrimSpace(fmt.Sprintf("%s/%s %s %s", s.Chain, place, s.Verdict, s.Target)))
	}
	return strings.Join(list, ", ")
}

func TestReplay(t *testing.T) {
	for _, c := range []struct{ name, table, want string }{
		{"first rule", "INPUT:\nDROP =1\nACCEPT\npolicy ACCEPT", "INPUT/1 drop DROP"},
		{"policy", "INPUT:\nDROP\npolicy ACCEPT =1", "INPUT/policy accept"},
		{"empty chain", "INPUT:\npolicy DROP =1", "INPUT/policy drop"},
		{"no target", "INPUT:\n- =1\nDROP =1\npolicy ACCEPT", "INPUT/1 continue, INPUT/2 drop DROP"},
		{"jump and come back", "INPUT:\nu =1\nDROP =1\npolicy ACCEPT\nu:\nACCEPT\nend =1", "INPUT/1 jump u, u/0 return, INPUT/2 drop DROP"},
		{"jump and stay", "INPUT:\nu =1\nDROP\npolicy ACCEPT\nu:\nDROP =1\nend", "INPUT/1 jump u, u/1 drop DROP"},
		{"return rule", "INPUT:\nu =1\nACCEPT =1\npolicy DROP\nu:\nRETURN =1\nDROP\nend", "INPUT/1 jump u, u/1 return RETURN, INPUT/2 accept ACCEPT"},
		{"return in the base chain", "INPUT:\nRETURN =1\nACCEPT\npolicy DROP =1", "INPUT/1 return RETURN, INPUT/policy drop"},
		{"goto comes back to nobody", "INPUT:\ngoto u =1\nACCEPT\npolicy DROP =1\nu:\nend =1", "INPUT/1 goto u, u/0 return, INPUT/policy drop"},
		{"goto comes back to the jump", "INPUT:\nu =1\nDROP =1\npolicy ACCEPT\nu:\ngoto v =1\nACCEPT\nend\nv:\nend =1", "INPUT/1 jump u, u/1 goto v, v/0 return, INPUT/2 drop DROP"},
		{"three deep", "INPUT:\nu =1\npolicy DROP =1\nu:\nv =1\nend =1\nv:\nw =1\nend =1\nw:\nend =1", "INPUT/1 jump u, u/1 jump v, v/1 jump w, w/0 return, v/0 return, u/0 return, INPUT/policy drop"},
		{"twice the same chain", "INPUT:\nu =1\nu =1\npolicy DROP =1\nu:\n- =2\nend =2", "INPUT/1 jump u, u/1 continue, u/0 return, INPUT/2 jump u, u/1 continue, u/0 return, INPUT/policy drop"},
		{"twice, ends the second time", "INPUT:\nu =1\nu =1\npolicy DROP\nu:\nDROP =1\nend =1", "INPUT/1 jump u, u/0 return, INPUT/2 jump u, u/1 drop DROP"},
		{"reject", "INPUT:\nREJECT =1\npolicy ACCEPT", "INPUT/1 drop REJECT"},
		{"log then drop", "INPUT:\nLOG =1\nDROP =1\npolicy ACCEPT", "INPUT/1 continue LOG, INPUT/2 drop DROP"},
		{"queue", "INPUT:\nNFQUEUE =1\npolicy ACCEPT", "INPUT/1 queue NFQUEUE"},
		{"old queue", "INPUT:\nQUEUE =1\npolicy ACCEPT", "INPUT/1 queue QUEUE"},
		{"nat", "INPUT:\nDNAT =1\npolicy ACCEPT", "INPUT/1 accept DNAT"},
		{"unknown goes on", "INPUT:\nODD =1\nDROP =1\npolicy ACCEPT", "INPUT/1 continue ODD, INPUT/2 drop DROP"},
		{"unknown goes on to the policy", "INPUT:\nODD =1\nDROP\npolicy ACCEPT =1", "INPUT/1 continue ODD, INPUT/policy accept"},
		{"unknown decides", "INPUT:\nODD =1\nDROP\npolicy ACCEPT", "INPUT/1  ODD"},
		{"unknown decides in a chain", "INPUT:\nu =1\npolicy ACCEPT\nu:\nTCPMSS =1\nend", "INPUT/1 jump u, u/1  TCPMSS"},
		{"others elsewhere", "INPUT:\nDROP =1\nu\npolicy ACCEPT\nOUTPUT:\nu =5\npolicy ACCEPT =5\nu:\n- =5\nend =5", "INPUT/1 drop DROP"},
	} {
		table, moved := handTable(t, c.table)
		steps, err := table.Replay("INPUT", moved)
		if got := stepText(steps); err != nil || got != c.want {
			t.Errorf("%s: %s (%v), want %s", c.name, got, err, c.want)
		}
	}
}

func TestReplayRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing moved":            "INPUT:\nDROP\npolicy ACCEPT",
		"two packets":              "INPUT:\nDROP =2\npolicy ACCEPT",
		"another packet below":     "INPUT:\nDROP =1\nACCEPT =1\npolicy ACCEPT",
		"another at the policy":    "INPUT:\nDROP =1\npolicy ACCEPT =1",
		"hotdrop after a log":      "INPUT:\nLOG =1\nDROP\npolicy ACCEPT",
		"hotdrop in a chain":       "INPUT:\nu =1\npolicy ACCEPT\nu:\nDROP\nend",
		"hotdrop after a return":   "INPUT:\nu =1\npolicy ACCEPT\nu:\nDROP\nend =1",
		"chain not entered":        "INPUT:\nu\npolicy ACCEPT\nu:\nDROP =1\nend",
		"which of two visits":      "INPUT:\nu =1\nu =1\npolicy DROP =1\nu:\nLOG =1\nend =2",
		"drop and log in one":      "INPUT:\nu =1\npolicy DROP =1\nu:\nDROP =1\nend =1",
		"no return where it went":  "INPUT:\nu =1\nDROP =1\npolicy DROP\nu:\n- =1\nend",
		"another through the same": "INPUT:\nu =1\npolicy DROP\nOUTPUT:\nu =1\npolicy DROP =1\nu:\n- =2\nend",
	} {
		table, moved := handTable(t, text)
		if steps, err := table.Replay("INPUT", moved); err == nil {
			t.Errorf("%s: guessed %s", name, stepText(steps))
		}
	}
	table, moved := handTable(t, "INPUT:\npolicy DROP =1")
	if _, err := table.Replay("OUTPUT", moved); err == nil {
		t.Error("a hook that the table has not got was replayed")
	}
}

// Many ways that all fail must not take for ever.
func TestReplayBudget(t *testing.T) {
	text := "INPUT:\n" + strings.Repeat("u =1\n", 40) + "policy DROP =1\nu:\n" + strings.Repeat("LOG =20\n", 40) + "end =39"
	table, moved := handTable(t, text)
	start := time.Now()
	if steps, err := table.Replay("INPUT", moved); err == nil {
		t.Errorf("guessed %d steps", len(steps))
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
}

// replay sends one packet from another namespace and replays its way from
// the kernel's counters.
func (l lab) replay(peer lab, family int, table, hook, to string) string {
	l.t.Helper()
	before := l.legacyTable(family, table)
	peer.send(to)
	deadline := time.Now().Add(5 * time.Second)
	for {
		// The packet may still be in the other end's queue.
		after := l.legacyTable(family, table)
		steps, err := after.Replay(hook, func(i int) uint64 { return after.Entries[i].Packets - before.Entries[i].Packets })
		if err == nil {
			for _, s := range steps {
				if want := map[int]string{4: "ip", 6: "ip6"}[family]; s.Backend != "iptables-legacy" || s.Table != table || s.Family != want {
					l.t.Errorf("%s: %+v", to, s)
				}
			}
			return stepText(steps)
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("%s: %v", to, err)
		}
	}
}

func TestReplayKernel(t *testing.T) {
	need(t, "iptables-legacy", "ip6tables-legacy")
	peer, l := newPair(t)
	l.sh("ip6tables-legacy -t raw -A PREROUTING -p icmpv6 -j DROP") // neighbour discovery would be counted, too
	rules := ` -P INPUT DROP
 -N a
 -N b
 -N c
 -A INPUT -p udp --dport 1 -j ACCEPT
 -A INPUT -p udp
 -A INPUT -p udp --dport 2:9 -j a
 -A INPUT -p udp --dport 6 -g c
 -A INPUT -p udp --dport 5:6 -j REJECT
 -A INPUT -p udp --dport 7 -j MARK --set-mark 1
 -A INPUT -p udp --dport 8 -j RETURN
 -A a -p udp --dport 2 -j DROP
 -A a -p udp --dport 3 -g b
 -A a -p udp --dport 4 -j RETURN
 -A a -p udp --dport 9 -j b
 -A b -p udp --dport 9 -j c
 -A b -p udp --dport 10 -j c
 -A c -p udp --dport 9 -j ACCEPT`
	var script strings.Builder
	for _, tool := range []string{"iptables-legacy -t mangle", "ip6tables-legacy -t mangle"} {
		for line := range strings.Lines(rules) {
			// REJECT is for the filter table alone.
			line = strings.Replace(line, "REJECT", "DROP", 1)
			script.WriteString(tool + strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	l.sh(script.String())
	for _, to := range []struct {
		family int
		host   string
	}{{4, "10.9.0.2"}, {6, "[fd09::2]"}} {
		for port, want := range map[int]string{
			1:  "INPUT/1 accept ACCEPT",
			2:  "INPUT/2 continue, INPUT/3 jump a, a/1 drop DROP",
			3:  "INPUT/2 continue, INPUT/3 jump a, a/2 goto b, b/0 return, INPUT/policy drop",
			4:  "INPUT/2 continue, INPUT/3 jump a, a/3 return RETURN, INPUT/policy drop",
			5:  "INPUT/2 continue, INPUT/3 jump a, a/0 return, INPUT/5 drop DROP",
			6:  "INPUT/2 continue, INPUT/3 jump a, a/0 return, INPUT/4 goto c, c/0 return, INPUT/policy drop",
			7:  "INPUT/2 continue, INPUT/3 jump a, a/0 return, INPUT/6 continue MARK, INPUT/policy drop",
			8:  "INPUT/2 continue, INPUT/3 jump a, a/0 return, INPUT/7 return RETURN, INPUT/policy drop",
			9:  "INPUT/2 continue, INPUT/3 jump a, a/4 jump b, b/1 jump c, c/1 accept ACCEPT",
			10: "INPUT/2 continue, INPUT/policy drop",
		} {
			if got := l.replay(peer, to.family, "mangle", "INPUT", fmt.Sprintf("%s:%d", to.host, port)); got != want {
				t.Errorf("%s port %d: %s, want %s", to.host, port, got, want)
			}
		}
	}
}

func TestReplayMany(t *testing.T) {
	need(t, "iptables-legacy")
	peer, l := newPair(t)
	const total = 20000
	var rules strings.Builder
	rules.WriteString("*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:u - [0:0]\n-A INPUT -p udp -j u\n")
	for i := range total {
		fmt.Fprintf(&rules, "-A u -p udp -m udp --dport %d -j REJECT\n", i+1)
	}
	rules.WriteString("COMMIT\n")
	file := t.TempDir() + "/rules"
	writeFile(t, file, rules.String())
	l.sh("iptables-legacy-restore " + file)
	table := l.legacyTable(4, "filter")
	if len(table.Entries) != total+7 {
		t.Errorf("%d entries, want %d", len(table.Entries), total+7)
	}
	if got := l.replay(peer, 4, "filter", "INPUT", "10.9.0.2:20000"); got != "INPUT/1 jump u, u/20000 drop REJECT" {
		t.Errorf("the last: %s", got)
	}
	if got := l.replay(peer, 4, "filter", "INPUT", "10.9.0.2:20001"); got != "INPUT/1 jump u, u/0 return, INPUT/policy drop" {
		t.Errorf("none: %s", got)
	}
	c, err := l.LegacyChain(table, "u", []int{12345})
	if err != nil || c.Total != total || len(c.Rules) != 7 {
		t.Fatalf("%d of %d rules: %v", len(c.Rules), c.Total, err)
	}
	if diff := cmp.Diff("-A u -p udp -m udp --dport 12345 -j REJECT --reject-with icmp-port-unreachable", c.Rules[3].Text); diff != "" || c.Rules[3].Number != 12345 {
		t.Error(diff)
	}
}
