// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"strings"
)

// recorded says that this is not the verdict that was given when the evidence was gathered.
func (h *hypertext) recorded() {
	r := h.d.Recorded
	if r == nil {
		return
	}
	h.put("<p class=\"note\">Judged anew by pathtrace %s. Pathtrace %s, which gathered the evidence, said: <code>%s</code> (%s): %s</p>\n",
		h.d.JudgedBy.Version, h.c.Tool.Version, r.Cause, string(r.Certainty), r.Summary)
}

// addresses lists what came of each address of a name. The page is about one of them.
func (h *hypertext) addresses() {
	if len(otherResults(h.d)) == 0 {
		return
	}
	h.put("<section><h2>The addresses of %s</h2><p>Each was tried. This page is about %s.</p>\n<table class=\"results\"><tbody>\n", h.c.Target.Input, endpoint(h.c.Target))
	for _, r := range h.d.Results {
		class, mark := "died", "✗"
		switch word(r.Verdict) {
		case "reachable":
			class, mark = "fine", "✓"
		case "not established":
			class, mark = "open", "?"
		}
		h.put("<tr class=\"%s\"><td>%s</td><td><code>%s</code></td><td>%s</td></tr>\n",
			class, mark, endpoint(r.Target), strings.TrimPrefix(r.Verdict.Summary, endpoint(r.Target)+": "))
	}
	h.WriteString("</tbody></table></section>\n")
}

// hops is the way beyond this host, as far as routers told it.
func (h *hypertext) hops() {
	for i := range h.c.Walks {
		w := &h.c.Walks[i]
		h.put("<section><h2>The way beyond this host</h2><p>Afterwards %s were sent to %s that may pass only so many routers. The router at which one runs out says so, unless it keeps silent.</p>\n",
			walkPackets(w.Protocol), w.Dest)
		h.WriteString("<table class=\"hops\"><thead><tr><th>Hop</th><th>Who answered</th><th>What</th><th>After</th></tr></thead><tbody>\n")
		for _, x := range hopRows(w) {
			class := ""
			if x.answer == "" {
				class = ` class="gap"`
			}
			fmt.Fprintf(h, "<tr%s>", class)
			h.put("<td class=\"when\">%s</td><td>%s</td><td>%s</td><td class=\"when\">%s</td></tr>\n", x.ttl, or(x.who, "nobody answered"), x.answer, x.after)
		}
		h.WriteString("</tbody></table>")
		if hint := wayBack(w); hint != "" {
			h.put("<p>%s</p>", hint)
		}
		h.WriteString("</section>\n")
	}
}
