// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pathtrace/pathtrace/evidence"
)

// Measures of the picture, in its own units; it is as wide as a telephone's
// screen, where a unit is a pixel.
const (
	pictureWidth = 400
	rowHeight    = 22 // of a station's name
	textHeight   = 16 // of a line of what happened there
	rowGap       = 12
)

// picture draws the way as a map of lines: a lane for each namespace, a station
// for each hook, device or decision, time going down.
func (h *hypertext) picture(lines []line) {
	lanes := []string{}
	for _, l := range lines {
		if l.at != untimed && !slices.Contains(lanes, l.where) {
			lanes = append(lanes, l.where)
		}
	}
	if len(lanes) == 0 {
		return
	}
	pitch := min(26, 160/len(lanes))
	x := func(where string) int { return 14 + pitch*max(0, slices.Index(lanes, where)) }
	text := 14 + pitch*len(lanes) + 4
	d := &drawing{text: text, columns: (pictureWidth - text) * 10 / 72}
	last := ""
	for _, l := range lines {
		if l.at == untimed {
			continue
		}
		d.row(l, x(l.where), l.where != last)
		last = l.where
	}
	h.put("<section><h2>The way of the packet</h2>\n")
	h.put("<svg class=\"way\" preserveAspectRatio=\"xMinYMin\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">\n", pictureWidth, d.y+4, pictureTitle(h.c, lines))
	for _, w := range lanes {
		fmt.Fprintf(h, "<line class=\"lane\" x1=\"%d\" x2=\"%d\" y1=\"0\" y2=\"%d\"/>\n", x(w), x(w), d.y)
	}
	h.WriteString(d.track.String() + d.rows.String() + "</svg></section>\n")
}

// beyond is the lane of what we do not watch.
const beyond = "beyond this host"

// ended adds where it ended when no event shows that: a packet that was used up,
// an answer that never came, or a host that we do not watch. Such an end has no
// time of its own: it stands after the last station of that place, or where the packet left.
func (h *hypertext) ended(lines []line) []line {
	if word(h.v) != "not reachable" || slices.ContainsFunc(lines, func(l line) bool { return strings.HasPrefix(l.mark, "✗") }) {
		return lines
	}
	end := line{where: place(h.v.Where.At(h.c)), station: h.v.Cause, text: h.summary(), mark: "✗", assumed: true}
	at := lastOf(lines, func(l line) bool { return l.where == end.where })
	if strings.HasPrefix(h.v.Cause, "remote-") {
		end.where = beyond
		if left := lastOf(lines, func(l line) bool { return strings.HasPrefix(l.station, "out ") }); left >= 0 {
			at = left
		}
	}
	if at < 0 {
		return lines
	}
	end.at = lines[at].at
	return slices.Insert(slices.Clone(lines), at+1, end)
}

// lastOf returns where the last timed station is of which is holds, or -1.
func lastOf(lines []line, is func(line) bool) int {
	for i := len(lines) - 1; i >= 0; i-- {
		if lines[i].at != untimed && is(lines[i]) {
			return i
		}
	}
	return -1
}

func pictureTitle(c *evidence.Case, lines []line) string {
	for _, l := range lines {
		if strings.HasPrefix(l.mark, "✗") {
			return fmt.Sprintf("from %s to %s: it ends in %s at %s", c.Probe.Netns, endpoint(c.Target), l.where, l.station)
		}
	}
	return fmt.Sprintf("from %s to %s", c.Probe.Netns, endpoint(c.Target))
}

type drawing struct {
	y           int // where the next row begins
	text        int // where texts begin
	columns     int // how many characters fit
	px, py      int // the station before
	dead        bool
	track, rows strings.Builder
}

func (d *drawing) row(l line, x int, newLane bool) {
	if newLane {
		fmt.Fprintf(&d.rows, "<text class=\"ns\" x=\"%d\" y=\"%d\">%s</text>\n", d.text, d.y+13, esc(cut(laneName(l.where), (pictureWidth-d.text)*10/78)))
		d.y += 18
	}
	y := d.y + 8
	died := strings.HasPrefix(l.mark, "✗")
	if d.px > 0 {
		class := "track"
		if d.dead {
			class = "track after" // nothing travels here any more
		}
		mid := (d.py + y) / 2
		fmt.Fprintf(&d.track, "<path class=\"%s\" d=\"M%d %dC%d %d %d %d %d %d\"/>\n", class, d.px, d.py, d.px, mid, x, mid, x, y)
	}
	d.px, d.py = x, y
	switch {
	case died:
		fmt.Fprintf(&d.rows, "<circle class=\"died\" cx=\"%d\" cy=\"%d\" r=\"9\"/><path class=\"cross\" d=\"M%d %dl8 8m0 -8l-8 8\"/>\n", x, y, x-4, y-4)
		d.dead = true
	default:
		fmt.Fprintf(&d.rows, "<circle class=\"stop\" cx=\"%d\" cy=\"%d\" r=\"5\"/>\n", x, y)
	}
	class := "st"
	if died {
		class = "st died"
	}
	fmt.Fprintf(&d.rows, "<text class=\"%s\" x=\"%d\" y=\"%d\">%s</text><text class=\"at\" x=\"%d\" y=\"%d\">%s</text>\n",
		class, d.text, y+5, esc(cut(stationName(l), (pictureWidth-d.text-56)*10/88)), pictureWidth-4, y+5, esc(l.when()))
	d.y += rowHeight
	for _, s := range fold(stationText(l), d.columns, 3) {
		fmt.Fprintf(&d.rows, "<text class=\"what\" x=\"%d\" y=\"%d\">%s</text>\n", d.text, d.y+8, esc(s))
		d.y += textHeight
	}
	d.y += rowGap
}

func laneName(where string) string {
	if where == beyond {
		return where
	}
	return "in " + where
}

// stationName is what the ladder's short station is called in full.
func stationName(l line) string {
	s := l.station
	dev, in := strings.CutPrefix(s, "in ")
	out, leaves := strings.CutPrefix(s, "out ")
	switch {
	case in:
		return "arrives on " + dev
	case leaves:
		return "leaves by " + out
	case s == "route":
		return "routing decision"
	case s == "connect" || s == "send" || s == "recv" || s == "read":
		return s + "(): the result"
	case s == "drop":
		return "dropped by the kernel"
	case s == "neighbor":
		return "link address (ARP, ND)"
	case s == "libwrap":
		return "tcp wrappers (libwrap)"
	case s == "again":
		return "sent again"
	case s == "icmp":
		return "answers by ICMP"
	case s == "rst":
		return "answers by RST"
	case s != "" && s == strings.ToUpper(s):
		return "firewall, hook " + s
	}
	return s
}

// usual is what every routing decision says where nobody has set up rules of their own.
var usual = strings.NewReplacer(", table main, ip rule 32766", "", ", table local, ip rule 0", "")

// stationText is what happened at a station, without what the picture itself shows.
func stationText(l line) string {
	mark := strings.TrimPrefix(l.mark, "✗")
	if l.station == "drop" {
		mark = strings.TrimPrefix(mark, " DROP")
	}
	return usual.Replace(l.text) + " " + mark
}

func cut(s string, n int) string { return short(Clean(s), max(4, n-1)) }

// fold breaks s into at most max lines of about n characters; the last says by … that there was more.
func fold(s string, n, most int) []string {
	var out []string
	line := ""
	for _, w := range strings.Fields(Clean(s)) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(w) > n {
			if len(out) == most-1 {
				return append(out, cut(line, n)+" …")
			}
			out, line = append(out, cut(line, n+1)), ""
		}
		if line != "" {
			line += " "
		}
		line += w
	}
	if line != "" {
		out = append(out, cut(line, n+1))
	}
	return out
}
