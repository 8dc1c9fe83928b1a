// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// hopRow is a hop of a walk as people read it, or a run of hops that kept silent.
type hopRow struct {
	ttl    string
	who    string // empty: nobody
	answer string
	after  string
}

func hopRows(w *evidence.Walk) []hopRow {
	var out []hopRow
	for i := 0; i < len(w.Hops); i++ {
		h := w.Hops[i]
		if h.Answer != "" {
			out = append(out, hopRow{fmt.Sprint(h.TTL), hopName(h), hopAnswer(h), hopTime(h)})
			continue
		}
		last := i
		for last+1 < len(w.Hops) && w.Hops[last+1].Answer == "" {
			last++
		}
		ttl := fmt.Sprint(h.TTL)
		if last > i {
			ttl += fmt.Sprintf("–%d", w.Hops[last].TTL)
		}
		out = append(out, hopRow{ttl: ttl})
		i = last
	}
	return out
}

func hopName(h evidence.Hop) string {
	if h.Name == "" {
		return or(h.Address, "?")
	}
	return h.Address + " (" + h.Name + ")"
}

func hopTime(h evidence.Hop) string {
	if h.RTTNS <= 0 {
		return ""
	}
	return ms(h.RTTNS)
}

func addressFamily(s string) int {
	if strings.Contains(s, ":") {
		return 6
	}
	return 4
}

// hopAnswer says what a hop answered.
func hopAnswer(h evidence.Hop) string {
	var s string
	switch h.Answer {
	case evidence.TimeExceeded:
		s = "router"
	case evidence.ICMPError:
		s = "ICMP error"
		if h.Type != nil && h.Code != nil {
			s = icmpText(addressFamily(h.Address), *h.Type, *h.Code)
		}
	case evidence.RSTAnswer:
		s = "RST"
	case evidence.SYNACK:
		s = "SYN-ACK"
	case evidence.Replied:
		s = "reply"
	default:
		s = h.Answer
	}
	if h.MTU > 0 {
		s += fmt.Sprintf(", next MTU %d", h.MTU)
	}
	return s
}

func walkPackets(protocol string) string {
	switch protocol {
	case "tcp":
		return "SYNs"
	case "udp":
		return "datagrams"
	case "icmp":
		return "echo requests"
	}
	return "packets"
}

// hops prints the way beyond this host like traceroute does.
func (p *page) hops(c *evidence.Case) {
	for i := range c.Walks {
		w := &c.Walks[i]
		rows := hopRows(w)
		var ttl, who, answer int
		for j := range rows {
			r := &rows[j]
			r.who, r.answer = Clean(or(r.who, "silent")), Clean(r.answer)
			ttl, who, answer = max(ttl, len([]rune(r.ttl))), max(who, len([]rune(r.who))), max(answer, len([]rune(r.answer)))
		}
		p.labelled("hops", walkPackets(w.Protocol)+" to "+Clean(w.Dest)+" with a rising TTL:")
		for _, r := range rows {
			p.labelled("hops", strings.TrimRight(pad(r.ttl, ttl)+"  "+pad(r.who, who)+"  "+pad(r.answer, answer)+"  "+r.after, " "))
		}
		if hint := wayBack(w); hint != "" {
			p.labelled("hops", Clean(hint))
		}
	}
}

// wayBack is the hint that answers come back by another way, or empty.
func wayBack(w *evidence.Walk) string {
	b := w.WayBack()
	if b == nil {
		return ""
	}
	n, more := b.Longer, "more"
	if n < 0 {
		n, more = -n, "fewer"
	}
	return fmt.Sprintf("hint: answers from TTL %d on seem to come back by %d %s routers than there are on the way there, guessing that %s sends with a TTL of %d",
		b.From.TTL, n, more, b.From.Address, b.Initial)
}
