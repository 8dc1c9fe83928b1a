// SPDX-License-Identifier: Apache-2.0

package libwrap

import (
	"fmt"
	"slices"
	"strings"
)

// option is one option of a rule, hosts_options(5).
type option struct {
	key, value string
	last       bool
}

// Flags of options.
const (
	needsValue = 1 << iota
	mayHaveValue
	mustBeLast
	expands
)

// keywords are the options that Debian's libwrap knows.
var keywords = map[string]int{
	"USER": needsValue, "GROUP": needsValue, "UMASK": needsValue, "LINGER": needsValue, "KEEPALIVE": 0,
	"ACLEXEC": needsValue | expands, "SPAWN": needsValue | expands, "TWIST": needsValue | expands | mustBeLast,
	"RFC931": mayHaveValue, "SETENV": needsValue | expands, "NICE": mayHaveValue, "SEVERITY": needsValue,
	"ALLOW": mustBeLast, "DENY": mustBeLast, "BANNERS": needsValue,
}

// splitOptions cuts at colons; \: is a colon that does not cut.
func splitOptions(s string) []option {
	var fields []string
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == ':':
			fields = append(fields, b.String())
			b.Reset()
			if i+1 == len(s) {
				return parseOptions(fields)
			}
			continue
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == ':':
			i++
		}
		b.WriteByte(s[i])
	}
	return parseOptions(append(fields, b.String()))
}

func parseOptions(fields []string) []option {
	out := make([]option, 0, len(fields))
	for i, f := range fields {
		o := option{last: i == len(fields)-1}
		f = strings.Trim(f, space)
		n := strings.IndexAny(f, "= \t\r\n")
		if n < 0 {
			o.key = f
			out = append(out, o)
			continue
		}
		o.key, o.value = f[:n], strings.TrimLeft(f[n:], " \t\r\n")
		if strings.HasPrefix(o.value, "=") {
			o.value = strings.TrimLeft(o.value[1:], " \t\r\n")
		}
		out = append(out, o)
	}
	return out
}

func (o option) is(key string) bool { return fold(o.key, key) }

// misuse is why libwrap denies access on this option whatever its value, in its own words.
func (o option) misuse() string {
	if o.key == "" {
		return "missing option name"
	}
	flags, ok := keywords[strings.Map(upperRune, o.key)]
	switch {
	case !ok:
		return fmt.Sprintf(`bad option name: "%s"`, o.key)
	case o.value == "" && flags&needsValue != 0:
		return fmt.Sprintf(`option "%s" requires value`, o.key)
	case o.value != "" && flags&(needsValue|mayHaveValue) == 0:
		return fmt.Sprintf(`option "%s" requires no value`, o.key)
	case !o.last && flags&mustBeLast != 0:
		return fmt.Sprintf(`option "%s" must be at end`, o.key)
	}
	return ""
}

func upperRune(r rune) rune {
	if 'a' <= r && r <= 'z' {
		return r - 'a' + 'A'
	}
	return r
}

// badValue is why libwrap denies access because of the value, as far as the text alone can tell.
func (o option) badValue() string {
	n, whole := wholeInt(o.value, 10)
	number := int32(n)
	switch {
	case o.is("umask"):
		n, whole := wholeInt(o.value, 8)
		if m := uint32(n); !whole || m&0o777 != m {
			return fmt.Sprintf(`bad umask value: "%s"`, o.value)
		}
	case o.is("linger") && (!whole || number < 0):
		return fmt.Sprintf(`bad linger value: "%s"`, o.value)
	case o.is("nice") && o.value != "" && !whole:
		return fmt.Sprintf(`bad nice value: "%s"`, o.value)
	case o.is("rfc931") && o.value != "" && (!whole || number <= 0):
		return fmt.Sprintf(`bad rfc931 timeout: "%s"`, o.value)
	case o.is("severity"):
		return badSeverity(o.value)
	case o.is("setenv"):
		value, _ := o.expand()
		name := value[:strings.IndexAny(value+" ", " \t\r\n")]
		if name == "" || strings.Contains(name, "=") {
			return "memory allocation failure" // so it says, when setenv(3) refuses the name
		}
	}
	return ""
}

var (
	facilities = []string{"KERN", "USER", "MAIL", "DAEMON", "AUTH", "LPR", "NEWS", "UUCP", "CRON",
		"LOCAL0", "LOCAL1", "LOCAL2", "LOCAL3", "LOCAL4", "LOCAL5", "LOCAL6", "LOCAL7"}
	levels = []string{"EMERG", "ALERT", "CRIT", "ERR", "WARNING", "NOTICE", "INFO", "DEBUG"}
)

func badSeverity(value string) string {
	facility, level, both := splitAt(value, '.')
	if !both {
		level = value
	}
	for _, x := range []struct {
		word  string
		known []string
		asked bool
	}{{facility, facilities, both}, {level, levels, true}} {
		if x.asked && !slices.ContainsFunc(x.known, func(s string) bool { return fold(s, x.word) }) {
			return fmt.Sprintf(`bad syslog facility or severity: "%s"`, x.word)
		}
	}
	return ""
}

// badExpansions are the %letters of hosts_access(5) "% EXPANSIONS" that libwrap does not know.
func (o option) badExpansions() []string {
	if keywords[strings.Map(upperRune, o.key)]&expands == 0 {
		return nil
	}
	_, bad := o.expand()
	return bad
}

// expand puts an x for every %letter, and nothing for those that libwrap does not know.
func (o option) expand() (value string, bad []string) {
	var b strings.Builder
	for i := 0; i < len(o.value); i++ {
		switch {
		case o.value[i] != '%' || i+1 == len(o.value):
			b.WriteByte(o.value[i])
			continue
		case strings.Contains("aAcdhHnNprRsu%", o.value[i+1:i+2]):
			b.WriteByte('x')
		default:
			bad = append(bad, fmt.Sprintf("unrecognized %%%c", o.value[i+1]))
		}
		i++
	}
	return strings.Trim(b.String(), space), bad
}
