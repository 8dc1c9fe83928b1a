// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"html"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// HTML prints the report as one page that needs nothing else: no script, no
// font, no picture from elsewhere. It reads on paper, on a telephone, light and
// dark, and by whoever does not know the tool.
func HTML(w io.Writer, d *Document) error {
	c, v := &d.Case, d.Verdict
	h := &hypertext{d: d, c: c, v: v}
	h.head()
	h.banner()
	h.recorded()
	h.addresses()
	lines := h.ended(stations(c, v))
	h.picture(lines)
	h.decided()
	h.list("How we know", "proof", v.Proof)
	h.fixes()
	h.list("What could not be seen", "unseen", unseen(c, v, 1))
	h.stations(lines)
	h.hops()
	h.timeline()
	h.footer()
	_, err := io.WriteString(w, h.String())
	return err
}

// hypertext collects the page. Whatever is not ours goes through esc.
type hypertext struct {
	strings.Builder
	d *Document
	c *evidence.Case
	v verdict.Verdict
}

func esc(s string) string { return html.EscapeString(Clean(s)) }

// put writes markup of ours; arguments that are strings are escaped.
func (h *hypertext) put(format string, a ...any) {
	for i, x := range a {
		switch s := x.(type) {
		case string:
			a[i] = esc(s)
		case phrase:
			a[i] = s.markup()
		}
	}
	fmt.Fprintf(h, format, a...)
}

// phrase is text in which options of command lines stay whole: browsers break lines after a hyphen.
type phrase string

var hyphened = regexp.MustCompile(`(^|[\s;])(-[\w-]{1,30})`)

func (p phrase) markup() string {
	return hyphened.ReplaceAllString(esc(string(p)), `$1<span class="w">$2</span>`)
}

func (h *hypertext) head() {
	h.put(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>%s: %s</title>
<style>`, endpoint(h.c.Target), word(h.v))
	h.WriteString(style)
	h.WriteString("</style></head><body><main>\n")
}

// banner is what a reader must know who reads nothing else.
func (h *hypertext) banner() {
	kind, mark, title := "bad", "✗", "Not reachable"
	switch word(h.v) {
	case "reachable":
		kind, mark, title = "good", "✓", "Reachable"
	case "not established":
		kind, mark, title = "unsure", "?", "The cause is not established"
	}
	h.put(`<header class="verdict %s"><p class="to">%s</p><h1><span class="mark" aria-hidden="true">%s</span> %s</h1><p class="summary">%s</p><p class="sure">%s</p></header>`+"\n",
		kind, endpoint(h.c.Target), mark, title, phrase(h.summary()), certainty(h.v))
	h.put("<p>%s</p>\n<dl class=\"facts\">", h.story())
	h.fact("Cause", h.v.Cause, meaning(h.v.Cause))
	if t := h.c.Probe.Started; !t.IsZero() {
		h.fact("When", t.UTC().Format("2006-01-02 15:04:05.000 MST"), "")
	}
	h.fact("Result", outcomeText(h.c.Probe), "after "+ms(h.c.Probe.OutcomeNS()))
	h.put("</dl>\n")
}

// summary is the verdict's, without the target before it.
func (h *hypertext) summary() string {
	return strings.TrimPrefix(h.v.Summary, endpoint(h.c.Target)+": ")
}

// story says what was done.
func (h *hypertext) story() string {
	what := "A TCP connection was attempted"
	switch h.c.Target.Protocol {
	case "udp":
		what = "A UDP datagram was sent"
	case "icmp":
		what = "An ICMP echo request was sent"
	}
	s := what + " from " + or(h.c.Probe.Local, "this host")
	if h.c.Probe.Netns != "" && h.c.Probe.Netns != "init" {
		s += ", in the network namespace " + h.c.Probe.Netns
	}
	if h.c.Host.Name != "" {
		s += " of host " + h.c.Host.Name
	}
	s += ", to " + endpoint(h.c.Target)
	if t := h.c.Target; t.Input != "" && !strings.Contains(t.Input, t.Address) {
		s += " (" + t.Input + ")"
	}
	return s + ". While its packets travelled, the Linux kernel was watched."
}

func outcomeText(p evidence.Probe) string {
	if p.Errno != "" {
		return p.Outcome + " (" + p.Errno + ")"
	}
	return or(p.Outcome, "unknown")
}

func certainty(v verdict.Verdict) string {
	switch {
	case v.Certainty == verdict.Observed:
		return "Observed: the kernel said so about this very packet."
	case v.Certainty == verdict.Inferred:
		return "Inferred: it follows from what is listed below; the kernel did not say it about this packet itself."
	}
	return "Nothing was proven. What was seen is listed below."
}

// meaning says in a sentence what a cause is.
func meaning(id string) string {
	for _, c := range verdict.Causes {
		if c.ID == id {
			return c.Means
		}
	}
	return ""
}

// fact is a line of a definition list; the remark is in smaller type.
func (h *hypertext) fact(name, value, remark string) {
	if value == "" {
		return
	}
	h.put("<dt>%s</dt><dd><code>%s</code>", name, phrase(value))
	if remark != "" {
		h.put(" <small>%s</small>", remark)
	}
	h.WriteString("</dd>\n")
}

func (h *hypertext) list(title, class string, items []string) {
	if len(items) == 0 {
		return
	}
	h.put("<section><h2>%s</h2><ul class=\"%s\">\n", title, class)
	for _, s := range items {
		h.put("<li>%s</li>\n", phrase(s))
	}
	h.WriteString("</ul></section>\n")
}

func (h *hypertext) fixes() {
	for i, f := range h.v.Fixes {
		title := "How to mend it"
		if i > 0 {
			title = fmt.Sprintf("Another way (%d)", i+1)
		}
		h.put("<section class=\"fix\"><h2>%s</h2><p>%s%s</p>\n", title, f.Summary, map[bool]string{true: " — tried: with it the service answers, without it not; it was taken back."}[f.Verified])
		h.commands("As root, as it stands:", f.Commands)
		h.commands("To take it back:", f.Undo)
		h.WriteString("</section>\n")
	}
}

func (h *hypertext) commands(label string, list []string) {
	if len(list) == 0 {
		return
	}
	h.put("<p class=\"label\">%s</p><pre>", label)
	for _, s := range list {
		h.put("<span>%s</span>\n", phrase(s))
	}
	h.WriteString("</pre>\n")
}

// stations is the ladder: the way in words.
func (h *hypertext) stations(lines []line) {
	h.WriteString("<section><h2>Station by station</h2>\n")
	h.table(lines)
	h.WriteString("</section>\n")
}

// timeline is every event, as it was told.
func (h *hypertext) timeline() {
	lines := every(h.c, 1)
	h.put("<section><details><summary>Timeline: all %d events</summary>\n", len(lines))
	h.table(lines[:min(len(lines), 5000)])
	if len(lines) > 5000 {
		h.put("<p>%d more are in case.json.</p>", len(lines)-5000)
	}
	h.WriteString("</details></section>\n")
}

func (h *hypertext) table(lines []line) {
	h.WriteString("<table class=\"way\"><thead><tr><th>When</th><th>Namespace</th><th>Where</th><th>What</th></tr></thead><tbody>\n")
	for _, l := range lines {
		class := ""
		if strings.HasPrefix(l.mark, "✗") {
			class = ` class="died"`
		}
		fmt.Fprintf(h, "<tr%s>", class)
		h.put("<td class=\"when\">%s</td><td>%s</td><td>%s</td><td class=\"what\">%s%s</td></tr>\n", l.when(), l.where, l.station, l.text, strings.TrimRight("  "+l.mark, " "))
	}
	h.WriteString("</tbody></table>\n")
}

// glossary explains the words that this very page uses.
var glossary = []struct{ word, means string }{
	{"SYN", "the packet that asks for a TCP connection"},
	{"SYN-ACK", "the answer that grants it"},
	{"RST", "the packet that refuses or breaks it"},
	{"ICMP", "what carries error messages of the network"},
	{"ARP", "how a host asks which link address (MAC) an IPv4 address has; for IPv6 that is ND"},
	{"PREROUTING", "firewall hook: a packet has come in, and it is not yet known where to"},
	{"INPUT", "firewall hook: for this host itself"},
	{"FORWARD", "firewall hook: for another host, to be passed on"},
	{"OUTPUT", "firewall hook: made by this host"},
	{"POSTROUTING", "firewall hook: about to leave"},
	{"freed", "the kernel has done with the packet; the words after it are the kernel's own"},
	{"backlog", "how many connections may wait for the program to take them"},
	{"namespace", "a network of its own inside one Linux host: its own devices, routes and firewall, as containers have"},
}

func (h *hypertext) footer() {
	text := h.String()
	h.WriteString("<footer><h2>Words</h2><dl class=\"facts\">")
	for _, g := range glossary {
		if slices.ContainsFunc([]string{">", " ", "("}, func(s string) bool { return strings.Contains(text, s+g.word) }) {
			h.put("<dt>%s</dt><dd>%s</dd>\n", g.word, g.means)
		}
	}
	h.put("</dl><p>pathtrace %s · case %s · kernel %s · hooks: %s · format %s · made from evidence of %s. The verdict again, on any machine and without root: <code>pathtrace judge FILE.zip</code></p></footer>\n</main></body></html>\n",
		h.c.Tool.Version, h.c.ID, h.c.Host.Kernel, h.c.Host.Hooks, h.c.FormatVersion, h.c.Probe.Started.UTC().Format(time.RFC3339))
}
