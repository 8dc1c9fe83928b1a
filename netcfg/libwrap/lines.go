// SPDX-License-Identifier: Apache-2.0

package libwrap

import (
	"bytes"
	"strings"
)

// lineRoom is libwrap's buffer for a logical line, its end mark included.
const lineRoom = 2048

// line is a logical line: physical ones that end in a backslash are joined with the next.
type line struct {
	text        string
	first, last int // physical lines of the file, from 1
	logged      int // as libwrap counts: the last physical line that it has read whole
	whole       bool
	joined      bool // more than one physical line
	nul         bool // holds a NUL byte, which hides the rest of its physical line and its end
}

// lines reads a file as libwrap does. Logical lines have no backslash-newline,
// and keep the newline at their end.
type lines struct {
	rest              []byte
	physical, counter int
}

// chunk takes what fgets(3) would: at most room-1 bytes, up to a newline.
func (s *lines) chunk(room int) []byte {
	n := min(len(s.rest), room-1)
	if i := bytes.IndexByte(s.rest[:n], '\n'); i >= 0 {
		n = i + 1
	}
	c := s.rest[:n]
	s.rest = s.rest[n:]
	return c
}

func (s *lines) next() (line, bool) {
	l := line{first: s.physical + 1}
	var text strings.Builder
	room := lineRoom
	for len(s.rest) > 0 && room > 1 {
		c := s.chunk(room)
		l.last = s.physical + 1
		if bytes.HasSuffix(c, []byte("\n")) {
			s.physical++
		}
		c, _, nul := bytes.Cut(c, []byte{0})
		l.nul = l.nul || nul
		if bytes.HasSuffix(c, []byte("\n")) {
			s.counter++
			if !bytes.HasSuffix(c, []byte("\\\n")) {
				text.Write(c)
				l.whole = true
				break
			}
			c = c[:len(c)-2]
		}
		text.Write(c)
		room -= len(c)
	}
	l.text, l.logged, l.joined = text.String(), s.counter, l.last > l.first
	return l, l.text != ""
}

func (l line) comment() bool { return l.text[0] == '#' }
func (l line) blank() bool   { return strings.Trim(l.text, " \t\r\n") == "" }

// Rule is one rule of hosts.allow or hosts.deny, hosts_access(5) "ACCESS CONTROL RULES".
type Rule struct {
	File    string
	First   int    // the physical line where it begins, from 1
	Line    int    // the one where it ends, which is the number that libwrap logs
	Text    string // continued lines joined, blanks around it removed
	Daemons string
	Clients string
	Options string // what follows the second colon, or is absent
	hasOpts bool
}

func (l line) rule(file string) (Rule, bool) {
	r := Rule{File: file, First: l.first, Line: l.logged, Text: strings.Trim(l.text, space)}
	var ok bool
	if r.Daemons, r.Clients, ok = splitAt(l.text, ':'); !ok {
		return r, false
	}
	r.Clients, r.Options, r.hasOpts = splitAt(r.Clients, ':')
	return r, true
}
