// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// Options of the text form.
type Options struct {
	Color   bool // terminal colours
	Verbose int  // 1: every event and every fix; 2: also call stacks, packet buffers and CPUs
	Quiet   bool // the verdict line alone
	Width   int  // columns to wrap prose at; 0: never. Commands are never wrapped.
}

// Text prints the path of the packet, station by station, then the verdict
// with its proof, the fix and how to take it back. It writes once.
func Text(w io.Writer, c *evidence.Case, v verdict.Verdict, o Options) error {
	p := &page{color: o.Color, width: o.Width, quiet: o.Quiet}
	if !o.Quiet {
		p.line(p.header(c))
		p.peers(c)
		lines := stations(c, v)
		if o.Verbose > 0 {
			lines = every(c, o.Verbose)
		}
		p.ladder(lines)
	}
	p.verdict(c, v)
	if !o.Quiet {
		p.blocks(c, v, o.Verbose)
	}
	_, err := io.WriteString(w, p.String())
	return err
}

func (p *page) header(c *evidence.Case) string {
	t := c.Target
	h := p.paint(bold, Clean(endpoint(t)))
	if t.Input != "" && !strings.Contains(t.Input, t.Address) {
		h += " (" + Clean(t.Input) + ")"
	}
	if c.Probe.Local != "" {
		h += " from " + Clean(c.Probe.Local)
	}
	if c.Probe.Netns != "" {
		h += " in " + Clean(c.Probe.Netns)
	}
	if c.Host.Kernel != "" {
		h += " · kernel " + Clean(c.Host.Kernel)
	}
	if c.Host.Hooks != "" {
		h += " · hooks: " + Clean(c.Host.Hooks)
	}
	return h
}

// peers tells of the other hosts that were watched.
func (p *page) peers(c *evidence.Case) {
	for i := range c.Peers {
		p.line("and " + p.paint(bold, Clean(c.Peers[i].Name)) + " " + Clean(peerText(&c.Peers[i])))
	}
}

// peerText is what is to be known of another host that was watched.
func peerText(p *evidence.Peer) string {
	if p.Kernel == "" {
		return "(" + p.Reached + "): not watched: " + p.Error
	}
	s := fmt.Sprintf("(%s) · kernel %s", p.Reached, p.Kernel)
	if p.Hooks != "" {
		s += " · hooks: " + p.Hooks
	}
	s += fmt.Sprintf(" · its clock: %+.2f ms ± %.2f ms", float64(p.ClockOffsetNS)/1e6, float64(p.ClockBoundNS)/1e6)
	if p.Error != "" {
		s += " · not watched to the end: " + p.Error
	}
	return s
}

// endpoint is the target as a summary begins with it.
func endpoint(t evidence.Target) string {
	to := t.Address
	if t.Port != 0 {
		to = net.JoinHostPort(to, strconv.Itoa(t.Port))
	}
	return to + "/" + t.Protocol
}

// ladder prints the stations as aligned columns: time, namespace, station, what happened.
func (p *page) ladder(lines []line) {
	var when, where, station int
	for i := range lines {
		l := &lines[i]
		l.where, l.station, l.text = Clean(l.where), Clean(l.station), Clean(l.text)
		when = max(when, len(l.when()))
		where = max(where, len([]rune(l.where)))
		station = max(station, len([]rune(l.station)))
	}
	indent := 3 + when + 2 + where + 2 + station + 2
	for _, l := range lines {
		at := fmt.Sprintf("%*s", when, l.when())
		text := p.wrap(l.text, indent+len(l.mark))
		for i, part := range text {
			switch {
			case i > 0:
				p.line(strings.Repeat(" ", indent), part, p.mark(l, i == len(text)-1))
			default:
				p.line("   ", p.paint(dim, at), "  ", pad(l.where, where), "  ", pad(l.station, station), "  ", part,
					p.mark(l, i == len(text)-1))
			}
		}
	}
}

func (p *page) mark(l line, last bool) string {
	if l.mark == "" || !last {
		return ""
	}
	return "   " + p.paint(red, l.mark)
}

// verdict prints the line that says it all.
func (p *page) verdict(c *evidence.Case, v verdict.Verdict) {
	// The header has named the target; a summary names it for those who see nothing else.
	to := endpoint(c.Target) + ": "
	summary := Clean(strings.TrimPrefix(v.Summary, to))
	mark, sgr, text := "✗", red, shout(summary)
	switch {
	case v.Cause == "reachable":
		mark, sgr, text = "✓", green, lead("reachable", summary)
	case v.Certainty == verdict.None || v.Cause == "unexplained":
		mark, sgr, text = "?", yellow, lead("not established", strings.TrimPrefix(summary, "not explained: "))
	}
	if p.quiet {
		text = Clean(to) + text
	}
	if v.Certainty == verdict.Inferred {
		text += " (inferred)"
	}
	for i, part := range p.wrap(text, 2) {
		if i == 0 {
			p.line(p.paint(sgr, mark), " ", p.paint(bold, part))
			continue
		}
		p.line("  ", p.paint(bold, part))
	}
}

// shout sets what happened in capitals, where the summary says it first or of "the reply".
func shout(s string) string {
	head, rest := "", s
	if h, r, ok := strings.Cut(s, " was "); ok && !strings.Contains(h, ":") {
		head, rest = h+" was ", r
	}
	word, rest, _ := strings.Cut(rest, " ")
	switch word {
	case "dropped", "rejected", "refused", "reset", "blocked", "discarded", "lost", "closed", "unreachable":
		return strings.TrimSpace(head + strings.ToUpper(word) + " " + rest)
	}
	return s
}

func lead(word, s string) string {
	switch {
	case s == "":
		return word
	case strings.Contains(strings.ToLower(s), word):
		return s
	}
	return word + ": " + s
}

func (p *page) blocks(c *evidence.Case, v verdict.Verdict, verbose int) {
	if verbose > 0 {
		p.block("cause", fmt.Sprintf("%s (%s)", Clean(v.Cause), Clean(string(v.Certainty))))
	}
	for _, s := range v.Proof {
		p.block("proof", Clean(s))
	}
	p.hops(c)
	for _, l := range c.Logs {
		p.block("log", Clean(l.Source+": "+l.Text))
	}
	for i, f := range v.Fixes {
		if i > 0 && verbose == 0 {
			p.block("", fmt.Sprintf("another way with -v (%d in all)", len(v.Fixes)))
			break
		}
		p.fix(f, verbose)
	}
	for i, s := range v.Consumed {
		if i == someUsed && len(v.Consumed) > someUsed+1 && verbose == 0 {
			p.block("used", fmt.Sprintf("%d more with -v", len(v.Consumed)-i))
			break
		}
		p.block("used", Clean(s))
	}
	for _, s := range unseen(c, v, verbose) {
		p.block("unseen", Clean(s))
	}
}

func (p *page) fix(f verdict.Fix, verbose int) {
	switch {
	case f.Summary != "" && (verbose > 0 || len(f.Commands) == 0):
		p.block("fix", "# "+Clean(f.Summary))
	case f.Host != "" && len(f.Commands) > 0:
		p.block("fix", "# on "+Clean(f.Host)+":")
	}
	for _, s := range f.Commands {
		p.command("fix", s)
	}
	if f.Verified {
		p.block("", "# tried: with it the service answers")
	}
	for _, s := range f.Undo {
		p.command("undo", s)
	}
}

// someUsed is how many of what the probe has used up are told unasked.
const someUsed = 4

const labelWidth = 2 + 6 + 1

// block prints prose under a label; the label stands once for lines that follow one another.
func (p *page) block(label, text string) {
	for i, part := range p.wrap(text, labelWidth) {
		if i > 0 {
			label = ""
		}
		p.labelled(label, part)
	}
}

func (p *page) command(label, s string) { p.labelled(label, Clean(s)) }

func (p *page) labelled(label, text string) {
	shown := label
	if label == p.label {
		shown = ""
	}
	if label != "" {
		p.label = label
	}
	p.line("  ", p.paint(dim, pad(shown, 6)), " ", text)
}

// unseen is what limits the verdict. Where nothing failed it interests nobody who did not ask.
func unseen(c *evidence.Case, v verdict.Verdict, verbose int) []string {
	var out []string
	if c.Lost > 0 {
		out = append(out, fmt.Sprintf("%d events that the kernel could not hand over", c.Lost))
	}
	if v.Cause == "reachable" && verbose == 0 {
		return out
	}
	out = append(out, v.Unseen...)
	if verbose > 0 {
		missing := slices.Concat(c.Unseen, c.Host.Missing)
		for _, p := range c.Peers {
			for _, m := range p.Missing {
				missing = append(missing, p.Name+": "+m)
			}
		}
		for _, s := range missing {
			if !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out
}
