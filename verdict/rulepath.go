// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"slices"

	"github.com/pathtrace/pathtrace/evidence"
)

// decision is the firewall's own account of what it did with one packet.
type decision struct {
	step  *evidence.Event // the rule or policy that decided
	path  []string        // base chain … deciding chain
	gone  bool            // a goto or return led away from the base chain, so that its end is not reached
	exact bool            // it belongs to this very packet, not only to one like it
}

// isNetfilter reports whether e is a packet that a netfilter hook threw away.
func isNetfilter(e *evidence.Event) bool {
	if e == nil {
		return false
	}
	if e.Kind == evidence.RuleVerdict {
		return e.Rule != nil && e.Rule.Verdict == "drop"
	}
	return e.Kind == evidence.Drop && (e.Reason == "NETFILTER_DROP" || e.Reason == "" && at(e, "nft_do_chain", "nf_hook_slow"))
}

// decided finds the step with one of the verdicts that ended the packet of e, or nil when the trace does not tell.
func decided(c *evidence.Case, e *evidence.Event, verdicts ...string) *decision {
	if e.Kind == evidence.RuleVerdict {
		return walk(c, e, true)
	}
	own, loose := steps(c, e, verdicts)
	if len(own) > 0 {
		return walk(c, own[len(own)-1], true)
	}
	// Which copy the others were about is not known. They name the rule when
	// they agree, for certain when there are as many as copies that died so.
	for _, s := range loose {
		if !sameRule(s.Rule, loose[0].Rule) {
			return nil
		}
	}
	if len(loose) == 0 {
		return nil
	}
	return walk(c, loose[0], len(loose) >= untold(c, e, verdicts))
}

// steps finds those with one of the verdicts that were about the copy of e, and
// those that may have been: no copy is known, or one that did not end so. The
// kernel numbers its traces by buffer and flow, so that a later packet of the
// same flow in the same buffer passes for the earlier one.
func steps(c *evidence.Case, e *evidence.Event, verdicts []string) (own, loose []*evidence.Event) {
	v := visitOf(c, e)
	for i := range c.Events {
		s := &c.Events[i]
		if s.Kind != evidence.RuleVerdict || s.Rule == nil || !slices.Contains(verdicts, s.Rule.Verdict) || !fits(c, s, e) {
			continue
		}
		if v.has(s) {
			own = append(own, s)
			continue
		}
		end := visitOf(c, s).last()
		if s.SKB == "" || e.SKB == "" || end == nil || end.Kind != e.Kind || end.Reason != e.Reason || end.Hook != e.Hook {
			loose = append(loose, s)
		}
	}
	return own, loose
}

// untold counts the drops of e's kind, itself included, that no step is known to be about.
func untold(c *evidence.Case, e *evidence.Event, verdicts []string) (count int) {
	for i := range c.Events {
		d := &c.Events[i]
		if d.Kind != e.Kind || d.Reason != e.Reason || d.Netns != e.Netns || d.Hook != e.Hook || d.Function != e.Function || !sameWay(c, d, e) || secondary(c, d) {
			continue
		}
		if own, _ := steps(c, d, verdicts); len(own) == 0 {
			count++
		}
	}
	return count
}

// fits reports whether the step s can be about the packet of the drop e.
func fits(c *evidence.Case, s, e *evidence.Event) bool {
	switch {
	case s.Netns != e.Netns || !sameWay(c, s, e):
		return false
	case s.Hook != "" && e.Hook != "" && s.Hook != e.Hook:
		return false
	case s.Packet != nil && secondary(c, s):
		return false
	case e.Function == "nft_do_chain" && s.Rule.Backend == "iptables-legacy":
		return false
	case s.Rule.Family == "netdev" && s.Device != "" && e.Device != "" && s.Device != e.Device:
		return false
	case s.SKB != "" && e.SKB != "" && s.SKB != e.SKB:
		return false
	}
	return true
}

func sameRule(a, b *evidence.RuleStep) bool {
	return a.Family == b.Family && a.Table == b.Table && a.Chain == b.Chain && a.Handle == b.Handle && a.Number == b.Number && a.Policy == b.Policy
}

// walk follows the trace that ended in last from its base chain on.
func walk(c *evidence.Case, last *evidence.Event, exact bool) *decision {
	d := &decision{step: last, exact: exact}
	var steps []*evidence.Event
	stay := visitOf(c, last)
	for i := range c.Events {
		s := &c.Events[i]
		if s == last {
			break
		}
		if s.Kind != evidence.RuleVerdict || s.Rule == nil || !fits(c, s, last) || !sameWalk(s.Rule, last.Rule) || last.SKB != "" && !stay.has(s) {
			continue
		}
		if s.Rule.Policy || s.Rule.Verdict == "accept" || s.Rule.Verdict == "drop" || s.Rule.Verdict == "queue" {
			steps = nil // the end of another base chain, or of another copy
			continue
		}
		steps = append(steps, s)
	}
	visit := func(chain string) { // a step in a chain further up means that the ones below have returned
		if i := slices.Index(d.path, chain); i >= 0 {
			d.path = d.path[:i+1]
		} else {
			d.path = append(d.path, chain)
		}
	}
	for _, s := range steps {
		if last.Rule.Policy && (s.Rule.Verdict == "goto" || s.Rule.Verdict == "return") && (len(d.path) == 0 || d.path[0] == s.Rule.Chain) {
			d.gone = true
		}
		visit(s.Rule.Chain)
		if (s.Rule.Verdict == "jump" || s.Rule.Verdict == "goto") && s.Rule.Target != "" {
			visit(s.Rule.Target)
		}
	}
	visit(last.Rule.Chain)
	if last.Rule.Policy {
		d.path = []string{last.Rule.Chain}
	}
	return d
}

// sameWalk reports whether two steps are of one packet's way through one table.
func sameWalk(a, b *evidence.RuleStep) bool {
	return a.Backend == b.Backend && a.Family == b.Family && a.Table == b.Table && a.TraceID == b.TraceID
}

// chain returns the section's account of the step's chain, or nil: that of the
// tool which prints the step's rule, iptables-nft before nft.
func chain(n *evidence.Namespace, s *evidence.RuleStep) *evidence.Chain {
	var best *evidence.Chain
	score := -1
	for i := range n.Chains.Items {
		k := &n.Chains.Items[i]
		if k.Family != s.Family || k.Table != s.Table || k.Name != s.Chain || (k.Backend == "iptables-legacy") != (s.Backend == "iptables-legacy") {
			continue
		}
		points := 0
		if s.Policy || slices.ContainsFunc(k.Rules, func(f evidence.FirewallRule) bool { return f.Handle == s.Handle && s.Handle != 0 }) {
			points = 2
		}
		if k.Backend == "iptables-nft" {
			points++
		}
		if points > score {
			best, score = k, points
		}
	}
	return best
}

// rule names the deciding object as the user's own tool does. certain is false,
// with the reason in v.Unseen, when it could not be read whole.
func rule(v *Verdict, n *evidence.Namespace, d *decision) (r *Rule, certain bool) {
	s := d.step.Rule
	r = &Rule{Backend: s.Backend, Family: s.Family, Table: s.Table, Chain: s.Chain, Path: d.path, Handle: s.Handle, Number: s.Number}
	if s.Policy {
		r.Handle, r.Number = 0, 0
	}
	where := name(d.step.Netns)
	if n == nil {
		v.Unseen = append(v.Unseen, where+": firewall chains not read: not looked at")
		return r, false
	}
	k := chain(n, s)
	if k == nil && !unread(v, n, "firewall chains", n.Chains.Read(), n.Chains.Why()) {
		return r, false
	}
	if k == nil {
		v.Unseen = append(v.Unseen, where+": chain "+s.Table+" "+s.Chain+" was not among those read")
		return r, false
	}
	r.Backend = k.Backend
	if n.Changed {
		v.Unseen = append(v.Unseen, where+": another program changed the ruleset before it was read")
	}
	if s.Policy {
		r.Text = k.Text
		return r, !n.Changed && k.Policy != "accept"
	}
	for _, f := range k.Rules {
		if s.Handle != 0 && f.Handle == s.Handle || s.Handle == 0 && f.Number == s.Number {
			r.Number, r.Text = f.Number, f.Text
			if f.Text == "" {
				why := k.Unread
				if why == "" {
					why = "the tool printed none"
				}
				v.Unseen = append(v.Unseen, where+": the text of the rule was not read: "+why)
			}
			return r, f.Text != "" && !n.Changed
		}
	}
	v.Unseen = append(v.Unseen, where+": the rule is not among those read; it may have been removed since")
	return r, false
}
