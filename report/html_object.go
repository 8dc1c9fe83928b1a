// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"

	"github.com/pathtrace/pathtrace/evidence"
)

// decided shows the object that decided: the rule in its chain with its
// neighbours, or the route, setting, socket or process.
func (h *hypertext) decided() {
	w := h.v.Where
	title := "What decided"
	switch word(h.v) {
	case "reachable":
		title = "Who took it"
	case "not established":
		title = "Where it was seen last"
	}
	h.put("<section><h2>%s</h2><dl class=\"facts\">\n", title)
	h.fact("Namespace", w.Netns, "")
	h.fact("Device", w.Device, "")
	h.fact("Hook", w.Hook, "")
	if h.v.Direction == evidence.Reply {
		h.fact("Direction", "reply", "it is about the answer, on its way back")
	}
	h.fact("Kernel's words", w.Reason, in(w.Function))
	if r := w.Rule; r != nil {
		h.fact("Rule", ruleName(r), "")
	}
	if r := w.Route; r != nil {
		h.fact("Route", or(r.Text, "none that fits"), "in table "+r.Table)
	}
	if r := w.IPRule; r != nil {
		h.fact("Routing rule", r.Text, "")
	}
	if s := w.Sysctl; s != nil {
		h.fact("Setting", s.Name+" = "+s.Value, "")
	}
	if p := w.Process; p != nil {
		h.fact("Process", fmt.Sprintf("%s (pid %d)", p.Comm, p.PID), join(p.Exe, p.Unit))
	}
	if s := w.Socket; s != nil {
		h.fact("Socket", s.Local, fmt.Sprintf("%d waiting, limit %d", s.Queue, s.Backlog))
	}
	if f := w.File; f != nil {
		h.fact("File", fmt.Sprintf("%s:%d", f.Path, f.Line), f.Text)
	}
	if g := w.Cgroup; g != nil {
		h.fact("Control group", g.Path, "")
	}
	if p := w.Program; p != nil {
		h.fact("BPF program", fmt.Sprintf("%d %s", p.ID, p.Name), "")
	}
	if n := w.Neighbor; n != nil {
		h.fact("Next hop", n.Address, n.State)
	}
	if n := w.Hop; n != nil {
		h.fact("Host on the way", n.Address, "")
	}
	if n := w.NAT; n != nil {
		h.fact("Translated", n.From+" → "+n.To, "")
	}
	h.WriteString("</dl>\n")
	if ch := h.chain(); ch != nil {
		h.rules(ch)
	}
	h.WriteString("</section>\n")
}

func in(function string) string {
	if function == "" {
		return ""
	}
	return "in " + function + "()"
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + ", " + b
}

// chain is the one that holds the rule of the verdict, or whose policy decided.
func (h *hypertext) chain() *evidence.Chain {
	r := h.v.Where.Rule
	ns := h.c.Namespace(h.v.Where.At(h.c))
	if r == nil || ns == nil {
		return nil
	}
	for i := range ns.Chains.Items {
		ch := &ns.Chains.Items[i]
		if ch.Family == r.Family && ch.Table == r.Table && ch.Name == r.Chain && (ch.Backend == "iptables-legacy") == (r.Backend == "iptables-legacy") {
			return ch
		}
	}
	return nil
}

func (h *hypertext) rules(ch *evidence.Chain) {
	r := h.v.Where.Rule
	policy := r.Number == 0 && r.Handle == 0
	h.put("<table class=\"chain\"><caption>chain <b>%s</b> of table %s %s</caption><tbody>\n", ch.Name, ch.Family, ch.Table)
	next := 1
	for _, x := range ch.Rules {
		if x.Number > next {
			h.put("<tr class=\"gap\"><td></td><td>… %d more</td><td></td></tr>\n", x.Number-next)
		}
		next = x.Number + 1
		class := ""
		if x.Number == r.Number && r.Number > 0 || r.Handle > 0 && x.Handle == r.Handle {
			class = ` class="died"`
		}
		count := ""
		if x.Packets > 0 {
			count = plural(int(x.Packets), "packet")
		}
		fmt.Fprintf(h, "<tr%s>", class)
		h.put("<td class=\"when\">%d</td><td><code>%s</code></td><td class=\"when\">%s</td></tr>\n", x.Number, phrase(or(x.Text, "(its text could not be read)")), count)
	}
	if ch.Total >= next {
		h.put("<tr class=\"gap\"><td></td><td>… %d more</td><td></td></tr>\n", ch.Total-next+1)
	}
	if ch.Policy != "" {
		class := ""
		if policy {
			class = ` class="died"`
		}
		fmt.Fprintf(h, "<tr%s>", class)
		h.put("<td></td><td><code>policy %s</code></td><td></td></tr>\n", ch.Policy)
	}
	h.WriteString("</tbody></table>\n")
}
