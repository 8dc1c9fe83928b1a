// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"strings"
	"testing"

	"github.com/pathtrace/pathtrace/evidence"
)

func wrapReturned(e *evidence.Event) bool { return e.Wrap != nil && e.Wrap.Granted != nil }

// Whether a server has refused us by tcp wrappers rests on what libwrap said
// about our own connection, and on nothing else.
func TestLibwrap(t *testing.T) {
	yes := true
	for name, x := range map[string]struct {
		change    func(c *evidence.Case, answer *evidence.Event, d *evidence.WrapDecision)
		cause     string
		certainty Certainty
		file      bool
	}{
		"as recorded": {func(*evidence.Case, *evidence.Event, *evidence.WrapDecision) {}, "libwrap-denied", Observed, true},
		"libwrap grants": {func(_ *evidence.Case, e *evidence.Event, _ *evidence.WrapDecision) {
			e.Wrap.Granted = &yes
		}, "app-error", Observed, false},
		"a second question is granted": {func(c *evidence.Case, e *evidence.Event, _ *evidence.WrapDecision) {
			second, wrap := *e, *e.Wrap
			wrap.Granted = &yes
			second.Wrap, second.At = &wrap, e.At+1
			c.Events = append(c.Events, second)
		}, "app-error", Observed, false},
		"by address alone, and it is ours": {func(_ *evidence.Case, e *evidence.Event, _ *evidence.WrapDecision) {
			e.Wrap.FD, e.Wrap.Address = -1, "10.77.1.2"
		}, "libwrap-denied", Observed, true},
		"by address alone, and it is another's": {func(_ *evidence.Case, e *evidence.Event, _ *evidence.WrapDecision) {
			e.Wrap.FD, e.Wrap.Address = -1, "10.77.1.3"
		}, "app-error", Observed, false},
		"by address alone, which is not known": {func(_ *evidence.Case, e *evidence.Event, _ *evidence.WrapDecision) {
			e.Wrap.FD, e.Wrap.Address = -1, ""
		}, "app-error", Observed, false},
		"it serves all the same": {func(c *evidence.Case, _ *evidence.Event, _ *evidence.WrapDecision) {
			c.Probe.Outcome, c.Probe.Unmatched, c.Probe.Banner, c.Probe.Received = evidence.Answered, false, "220 welcome", 11
		}, "reachable", Observed, false},
		"what was heard are libwrap's own words": {func(c *evidence.Case, _ *evidence.Event, _ *evidence.WrapDecision) {
			c.Probe.Outcome, c.Probe.Unmatched, c.Probe.Banner, c.Probe.Received = evidence.Answered, false, "members only", 12
			for i := range c.Events {
				if p := c.Events[i].Packet; p != nil && strings.Contains(p.Flags, "P") {
					p.Seq += 12 // there was data before
				}
			}
		}, "libwrap-denied", Observed, true},
		"and the server's own words of refusal were heard, too": {func(c *evidence.Case, _ *evidence.Event, _ *evidence.WrapDecision) {
			c.Probe.Outcome, c.Probe.Unmatched, c.Probe.Expected = evidence.Answered, false, true
			c.Probe.Banner, c.Probe.Received = "members only421 not you", 23
			for i := range c.Events {
				if p := c.Events[i].Packet; p != nil && strings.Contains(p.Flags, "P") {
					p.Seq += 12
				}
			}
		}, "libwrap-denied", Observed, true},
		"libwrap ends the process": {func(c *evidence.Case, e *evidence.Event, _ *evidence.WrapDecision) {
			c.Probe.Outcome, c.Probe.Unmatched, c.Probe.Banner, c.Probe.Received = evidence.Answered, false, "220 welcome", 11
			refuse, wrap := *e, *e.Wrap
			wrap.Granted = nil
			refuse.Wrap, refuse.Function = &wrap, "refuse"
			c.Events = append(c.Events, refuse)
		}, "libwrap-denied", Observed, true},
		"not closed yet": {func(c *evidence.Case, _ *evidence.Event, _ *evidence.WrapDecision) {
			c.Probe.Outcome, c.Probe.Unmatched, c.Probe.Banner = evidence.Connected, false, ""
		}, "libwrap-denied", Observed, true},
		"the files could not be read": {func(_ *evidence.Case, _ *evidence.Event, d *evidence.WrapDecision) {
			*d = evidence.WrapDecision{Process: d.Process, Daemon: d.Daemon, Unread: "test"}
		}, "libwrap-denied", Inferred, false},
		"the files have changed since": {func(_ *evidence.Case, _ *evidence.Event, d *evidence.WrapDecision) {
			d.Verdict, d.File = "granted", nil
		}, "libwrap-denied", Inferred, false},
		"a netgroup may decide": {func(_ *evidence.Case, _ *evidence.Event, d *evidence.WrapDecision) {
			d.Verdict, d.Reasons = "unknown", []string{"netgroup @staff is not evaluated"}
		}, "libwrap-denied", Inferred, false},
		"a netgroup may decide earlier": {func(_ *evidence.Case, _ *evidence.Event, d *evidence.WrapDecision) {
			d.Reasons = []string{"netgroup @staff is not evaluated"}
		}, "libwrap-denied", Inferred, true},
		"an event was lost": {func(c *evidence.Case, _ *evidence.Event, _ *evidence.WrapDecision) { c.Lost = 1 }, "libwrap-denied", Inferred, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := caseNamed(t, "libwrap-denied")
			x.change(c, find(t, c, wrapReturned), &c.Namespace("pt-s").Wraps.Items[0])
			v := Judge(c)
			if v.Cause != x.cause || v.Certainty != x.certainty || (v.Where.File != nil) != x.file {
				t.Errorf("%s, %s, file %v; want %s, %s, %v\n%s", v.Cause, v.Certainty, v.Where.File, x.cause, x.certainty, x.file,
					strings.Join(append(v.Proof, v.Unseen...), "\n"))
			}
		})
	}
}

func TestLibwrapFixIsTheGatheredChange(t *testing.T) {
	c := caseNamed(t, "libwrap-denied")
	v := Judge(c)
	if len(v.Fixes) != 1 || !strings.Contains(v.Fixes[0].Commands[0], "vsftpd : 10.77.1.2") || len(v.Fixes[0].Undo) == 0 {
		t.Errorf("fixes %+v", v.Fixes)
	}
	c.ID = "; rm -rf /"
	if v := Judge(c); len(v.Fixes) > 0 {
		t.Errorf("a case without a usable identifier has commands: %q", v.Fixes[0].Commands)
	}
}
