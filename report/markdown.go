// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// ticketLines is how long [Markdown] may get.
const ticketLines = 15

// Markdown prints what a person pastes into a ticket: at most 15 lines. It
// keeps to bullets, bold and code spans, which GitHub, GitLab and Jira render and
// which read well where nothing is rendered (RT). All that is not our own text
// stands in code spans, so that it can neither become markup nor mention anybody.
func Markdown(w io.Writer, c *evidence.Case, v verdict.Verdict) error {
	var lines []string
	add := func(label, format string, a ...any) {
		if len(lines) < ticketLines {
			lines = append(lines, "- "+label+": "+fmt.Sprintf(format, a...))
		}
	}
	to := endpoint(c.Target) + ": "
	lines = append(lines, fmt.Sprintf("**pathtrace: %s** %s %s", word(v), code(endpoint(c.Target)), code(strings.TrimPrefix(v.Summary, to))), "")
	add("Cause", "%s, certainty %s%s", code(v.Cause), code(string(v.Certainty)), placeText(v))
	add("Probe", "%s", probeLine(c))
	if r := v.Where.Rule; r != nil && r.Text != "" {
		add("Rule", "%s", code(r.Text))
		add("Found in", "%s", code(ruleName(r)))
	}
	for i, s := range v.Proof {
		if i == 3 {
			add("Proof", "%d more in the report", len(v.Proof)-3)
			break
		}
		add("Proof", "%s", code(s))
	}
	if len(v.Fixes) > 0 {
		f := v.Fixes[0]
		if len(f.Commands) == 0 {
			add("Fix", "%s", code(f.Summary))
		} else {
			add("Fix", "%s", code(strings.Join(f.Commands, "; ")))
		}
		if len(f.Undo) > 0 {
			add("Undo", "%s", code(strings.Join(f.Undo, "; ")))
		}
		switch t := c.Counterfactual; {
		case f.Verified:
			add("Tried", "with this fix the service answers, without it not; it was taken back")
		case t != nil && t.Fix == 0 && t.Cause != "":
			add("Tried", "with this fix: %s; it was taken back", code(strings.TrimPrefix(t.Summary, to)))
		}
	}
	if list := unseen(c, v, 0); len(list) > 0 {
		add("Not seen", "%s%s", code(list[0]), more(len(list)-1))
	}
	add("Evidence", "case %s, pathtrace %s; the verdict again from the bundle: %s", code(c.ID), code(c.Tool.Version), code("pathtrace judge FILE.zip"))
	_, err := io.WriteString(w, strings.Join(lines, "\n")+"\n")
	return err
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
	return s + ", " + code(or(c.Probe.Outcome, "no outcome")) + " after " + ms(c.Probe.DurationNS)
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
