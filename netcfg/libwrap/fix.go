// SPDX-License-Identifier: Apache-2.0

package libwrap

import (
	"net/netip"
	"regexp"
	"strings"
)

// AllowLine is the smallest rule of hosts_access(5) that lets this client use
// this daemon, to be reached before all others; empty when the request does
// not name both.
func AllowLine(r Request) string {
	name := clip(r.Daemon)
	if name == "" || !r.Client.IsValid() {
		return ""
	}
	return daemonPattern(name) + " : " + clientLiteral(r.Client)
}

// daemonPattern matches the daemon and, where the grammar cannot say its name,
// as little else as can be had.
func daemonPattern(name string) string {
	b := []byte(name)
	for i, c := range b {
		if c == '-' || c == '_' || '0' <= c && c <= '9' || 'A' <= upper(c) && upper(c) <= 'Z' || c == '.' && i > 0 && i < len(b)-1 {
			continue
		}
		b[i] = '?'
	}
	_, isPort := port(string(b))
	if isPort || fold(name, "ALL") || fold(name, "KNOWN") || fold(name, "EXCEPT") {
		b[0] = '?'
	}
	return string(b)
}

// clientLiteral leaves the zone out: libwrap does not compare it.
func clientLiteral(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a.String()
	}
	return "[" + a.String() + "]"
}

// Change is shell commands for root, and those that take them back. Both
// write into the file as it is, for it may be mounted over another.
type Change struct {
	Rule     string // see AllowLine
	Commands []string
	Undo     []string
}

var (
	markWord  = regexp.MustCompile(`^[A-Za-z0-9-]+$`)
	plainPath = regexp.MustCompile(`^[A-Za-z0-9_./+-]+$`)
)

// AllowChange inserts [AllowLine] before the first line of the hosts.allow at
// path, as we see it. Above it goes a comment that holds mark alone, by which the
// undo finds it; all else stays as it is, to the byte. With missing the file is
// created, and removed by the undo if nothing else has been written to it.
// ok is false when the request or the mark are not fit for it.
func AllowChange(path string, missing bool, mark string, r Request) (c Change, ok bool) {
	rule := AllowLine(r)
	if rule == "" || !markWord.MatchString(mark) {
		return Change{}, false
	}
	file := shellWord(path)
	insert := "printf '%s\\n' '# " + mark + "' '" + rule + "'"
	// A copy is read while the file is written; it is left behind if that fails.
	const begin, end = `t=$(mktemp) && cp `, ` && rm -f "$t"`
	c.Commands = []string{begin + file + ` "$t" && { ` + insert + `; cat "$t"; } >` + file + end}
	c.Undo = []string{begin + file + ` "$t" && sed '/^# ` + mark + `$/{N;/\n` + basicRegexp.Replace(rule) + `$/d}' "$t" >` + file + end}
	if missing {
		c.Commands = []string{"(umask 022; set -C; " + insert + " >" + file + ")"}
		c.Undo = append(c.Undo, "[ -s "+file+" ] || rm -f "+file)
	}
	c.Rule = rule
	return c, true
}

var basicRegexp = strings.NewReplacer(".", `\.`, "[", `\[`, "]", `\]`)

func shellWord(s string) string {
	if plainPath.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
