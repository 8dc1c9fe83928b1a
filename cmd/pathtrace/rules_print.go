// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/pathtrace/pathtrace/report"
)

// rulesPrinter prints each chain once, where the first hook or rule leads to it.
type rulesPrinter struct {
	w       io.Writer
	v       *rulesView
	verbose bool
	chains  map[chainName]*chainView
	shown   map[chainName]string // and where
}

var metMarks = map[string]string{"": "", "yes": "> ", "may": "? ", "no": "  "}

// print writes the ruleset for people.
func (v *rulesView) print(w io.Writer, o Options) {
	p := rulesPrinter{w: w, v: v, verbose: o.Verbose > 0, chains: map[chainName]*chainView{}, shown: map[chainName]string{}}
	for i := range v.Chains {
		p.chains[nameOf(&v.Chains[i].Chain)] = &v.Chains[i]
	}
	fmt.Fprintf(w, "netfilter in %s, in the order in which the kernel asks\n", report.Clean(v.Netns))
	if k := v.Packet; k != nil {
		fmt.Fprintf(w, "%s to %s, the first packet of a connection that nobody expects\n", report.Clean(k.Protocol+" from "+k.Source), report.Clean(fmt.Sprintf("%s port %d", k.Dest, k.Port)))
		fmt.Fprintf(w, "route: %s\nit comes to %s; > meets, ? may meet\n", report.Clean(k.Route), report.Clean(strings.Join(k.Path, ", ")))
	}
	at := ""
	for _, h := range v.Hooks {
		here := strings.TrimSpace(h.Family + " " + h.Hook.Hook + " " + h.Device)
		if here != at {
			fmt.Fprintf(w, "\n%s\n", report.Clean(here))
			at = here
		}
		p.hook(h, here)
	}
	if len(v.Hooks) == 0 {
		fmt.Fprintln(w, "\nnothing is registered with netfilter here")
	}
	p.rest()
	for _, s := range v.Unseen {
		fmt.Fprintf(w, "unseen: %s\n", report.Clean(s))
	}
}

func (p *rulesPrinter) hook(h hookView, here string) {
	name := hooked(h.Hook)
	c := p.chains[name]
	mark := metMarks[h.Met]
	if h.Type != "nft" && h.Type != "iptables-legacy" {
		fmt.Fprintf(p.w, "%s%6s  %s\n", mark, priority(h.Priority), report.Clean(h.Type+" "+h.Function))
		return
	}
	if c == nil {
		fmt.Fprintf(p.w, "%s%6s  %s\n", mark, priority(h.Priority), report.Clean(fmt.Sprintf("%s %s %s: its rules were not read", h.Type, h.Table, h.Chain)))
		return
	}
	head := fmt.Sprintf("%s%6s  %s", mark, priority(h.Priority), chainHead(c))
	if h.NAT {
		head += ", for the first packet of a connection"
	}
	if where := p.shown[name]; where != "" {
		fmt.Fprintf(p.w, "%s, as at %s\n", report.Clean(head), report.Clean(where))
		return
	}
	fmt.Fprintln(p.w, report.Clean(head))
	p.body(name, c, here, 1)
}

// priority is a number, or what the kernel's first and last are.
func priority(n int) string {
	switch {
	case n >= 1<<31-2:
		return "last"
	case n <= -(1<<31 - 2):
		return "first"
	}
	return fmt.Sprint(n)
}

func chainHead(c *chainView) string {
	s := fmt.Sprintf("%s %s %s %s", c.Backend, c.Family, c.Table, c.Name)
	if c.Owner != "" {
		s += " (" + c.Owner + ")"
	}
	if c.Policy != "" {
		s += ", policy " + c.Policy
		if c.Packets != nil {
			s += fmt.Sprintf(" %d packets %d bytes", *c.Packets, *c.Bytes)
		}
	}
	if c.Total == 0 {
		s += ", no rules"
	}
	return s
}

// body prints the rules of a chain, then the chains that they lead to.
func (p *rulesPrinter) body(name chainName, c *chainView, here string, depth int) {
	p.shown[name] = here
	indent := strings.Repeat("  ", depth+3)
	for i, r := range c.Rules {
		text := r.Text
		if text == "" {
			text = "(its text was not read)"
		}
		count := fmt.Sprintf("%d packets %d bytes", r.Packets, r.Bytes)
		if c.Backend == "nft" && !strings.Contains(text, "counter") {
			count = "-"
		}
		handle := ""
		if p.verbose && r.Handle != 0 {
			handle = fmt.Sprintf(" # handle %d", r.Handle)
		}
		fmt.Fprintf(p.w, "%s%s%3d  %s  %s%s\n", metMarks[r.Met], indent, i+1, count, report.Clean(text), handle)
	}
	if c.Unread != "" {
		fmt.Fprintf(p.w, "%s  texts unread: %s\n", indent, report.Clean(c.Unread))
	}
	for _, to := range leads(&c.Chain, func(n chainName) bool { return p.chains[n] != nil }) {
		sub := p.chains[to]
		if p.shown[to] != "" || sub.Total == 0 && !p.verbose {
			continue
		}
		fmt.Fprintf(p.w, "%s%schain %s\n", metMarks[sub.Met], indent, report.Clean(chainHead(sub)))
		p.body(to, sub, here, min(depth+1, maxNested))
	}
}

// rest tells of the chains that no hook leads to.
func (p *rulesPrinter) rest() {
	var left []*chainView
	for i := range p.v.Chains {
		c := &p.v.Chains[i]
		if p.shown[nameOf(&c.Chain)] == "" && c.Total > 0 {
			left = append(left, c)
		}
	}
	if len(left) == 0 {
		return
	}
	if !p.verbose {
		fmt.Fprintf(p.w, "\nchains with rules to which no hook leads: %d (-v shows them)\n", len(left))
		return
	}
	fmt.Fprintln(p.w, "\nno hook leads to")
	for _, c := range left {
		name := nameOf(&c.Chain)
		if p.shown[name] != "" {
			continue
		}
		fmt.Fprintf(p.w, "%s      %s\n", metMarks[c.Met], report.Clean(chainHead(c)))
		p.body(name, c, "no hook", 1)
	}
}
