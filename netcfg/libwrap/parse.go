// SPDX-License-Identifier: Apache-2.0

package libwrap

import (
	"bytes"
	"fmt"
	"strings"
)

// Parse returns the rules of both files, and a warning for whatever libwrap
// does not do as it reads, with its effect. Lines are counted as an editor does,
// by where they begin.
func Parse(t Tables) (rules []Rule, warnings []Warning) {
	for _, x := range []struct {
		Table
		verdict Verdict
	}{{t.Allow, Granted}, {t.Deny, Denied}} {
		p := parser{Table: x.Table, verdict: x.verdict, open: newMatcher(t.Open, Request{})}
		p.run()
		rules, warnings = append(rules, p.rules...), append(warnings, p.warnings...)
	}
	return rules, warnings
}

type parser struct {
	Table
	verdict  Verdict
	open     *matcher
	rules    []Rule
	warnings []Warning
	line     line
	cut      bool // an address of this line is cut by its colons
}

func (p *parser) warn(format string, args ...any) {
	w := Warning{File: p.Path, Line: p.line.first, Text: strings.Trim(p.line.text, space), Message: fmt.Sprintf(format, args...)}
	p.warnings = append(p.warnings, w)
}

func (p *parser) run() {
	switch {
	case p.Refused:
		p.warn("the server may not open this file: %s", p.giveUp())
		return
	case p.empty():
		return
	case p.Err != nil:
		p.warn("not read: %v", cause(p.Err))
		return
	}
	s := lines{rest: p.Data}
	for l, ok := s.next(); ok; l, ok = s.next() {
		p.line = l
		if !l.whole {
			p.unfinished()
			return
		}
		p.physical(&s)
		if l.comment() || l.blank() {
			continue
		}
		r, ok := l.rule(p.Path)
		if !ok {
			p.noColon()
			continue
		}
		p.rules = append(p.rules, r)
		p.rule(r)
	}
}

// giveUp says what libwrap does when it reads no further.
func (p *parser) giveUp() string {
	if p.verdict == Denied {
		return "everyone is denied whom hosts.allow and the lines above do not decide on"
	}
	return "it and all that follows is ignored"
}

func (p *parser) unfinished() {
	switch {
	case len(p.line.text) >= lineRoom-1:
		p.warn("the line is longer than %d bytes, those that continue it included: %s", lineRoom-2, p.giveUp())
	case bytes.HasSuffix(p.Data, []byte("\n")):
		p.warn("the last line ends in a backslash, and nothing follows: %s", p.giveUp())
	default:
		p.warn("the last line has no newline at its end: %s", p.giveUp())
	}
}

// physical looks at how lines are joined.
func (p *parser) physical(s *lines) {
	l := p.line
	body := strings.TrimSuffix(l.text, "\n")
	if l.nul {
		p.warn("a NUL byte hides the rest of its line, and joins it with the next")
	}
	if l.comment() && l.joined {
		p.warn("the comment ends in a backslash: the next line is part of it")
	}
	if t := strings.TrimRight(body, space); t != body && strings.HasSuffix(t, `\`) && !l.comment() {
		p.warn("the backslash is not the last byte of the line (a blank or a carriage return follows): the line is not continued")
	}
}

func (p *parser) noColon() {
	s := strings.TrimLeft(p.line.text, space)
	switch {
	case strings.HasPrefix(s, "#"):
		p.warn("a comment must begin in the first column: libwrap complains and skips the line")
	case strings.ContainsAny(s, "[]") && strings.Contains(s, ":"):
		p.warn("square brackets do not pair: no colon is found, and the line is skipped")
	default:
		p.warn("no colon: the line is skipped")
	}
}

func (p *parser) rule(r Rule) {
	p.cut = false
	p.unbracketed(r)
	p.list(r.Daemons, "daemon", p.daemon)
	p.list(r.Clients, "client", p.client)
	if !r.hasOpts {
		return
	}
	for _, o := range splitOptions(r.Options) {
		if fault := o.misuse(); fault != "" {
			p.fatal(fault)
			return
		}
		for _, s := range o.badExpansions() {
			p.warn("%s in %s: it becomes nothing", s, o.key)
		}
		if fault := o.badValue(); fault != "" {
			p.fatal(fault)
			return
		}
	}
}

func (p *parser) fatal(fault string) {
	p.warn("%s: whoever matches the line is denied", fault)
	p.warnings[len(p.warnings)-1].Fatal = true
}

// unbracketed finds an IPv6 address that its own colons cut.
func (p *parser) unbracketed(r Rule) {
	text := strings.TrimSuffix(p.line.text, "\n")
	client := len(r.Daemons) + 1
	for _, x := range []struct{ begin, colon int }{{0, client - 1}, {client, client + len(r.Clients)}} {
		if x.colon >= len(text) {
			continue
		}
		from := x.begin + strings.LastIndexAny(text[x.begin:x.colon], separators+"@") + 1
		word, _, _ := strings.Cut(text[from:]+" ", " ")
		if len(tokens(word)) == 0 {
			continue
		}
		if word = tokens(word)[0]; looksLike6(word) || looksLike6(strings.TrimSuffix(word, ":")) {
			p.warn("%s: an IPv6 address needs square brackets; libwrap cuts it at its first colon", word)
			p.cut = true
		}
	}
}

func looksLike6(word string) bool {
	address, _, _ := strings.Cut(word, "/")
	_, ok := parse6(address)
	return ok || strings.Count(address, ":") > 1 && strings.Trim(address, ":") != "" && strings.Trim(address, ":0123456789abcdefABCDEF") == ""
}

func (p *parser) list(text, what string, check func(string)) {
	toks := tokens(text)
	if len(toks) == 0 || fold(toks[0], "EXCEPT") {
		p.warn("the list of %ss is empty: the line matches nothing", what)
	}
	for _, tok := range toks {
		if tok[0] == '#' {
			p.warn("a # after the first column begins no comment: all that follows belongs to the list of %ss", what)
		}
		if strings.Count(tok, "*") > manyStars {
			p.warn("%s: libwrap's time for a match can double with every *", tok)
		}
		check(tok)
	}
}

// manyStars take libwrap noticeable time with long names.
const manyStars = 8

func (p *parser) daemon(tok string) {
	name, host, at := splitFrom1(tok, '@')
	if at {
		p.host(host)
	}
	if n, ok := port(name); ok {
		p.warn("%s means port %d of the server, not a daemon of that name", name, n)
		return
	}
	for _, w := range []string{"LOCAL", "PARANOID"} {
		if fold(name, w) {
			p.warn("%s is no wildcard for a daemon: it matches one of that name only", name)
		}
	}
}

func (p *parser) client(tok string) {
	if _, host, at := splitFrom1(tok, '@'); at {
		tok = host
	}
	p.host(tok)
}
