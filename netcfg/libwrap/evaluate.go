// SPDX-License-Identifier: Apache-2.0

package libwrap

import (
	"slices"
	"strings"
)

// Verdict is what becomes of a request.
type Verdict string

// The verdicts.
const (
	Granted   Verdict = "granted"
	Denied    Verdict = "denied"
	Delegated Verdict = "delegated" // a twist option answers in place of the server; one that asks libwrap a second time in one process denies
	Unknown   Verdict = "unknown"   // what could not be evaluated may decide: see Decision.Reasons
)

// Decision is what libwrap does with a request, and by which line.
type Decision struct {
	Verdict Verdict
	File    string // empty: no line decided, and access is granted
	First   int    // where the line begins; it may be continued
	Line    int    // the number that libwrap logs for it: where it ends
	Text    string // the line, continued ones joined

	Daemon, Client Element // the patterns that matched
	Option         string  // the option that decided instead of the file: allow, deny, twist
	Fault          string  // the mistake that decided, in libwrap's words; the rule need not match then

	// Reasons is what could not be evaluated. With a verdict other than
	// Unknown it can only change which line decides.
	Reasons []string
	// Warnings is what libwrap logs on this request beside the match.
	Warnings []Warning
}

// Evaluate decides as hosts_access(3) does: the first matching rule of
// hosts.allow grants, else the first of hosts.deny denies, else access is
// granted. The options of the rule may decide otherwise.
func Evaluate(t Tables, r Request) Decision {
	e := evaluator{matcher: newMatcher(t.Open, r)}
	if e.table(t.Allow, Granted) && e.table(t.Deny, Denied) {
		e.add(Decision{Verdict: Granted})
	}
	return e.decision()
}

type evaluator struct {
	*matcher
	outcomes []Decision // what may become of it, in the order of the rules; the last needs no doubt
	warnings []Warning
	file     string
	line     int
	text     string
}

func (e *evaluator) add(d Decision) {
	d.Reasons = slices.Clone(d.Reasons)
	e.outcomes = append(e.outcomes, d)
}

func (e *evaluator) warn(fatal bool, message string) {
	w := Warning{File: e.file, Line: e.line, Text: e.text, Message: message, Fatal: fatal}
	e.warnings = append(e.warnings, w)
}

// table looks for a rule that matches, and says whether the search may go on after this table.
func (e *evaluator) table(t Table, own Verdict) (through bool) {
	e.file, e.line, e.text = "", 0, ""
	fault := Decision{Verdict: Denied, File: t.Path}
	switch {
	case t.Refused:
		fault.Fault = "cannot open " + t.Path + ": Permission denied"
		e.warn(false, fault.Fault)
		return e.giveUp(fault, own)
	case t.empty():
		return true
	case t.Err != nil:
		e.add(Decision{Verdict: Unknown, File: t.Path, Reasons: []string{t.Path + " is not read: " + cause(t.Err).Error()}})
		return true
	}
	e.file = t.Path
	s := lines{rest: t.Data}
	for l, ok := s.next(); ok; l, ok = s.next() {
		e.line, e.text = l.logged, strings.Trim(l.text, space)
		if !l.whole {
			e.warn(false, "missing newline or line too long")
			e.warn(false, "all the subsequent rules will be ignored")
			fault.First, fault.Line, fault.Text, fault.Fault = l.first, l.last, e.text, "missing newline or line too long"
			return e.giveUp(fault, own)
		}
		if l.comment() || l.blank() {
			continue
		}
		r, ok := l.rule(t.Path)
		if !ok {
			e.warn(false, `missing ":" separator`)
			continue
		}
		found, next := e.rule(r, own)
		through = through || next
		if found == yes {
			return through
		}
	}
	return true
}

// giveUp is what libwrap does when it cannot read on: hosts.allow grants
// nothing more, and hosts.deny denies everything.
func (e *evaluator) giveUp(d Decision, own Verdict) bool {
	if own == Denied {
		e.add(d)
	}
	return own == Granted
}

// rule adds what a rule leads to. It says whether the rule matches, and
// whether the search may then go on with the next table.
func (e *evaluator) rule(r Rule, own Verdict) (found tri, through bool) {
	e.doubts = nil
	found, daemon := list(tokens(r.Daemons), e.serverPattern)
	if found == no {
		return no, false
	}
	t, client := list(tokens(r.Clients), e.clientPattern)
	if found = min(found, t); found == no {
		return no, false
	}
	d := Decision{Verdict: own, File: r.File, First: r.First, Line: r.Line, Text: r.Text, Daemon: daemon, Client: client}
	if found == maybe {
		d.Reasons = e.doubts
	}
	if !r.hasOpts {
		e.add(d)
		return found, false
	}
	return found, e.options(splitOptions(r.Options), d)
}

// options adds what the options of a rule lead to.
func (e *evaluator) options(all []option, d Decision) (through bool) {
	for _, o := range all {
		fault := o.misuse()
		if fault == "" {
			for _, s := range o.badExpansions() {
				e.warn(false, s)
			}
			fault = o.badValue()
		}
		if fault != "" {
			e.warn(true, fault)
			d.Verdict, d.Fault = Denied, fault
			e.add(d)
			return false
		}
		switch {
		case o.is("allow"):
			d.Verdict, d.Option = Granted, "allow"
		case o.is("deny"):
			d.Verdict, d.Option = Denied, "deny"
		case o.is("twist"):
			d.Verdict, d.Option = Delegated, "twist"
		case o.is("aclexec"):
			through = true
			d.Reasons = append(slices.Clone(d.Reasons), "the rule holds unless this command fails, which is not run: "+o.value)
		case o.is("user"), o.is("group"):
			if reason := e.strangers(o); reason != "" {
				d.Reasons = append(slices.Clone(d.Reasons), reason)
				e.add(d.denied())
			}
		}
		if d.Option != "" { // these jump, whatever a command has said
			through = false
			break
		}
	}
	e.add(d)
	return through
}

func (d Decision) denied() Decision {
	d.Verdict = Denied
	return d
}

// strangers says why a user or group option may be an error: libwrap denies
// when it does not know the name. Debian's does nothing else with one that it knows.
func (e *evaluator) strangers(o option) string {
	user, group, both := splitAt(o.value, '.')
	if o.is("group") {
		user, group, both = "", o.value, true
	}
	for _, x := range []struct {
		kind, name, file string
		asked            bool
	}{{"group", group, "/etc/group", both}, {"user", user, "/etc/passwd", o.is("user")}} {
		if x.asked && !e.account(x.file, x.name) {
			return "the rule denies unless there is a " + x.kind + " " + x.name + ", and " + x.file + " shows none"
		}
	}
	return ""
}

func (e *evaluator) account(file, name string) bool {
	data, err := e.read(file)
	if err != nil || name == "" {
		return false
	}
	return strings.Contains("\n"+string(data), "\n"+name+":")
}

// decision is that on which all outcomes agree, else Unknown.
func (e *evaluator) decision() Decision {
	d := e.outcomes[len(e.outcomes)-1]
	var reasons []string
	for _, o := range e.outcomes {
		for _, s := range o.Reasons {
			if len(reasons) < maxDoubts && !slices.Contains(reasons, s) {
				reasons = append(reasons, s)
			}
		}
		if o.Verdict != d.Verdict {
			d = e.outcomes[0] // the first that cannot be decided
			d.Verdict = Unknown
		}
	}
	d.Reasons, d.Warnings = reasons, e.warnings
	return d
}
