// SPDX-License-Identifier: Apache-2.0

package report

import (
	"time"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// story makes a case by hand, event by event, on a network of a client pt-c, a
// router pt-r and a server pt-s.
type story struct {
	c    evidence.Case
	v    verdict.Verdict
	now  int64
	v6   bool
	from string
	to   string
}

func (s *story) document() *Document {
	d := NewDocument(s.c, s.v)
	return &d
}

func newStory() *story {
	s := &story{from: "10.77.1.2", to: "10.77.2.2"}
	s.c = evidence.Case{
		FormatVersion: evidence.FormatVersion,
		ID:            "3f2a11aa",
		Tool:          evidence.Tool{Version: "0.1.0", Commit: "0000000"},
		Host:          evidence.Host{Name: "host", Kernel: "6.18.44", Hooks: "tracepoint", Missing: []string{"kprobes: this kernel has none"}},
		Target:        evidence.Target{Input: "10.77.2.2:80", Address: "10.77.2.2", Port: 80, Protocol: "tcp"},
		Probe: evidence.Probe{Netns: "pt-c", Local: "10.77.1.2:43122", Started: time.Date(2026, 11, 22, 20, 0, 0, 123456789, time.UTC),
			TimeoutNS: 3e9, ISN: 1000},
	}
	s.c.Namespaces = []evidence.Namespace{
		s.netns("pt-c", "default via 10.77.1.1 dev c0", "10.77.1.0/24 dev c0"),
		s.netns("pt-r", "10.77.1.0/24 dev rc", "10.77.2.0/24 dev rs"),
		s.netns("pt-s", "default via 10.77.2.1 dev s0", "10.77.2.0/24 dev s0", "local 10.77.2.2 dev s0"),
	}
	return s
}

func newStory6() *story {
	s := newStory()
	s.v6, s.from, s.to = true, "fd77:1::2", "fd77:2::2"
	s.c.Target = evidence.Target{Input: "[fd77:2::2]:80", Address: s.to, Port: 80, Protocol: "tcp"}
	s.c.Probe.Local = "[fd77:1::2]:43122"
	return s
}

func (s *story) netns(name string, routes ...string) evidence.Namespace {
	n := evidence.Namespace{Name: name, Inode: 4026532000 + uint64(len(name)), Enter: []string{"ip", "netns", "exec", name}}
	var items []evidence.RouteItem
	for _, r := range routes {
		items = append(items, routeText(r))
	}
	n.Routes = evidence.Have(items)
	n.Rules = evidence.Have([]evidence.IPRule{
		{Family: 4, Priority: 0, Action: "lookup", Table: "local", Text: "0: from all lookup local"},
		{Family: 4, Priority: 32766, Action: "lookup", Table: "main", Text: "32766: from all lookup main"},
		{Family: 4, Priority: 32767, Action: "lookup", Table: "default", Text: "32767: from all lookup default"},
		{Family: 6, Priority: 0, Action: "lookup", Table: "local", Text: "0: from all lookup local"},
		{Family: 6, Priority: 32766, Action: "lookup", Table: "main", Text: "32766: from all lookup main"},
	})
	n.Hooks = evidence.Have([]evidence.Hook(nil))
	n.Chains = evidence.Missing[evidence.Chain]("nft is not installed")
	return n
}

func routeText(text string) evidence.RouteItem {
	r := evidence.RouteItem{Family: 4, Type: "unicast", Table: "main", Text: text}
	words := splitWords(text)
	if words[0] == "local" {
		r.Type, r.Table, words = "local", "local", words[1:]
	}
	r.Dest = words[0]
	for i := 1; i+1 < len(words); i += 2 {
		switch words[i] {
		case "via":
			r.Gateway = words[i+1]
		case "dev":
			r.Device = words[i+1]
		}
	}
	return r
}

func splitWords(s string) []string {
	var out []string
	word := ""
	for _, r := range s + " " {
		if r != ' ' {
			word += string(r)
			continue
		}
		out = append(out, word)
		word = ""
	}
	return out
}

func (s *story) ns(name string) *evidence.Namespace { return s.c.Namespace(name) }

// base registers an nft base chain.
func (s *story) base(ns, hook, family, table, chain string, priority int) {
	n := s.ns(ns)
	for _, f := range []string{"ip", "ip6"} {
		n.Hooks.Items = append(n.Hooks.Items, evidence.Hook{Family: f, Hook: hook, Priority: priority,
			Function: "nft_do_chain_inet", Type: "nft", Table: table, Chain: chain, NFFamily: family})
	}
}

func (s *story) legacy(ns, hook, table string, priority int) {
	n := s.ns(ns)
	n.Hooks.Items = append(n.Hooks.Items, evidence.Hook{Family: "ip", Hook: hook, Priority: priority,
		Function: "ipt_do_table", Type: "iptables-legacy", Table: table, Chain: hook})
}

func (s *story) event(e evidence.Event) *evidence.Event {
	s.now += 10_000
	e.At = s.now
	s.c.Events = append(s.c.Events, e)
	return &s.c.Events[len(s.c.Events)-1]
}

// packet returns the headers of a forward or reply packet of our connection.
func (s *story) packet(direction, flags string) *evidence.Packet {
	p := &evidence.Packet{Family: 4, Protocol: "tcp", Source: s.from, Dest: s.to, SPort: 43122, DPort: 80, Flags: flags, Seq: 1000, TTL: 64, Length: 60}
	if s.v6 {
		p.Family = 6
	}
	if direction == evidence.Reply {
		p.Source, p.Dest, p.SPort, p.DPort = p.Dest, p.Source, p.DPort, p.SPort
	}
	return p
}

func (s *story) see(kind evidence.Kind, ns, device, direction, flags string) *evidence.Event {
	return s.event(evidence.Event{Kind: kind, Netns: ns, Device: device, Direction: direction, Packet: s.packet(direction, flags)})
}

func (s *story) pass(ns, hook, direction, flags string, priorities ...int) {
	for _, p := range priorities {
		e := s.see(evidence.HookPassed, ns, "", direction, flags)
		e.Hook, e.Priority = hook, &p
	}
}

func (s *story) rule(ns, hook, direction, flags string, r evidence.RuleStep) {
	e := s.see(evidence.RuleVerdict, ns, "", direction, flags)
	e.Hook, e.Rule = hook, &r
}

func (s *story) drop(ns, device, hook, direction, flags, reason, function string) {
	e := s.see(evidence.Drop, ns, device, direction, flags)
	e.Hook, e.Reason, e.Function = hook, reason, function
}

func (s *story) lookup(ns, direction string, r evidence.RouteLookup) {
	s.event(evidence.Event{Kind: evidence.Route, Netns: ns, Direction: direction, Route: &r})
}

func (s *story) state(ns, from, to string) {
	e := s.event(evidence.Event{Kind: evidence.State, Netns: ns, State: &evidence.StateChange{Old: from, New: to}})
	if ns == "pt-s" {
		e.Direction, e.Socket = evidence.Reply, &evidence.EventSocket{Local: s.to + ":80", State: to}
	}
}

// leave sends a forward packet out of the client.
func (s *story) leave(flags string) {
	s.lookup("pt-c", evidence.Forward, evidence.RouteLookup{Table: "local", Dest: s.to, Errno: "EAGAIN"})
	s.lookup("pt-c", evidence.Forward, evidence.RouteLookup{Table: "main", Dest: s.to, OIF: "c0", Gateway: "10.77.1.1"})
	s.pass("pt-c", "OUTPUT", evidence.Forward, flags, -1, 1)
	s.see(evidence.Transmit, "pt-c", "c0", evidence.Forward, flags)
}

// cross takes a forward packet into the router, up to its routing decision.
func (s *story) cross(flags string) {
	s.see(evidence.Receive, "pt-r", "rc", evidence.Forward, flags)
	s.lookup("pt-r", evidence.Forward, evidence.RouteLookup{Table: "main", Dest: s.to, Source: s.from, IIF: "rc", OIF: "rs"})
}

// arrive takes a forward packet into the server, up to INPUT. The kernel calls
// the table main, though the route is of the local one.
func (s *story) arrive(flags string) {
	s.see(evidence.Transmit, "pt-r", "rs", evidence.Forward, flags)
	s.see(evidence.Receive, "pt-s", "s0", evidence.Forward, flags)
	s.lookup("pt-s", evidence.Forward, evidence.RouteLookup{Table: "main", Dest: s.to, Source: s.from, IIF: "s0", OIF: "s0"})
}

// back takes a reply from the server to the client.
func (s *story) back(flags string) {
	s.see(evidence.Transmit, "pt-s", "s0", evidence.Reply, flags)
	s.see(evidence.Receive, "pt-r", "rs", evidence.Reply, flags)
	s.see(evidence.Transmit, "pt-r", "rc", evidence.Reply, flags)
	s.see(evidence.Receive, "pt-c", "c0", evidence.Reply, flags)
}

func (s *story) end(outcome, errno string) {
	s.c.Probe.Outcome, s.c.Probe.Errno = outcome, errno
	s.c.Probe.DurationNS = s.now + 5_000
}
