// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"slices"
	"strings"
	"testing"

	"github.com/pathtrace/pathtrace/evidence"
)

// A denial is deduced from the files that a server opened only where nothing
// else can have come of it.
func TestLibwrapFiles(t *testing.T) {
	opened := func(c *evidence.Case) (out []*evidence.Event) {
		for i := range c.Events {
			if c.Events[i].Opened != nil {
				out = append(out, &c.Events[i])
			}
		}
		return out
	}
	decision := func(c *evidence.Case) *evidence.WrapDecision { return &c.Namespace("pt-server").Wraps.Items[0] }
	for name, x := range map[string]struct {
		from   string
		change func(c *evidence.Case)
		cause  string
		why    string // in what was not seen
	}{
		"as recorded":     {"files", func(*evidence.Case) {}, "libwrap-denied", "are not seen"},
		"the rules grant": {"files", func(c *evidence.Case) { decision(c).Verdict, decision(c).File = "granted", nil }, "app-error", "they grant this client"},
		"a name may decide": {"files", func(c *evidence.Case) {
			decision(c).Verdict, decision(c).Reasons = "unknown", []string{"a name"}
		}, "app-error", "open: a name"},
		"the rules were not read": {"files", func(c *evidence.Case) {
			*decision(c) = evidence.WrapDecision{Process: decision(c).Process, Unread: "gone"}
		}, "app-error", "gone"},
		"other connections":    {"files", func(c *evidence.Case) { opened(c)[1].Opened.Others = 1 }, "app-error", "held other connections"},
		"too many descriptors": {"files", func(c *evidence.Case) { opened(c)[0].Opened.Others = -1 }, "app-error", "held other connections"},
		"a name unread":        {"files", func(c *evidence.Case) { opened(c)[1].Opened.Path = "" }, "app-error", "could not be read"},
		"hosts.deny was not reached": {"files", func(c *evidence.Case) {
			e := opened(c)[1]
			c.Events = slices.DeleteFunc(c.Events, func(o evidence.Event) bool { return o.Opened != nil && o.At == e.At })
		}, "app-error", "not where libwrap would have ended"},
		"hosts.allow was not opened": {"files", func(c *evidence.Case) {
			e := opened(c)[0]
			c.Events = slices.DeleteFunc(c.Events, func(o evidence.Event) bool { return o.Opened != nil && o.At == e.At })
		}, "app-error", "not where libwrap would have ended"},
		"opened after the end": {"files", func(c *evidence.Case) {
			for _, e := range opened(c) {
				e.At += 1e12
			}
		}, "app-error", ""},
		"by a stranger": {"files", func(c *evidence.Case) {
			for _, e := range opened(c) {
				e.PID, e.Opened.Parent = 7, 8
			}
		}, "app-error", ""},
		"by a child of the one that closes": {"files", func(c *evidence.Case) {
			for _, e := range opened(c) {
				e.PID, e.Opened.Parent, decision(c).Process.PID = 7, ended(c).PID, 7
			}
		}, "libwrap-denied", ""},
		"another program closes": {"files", func(c *evidence.Case) {
			for _, e := range opened(c) {
				e.Comm = "xinetd"
			}
		}, "app-error", ""},
		"it serves all the same": {"files", func(c *evidence.Case) {
			c.Probe.Outcome, c.Probe.Unmatched, c.Probe.Banner = evidence.Answered, false, "220 welcome"
		}, "reachable", ""},
		"libwrap's own answer counts more": {"files", func(c *evidence.Case) {
			e, yes := *opened(c)[1], true
			e.Kind, e.Opened, e.Wrap = evidence.WrapCall, nil, &evidence.Wrap{Granted: &yes, FD: 3}
			c.Events = append(c.Events, e)
		}, "app-error", ""},
		"it dozes":                  {"dozes", func(*evidence.Case) {}, "libwrap-denied", ""},
		"it waits for something":    {"dozes", func(c *evidence.Case) { decision(c).Process.Stack = []string{"do_sys_poll"} }, "app-silent", "has not closed"},
		"what it does was not read": {"dozes", func(c *evidence.Case) { decision(c).Process.State, decision(c).Process.Stack = "", nil }, "app-silent", "has not closed"},
	} {
		t.Run(name, func(t *testing.T) {
			c := caseNamed(t, "libwrap-denied-"+x.from)
			x.change(c)
			v := Judge(c)
			if v.Cause != x.cause || (v.Where.File != nil) != (x.cause == "libwrap-denied") || v.Cause == "libwrap-denied" && v.Certainty != Inferred ||
				!strings.Contains(strings.Join(v.Unseen, "\n"), x.why) {
				t.Errorf("%s (%s), file %v; want %s, and %q in what was not seen\n%s", v.Cause, v.Certainty, v.Where.File, x.cause, x.why,
					strings.Join(append(v.Proof, v.Unseen...), "\n"))
			}
		})
	}
}
