// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"strconv"
	"strings"
	"testing"

	"github.com/pathtrace/pathtrace/evidence"
)

// born are the rules that every namespace begins with.
const born = "0: from all lookup local\n32766: from all lookup main\n32767: from all lookup default"

func ipRules(family int, text string) evidence.Section[evidence.IPRule] {
	var list []evidence.IPRule
	for _, line := range strings.Split(text, "\n") {
		w := strings.Fields(line)
		r := evidence.IPRule{Family: family, Text: line, Action: w[len(w)-1]}
		r.Priority, _ = strconv.Atoi(strings.TrimSuffix(w[0], ":"))
		for i, x := range w {
			switch x {
			case "lookup":
				r.Action, r.Table = x, w[i+1]
			case "goto":
				r.Action = x
			}
		}
		list = append(list, r)
	}
	return evidence.Have(list)
}

func TestRouteChoiceRule(t *testing.T) {
	flow := evidence.RouteLookup{Source: "10.1.0.2", Dest: "10.2.0.2", IIF: "lan0", Mark: 7}
	own := evidence.RouteLookup{Dest: "10.2.0.2"}
	with := func(first, others string) string {
		return "0: from all lookup local\n" + first + "\n32766: from all lookup main\n32767: from all lookup default" + others
	}
	for name, c := range map[string]struct {
		rules string
		flow  evidence.RouteLookup
		asked string // tables; those before the last had no match
		want  string // priorities
	}{
		"born with, main":          {born, flow, "main", "32766"},
		"born with, default":       {born, flow, "main default", "32767"},
		"mark":                     {with("200: from all fwmark 0x7 lookup 77", ""), flow, "local 77", "200"},
		"mark and mask":            {with("200: from all fwmark 0x6/0x6 lookup 77", ""), flow, "local 77", "200"},
		"another mark":             {with("200: from all fwmark 0x8 lookup 77", ""), flow, "local main", "32766"},
		"not":                      {with("200: not from all fwmark 0x7 lookup 77", ""), flow, "local main", "32766"},
		"not another mark":         {with("200: not from all fwmark 0xca6c lookup 51820", ""), flow, "local 51820", "200"},
		"two lead to it":           {with("200: from all dport 80 lookup 77\n201: from all uidrange 0-0 lookup 77", ""), own, "local 77", "200 201"},
		"two, one takes it":        {with("200: from all fwmark 0x7 lookup 77\n201: from all uidrange 0-0 lookup 77", ""), flow, "local 77", "200"},
		"two, one does not":        {with("200: from 10.9.0.0/16 lookup 77\n201: from all dport 80 lookup 77", ""), flow, "local 77", "201"},
		"two, no match in one":     {with("200: from all dport 80 lookup 78\n201: from all uidrange 0-0 lookup 77", ""), own, "local 78 77", "201"},
		"asked twice":              {with("200: from all dport 80 lookup 77\n201: from all uidrange 0-0 lookup 77", ""), own, "local 77 77", "201"},
		"address":                  {with("200: from 10.1.0.0/16 to 10.2.0.2 lookup 77", ""), flow, "local 77", "200"},
		"no source yet":            {with("200: from 10.1.0.0/16 lookup 77\n201: from all lookup 77", ""), own, "local 77", "201"},
		"device":                   {with("200: from all iif dmz0 lookup 77\n201: from all iif lan0 lookup 77", ""), flow, "local 77", "201"},
		"device that is gone":      {with("200: from all iif lan0 [detached] lookup 77\n201: from all lookup 77", ""), flow, "local 77", "201"},
		"leaving device":           {with("200: from all oif dmz0 lookup 77\n201: from all lookup 77", ""), flow, "local 77", "201"},
		"own packet, leaving":      {with("200: from all oif dmz0 lookup 77\n201: from all lookup 77", ""), own, "local 77", "200 201"},
		"goto":                     {with("100: from all fwmark 0x7 goto 150\n120: from all lookup 77\n150: from all nop\n160: from all lookup 77", ""), flow, "local 77", "160"},
		"goto of others":           {with("100: from all fwmark 0x8 goto 150\n120: from all lookup 77\n150: from all nop\n160: from all lookup 77", ""), flow, "local 77", "120"},
		"goto not known":           {with("100: from all dport 80 goto 150\n120: from all lookup 77\n150: from all nop\n160: from all lookup 77", ""), flow, "local 77", "120 160"},
		"behind a refusal":         {with("100: from all fwmark 0x7 prohibit", ""), flow, "local main", ""},
		"a word of the future":     {with("200: from all … lookup 77\n201: from all lookup 77", ""), flow, "local 77", "200 201"},
		"table that was not asked": {with("200: from all lookup main", ""), flow, "local default", ""},
		"VRF":                      {with("1000: from all lookup [l3mdev-table]", ""), flow, "local 10", "1000"},
		"suppressed":               {with("200: from all lookup main suppress_prefixlength 0\n210: not from all fwmark 0xca6c lookup 51820", ""), flow, "local main! 51820", "210"},
	} {
		t.Run(name, func(t *testing.T) {
			n := evidence.Namespace{Name: "r", Rules: ipRules(4, c.rules),
				Lookups: evidence.Have([]evidence.Lookup{{Dest: c.flow.Dest, IIF: c.flow.IIF, Mark: c.flow.Mark, Type: "unicast", OIF: "dmz0", Table: "main", Text: "10.2.0.0/16 dev dmz0 scope link"}})}
			ev := evidence.Case{Namespaces: []evidence.Namespace{n}}
			tables := strings.Fields(c.asked)
			for i, table := range tables {
				r := c.flow
				r.Errno = "EAGAIN"
				if i == len(tables)-1 || strings.HasSuffix(table, "!") {
					r.Errno, r.OIF = "", "dmz0"
				}
				r.Table = strings.TrimSuffix(table, "!")
				ev.Events = append(ev.Events, evidence.Event{Kind: evidence.Route, Netns: "r", Route: &r})
			}
			all := RouteChoices(&ev)
			if len(all) != 1 {
				t.Fatalf("%d searches", len(all))
			}
			var got []string
			for _, r := range all[0].Rules {
				got = append(got, strconv.Itoa(r.Priority))
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("rules %q, want %q", s, c.want)
			}
		})
	}
}

// A search that found nothing does not swallow the next one.
func TestRouteChoicesApart(t *testing.T) {
	c := evidence.Case{Namespaces: []evidence.Namespace{{Name: "r", Rules: ipRules(4, born)}}}
	for _, table := range []string{"local", "local", "main", "local", "main"} {
		r := evidence.RouteLookup{Dest: "10.2.0.2", Table: table, Errno: "EAGAIN"}
		c.Events = append(c.Events, evidence.Event{Kind: evidence.Route, Netns: "r", Route: &r})
	}
	var got []string
	for _, s := range RouteChoices(&c) {
		got = append(got, strings.Join(s.Asked, " "))
	}
	if s := strings.Join(got, ", "); s != "local, local main, local main" {
		t.Errorf("searches: %s", s)
	}
}

// The local table is kept within main as long as nobody has added a rule.
func TestRouteChoiceLocal(t *testing.T) {
	r := evidence.RouteLookup{Dest: "10.2.0.2", Table: "main", IIF: "dmz0", OIF: "dmz0"}
	for text, want := range map[string]string{"local 10.2.0.2 dev dmz0 table local": "local 0", "10.2.0.2 dev dmz0 scope link": "main 32766", "": "main"} {
		l := evidence.Lookup{Dest: r.Dest, IIF: "dmz0", OIF: "lo", Type: "unicast", Table: "main", Text: text}
		if strings.HasPrefix(text, "local") {
			l.Type = "local"
		}
		c := evidence.Case{Namespaces: []evidence.Namespace{{Name: "r", Rules: ipRules(4, born), Lookups: evidence.Have([]evidence.Lookup{l})}},
			Events: []evidence.Event{{Kind: evidence.Route, Netns: "r", Route: &r}}}
		s := RouteChoices(&c)[0]
		got := s.Table()
		for _, r := range s.Rules {
			got += " " + strconv.Itoa(r.Priority)
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
