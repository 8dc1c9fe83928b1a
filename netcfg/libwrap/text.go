// SPDX-License-Identifier: Apache-2.0

package libwrap

import "strings"

// tri is what is known of a match.
type tri int

const (
	no tri = iota
	maybe
	yes
)

func (t tri) not() tri { return yes - t }

func truth(b bool) tri {
	if b {
		return yes
	}
	return no
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'z' {
		return c - 'a' + 'A'
	}
	return c
}

// fold is strcasecmp(3) in the C locale.
func fold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if upper(a[i]) != upper(b[i]) {
			return false
		}
	}
	return true
}

// glob matches with * and ?. Unlike elsewhere, a * that another * follows
// needs something to stand for. The time is the product of the lengths; libwrap's
// own doubles with every *.
func glob(pattern, s string) bool {
	next := make([]bool, len(s)+1) // for each suffix of s: does the rest of the pattern match it?
	next[len(s)] = true
	this := make([]bool, len(s)+1)
	for p := len(pattern) - 1; p >= 0; p-- {
		some := false
		this[len(s)] = pattern[p] == '*' && p == len(pattern)-1
		for i := len(s) - 1; i >= 0; i-- {
			switch c := pattern[p]; {
			case c == '*' && p == len(pattern)-1:
				this[i] = true
			case c == '*':
				some = some || next[i]
				this[i] = some
			default:
				this[i] = (c == '?' || upper(c) == upper(s[i])) && next[i+1]
			}
		}
		this, next = next, this
	}
	return next[0]
}

// splitAt cuts s at the first delimiter outside square brackets. Brackets are
// only counted: one that is never closed hides all that follows.
func splitAt(s string, delimiter byte) (before, after string, found bool) {
	depth := 0
	for i := range len(s) {
		switch {
		case s[i] == '[':
			depth++
		case s[i] == ']':
			depth--
		case depth == 0 && s[i] == delimiter:
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// separators stand between the patterns of a list.
const separators = ", \t\r\n"

func tokens(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(separators, r) })
}

// space is isspace(3) in the C locale.
const space = " \t\n\v\f\r"

// numeric says that a pattern is looked for in the address only.
func numeric(tok string) bool { return strings.Trim(tok, "0123456789./") == "" }

// port reads a daemon pattern that is a port number. Numbers wrap as they do in libwrap.
func port(tok string) (uint16, bool) {
	n, ok := wholeInt(tok, 10)
	if n := uint32(n); ok && n <= 65535 {
		return uint16(n), true
	}
	return 0, false
}
