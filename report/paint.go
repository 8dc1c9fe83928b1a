// SPDX-License-Identifier: Apache-2.0

package report

import (
	"strings"
	"unicode/utf8"
)

// Terminal colours, by their SGR number.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// page collects the text. Everything that is not ours passes through Clean on the way in.
type page struct {
	strings.Builder
	color bool
	quiet bool
	width int    // 0: as long as it needs
	label string // of the block that is being printed
}

func (p *page) paint(sgr, s string) string {
	if !p.color || s == "" {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

func (p *page) line(parts ...string) {
	for _, s := range parts {
		p.WriteString(s)
	}
	p.WriteByte('\n')
}

// wrap breaks prose between words so that it fits beside an indent. Widths
// below 40 columns are not respected: every line would be a word.
func (p *page) wrap(s string, indent int) []string {
	room := p.width - indent
	if p.width < 40 || room < 20 || utf8.RuneCountInString(s) <= room {
		return []string{s}
	}
	var lines []string
	var b strings.Builder
	n := 0
	for _, word := range strings.Split(s, " ") {
		w := utf8.RuneCountInString(word)
		if n > 0 && n+1+w > room {
			lines = append(lines, b.String())
			b.Reset()
			n = 0
		}
		if n > 0 {
			b.WriteByte(' ')
			n++
		}
		b.WriteString(word)
		n += w
	}
	return append(lines, b.String())
}

func pad(s string, width int) string {
	if n := width - utf8.RuneCountInString(s); n > 0 {
		return s + strings.Repeat(" ", n)
	}
	return s
}
