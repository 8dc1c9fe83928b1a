// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// ticketLines is how long [Markdown] may get.
const ticketLines = 15

// Markdown prints what a person pastes into a ticket: at most 15 lines. It
// keeps to bullets, bold and code spans, which GitHub, GitLab and Gitea render and
// which read well where nothing is rendered (RT); Jira's editor takes them when they are pasted. All that is not our own text
// stands in code spans, so that it can neither become markup nor mention anybody.
func Markdown(w io.Writer, d *Document) error {
	c, v := &d.Case, d.Verdict
	var head, tail bullets
	head.add("Cause", "%s, certainty %s%s", code(v.Cause), code(string(v.Certainty)), placeText(v))
	head.add("Probe", "%s", probeLine(c))
	if r := v.Where.Rule; r != nil && r.Text != "" {
		head.add("Rule", "%s", code(r.Text))
		head.add("Found in", "%s", code(ruleName(r)))
	}
	if len(v.Fixes) > 0 {
		tail.fix(v.Fixes[0])
		switch t := c.Counterfactual; {
		case v.Fixes[0].Verified:
			tail.add("Tried", "with this fix the service answers, without it not; it was taken back")
		case t != nil && t.Fix == 0 && t.Cause != "":
			tail.add("Tried", "with this fix: %s; it was taken back", code(strings.TrimPrefix(t.Summary, endpoint(c.Target)+": ")))
		}
	}
	if others := otherResults(d); len(others) > 0 {
		tail.add("Other addresses", "%s", strings.Join(resultWords(others), "; "))
	}
	if list := unseen(c, v, 0); len(list) > 0 {
		tail.add("Not seen", "%s%s", code(list[0]), more(len(list)-1))
	}
	if d.Recorded != nil {
		tail.add("Judged anew", "by pathtrace %s; when it was recorded: %s, certainty %s", code(d.JudgedBy.Version), code(d.Recorded.Cause), code(string(d.Recorded.Certainty)))
	}
	tail.add("Evidence", "case %s, pathtrace %s; the verdict again from the bundle: %s", code(c.ID), code(c.Tool.Version), code("pathtrace judge FILE.zip"))

	to := endpoint(c.Target) + ": "
	lines := []string{fmt.Sprintf("**pathtrace: %s** %s %s", word(v), code(endpoint(c.Target)), code(strings.TrimPrefix(v.Summary, to))), ""}
	head.proof(v.Proof, ticketLines-len(lines)-len(head)-len(tail))
	lines = slices.Concat(lines, head, tail)
	_, err := io.WriteString(w, strings.Join(lines, "\n")+"\n")
	return err
}

// bullets are lines of a list.
type bullets []string

func (b *bullets) add(label, format string, a ...any) {
	*b = append(*b, "- "+label+": "+fmt.Sprintf(format, a...))
}

// proof adds the first of the proofs in at most room lines.
func (b *bullets) proof(proofs []string, room int) {
	room = max(1, min(room, 4))
	for i, s := range proofs[:min(room, len(proofs))] {
		rest := ""
		if i == room-1 {
			rest = more(len(proofs) - room)
		}
		b.add("Proof", "%s%s", code(s), rest)
	}
}

func (b *bullets) fix(f verdict.Fix) {
	if len(f.Commands) == 0 {
		b.add("Fix", "%s", code(f.Summary))
	} else {
		b.add("Fix", "%s", code(strings.Join(f.Commands, "; ")))
	}
	if len(f.Undo) > 0 {
		b.add("Undo", "%s", code(strings.Join(f.Undo, "; ")))
	}
}

// otherResults are those of the target's other addresses than the one that the document is about.
func otherResults(d *Document) []Result {
	var out []Result
	for _, r := range d.Results {
		if r.Target.Address != d.Target.Address {
			out = append(out, r)
		}
	}
	return out
}

// resultWords says in a few words what came of the first few addresses.
func resultWords(results []Result) []string {
	const most = 6
	var out []string
	for i, r := range results {
		if i == most {
			return append(out, fmt.Sprintf("%d more", len(results)-most))
		}
		out = append(out, fmt.Sprintf("%s %s", code(endpoint(r.Target)), code(r.Verdict.Cause)))
	}
	return out
}

// word is the verdict in one word or two.
func word(v verdict.Verdict) string {
	switch {
	case v.Cause == "reachable":
		return "reachable"
	case v.Certainty == verdict.None || v.Cause == "unexplained":
		return "not established"
	}
	return "not reachable"
}

func placeText(v verdict.Verdict) string {
	var s string
	if v.Where.Host != "" {
		s += ", on host " + code(v.Where.Host)
	}
	if v.Where.Netns != "" {
		s += ", in namespace " + code(v.Where.Netns)
	}
	if v.Where.Device != "" {
		s += ", device " + code(v.Where.Device)
	}
	if v.Where.Hook != "" {
		s += ", hook " + code(v.Where.Hook)
	}
	if v.Direction == evidence.Reply {
		s += ", on the way back"
	}
	return s
}

func probeLine(c *evidence.Case) string {
	s := "from " + code(or(c.Probe.Local, "?")) + " in " + code(or(c.Probe.Netns, "?"))
	s += " on " + code(or(c.Host.Name, "?")) + ", Linux " + code(or(c.Host.Kernel, "?"))
	if !c.Probe.Started.IsZero() {
		s += ", " + c.Probe.Started.UTC().Format(time.RFC3339)
	}
	return s + ", " + code(or(c.Probe.Outcome, "no outcome")) + " after " + ms(c.Probe.OutcomeNS())
}

// ruleName says where a rule stands.
func ruleName(r *verdict.Rule) string {
	path := r.Path
	if len(path) == 0 {
		path = []string{r.Chain}
	}
	s := fmt.Sprintf("%s %s %s %s", r.Backend, r.Family, r.Table, strings.Join(path, " → "))
	switch {
	case r.Number > 0 && r.Handle > 0:
		s += fmt.Sprintf(", rule %d (handle %d)", r.Number, r.Handle)
	case r.Number > 0:
		s += fmt.Sprintf(", rule %d", r.Number)
	case r.Handle > 0:
		s += fmt.Sprintf(", handle %d", r.Handle)
	default:
		s += ", its policy"
	}
	return s
}

func more(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}

// code makes a code span that nothing in s can leave (CommonMark 6.1).
func code(s string) string {
	s = Clean(s)
	ticks, run := 0, 0
	for _, r := range s {
		if r == '`' {
			run++
			ticks = max(ticks, run)
		} else {
			run = 0
		}
	}
	if strings.TrimSpace(s) == "" {
		return "-"
	}
	fence := strings.Repeat("`", ticks+1)
	if ticks > 0 {
		s = " " + s + " "
	}
	return fence + s + fence
}
