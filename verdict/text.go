// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// target names what was probed: 10.0.0.5:80/tcp.
func target(c *evidence.Case) string {
	a := c.Target.Address
	if a == "" {
		a = c.Target.Input
	}
	if c.Target.Port == 0 {
		return a + "/" + c.Target.Protocol
	}
	return endpoint(a, c.Target.Port) + "/" + c.Target.Protocol
}

func endpoint(addr string, port int) string {
	if strings.Contains(addr, ":") && !strings.HasPrefix(addr, "[") {
		addr = "[" + addr + "]"
	}
	return addr + ":" + strconv.Itoa(port)
}

// since says when, in the words of someone who started the connection.
func since(c *evidence.Case, e *evidence.Event) string {
	after := "connect()"
	if c.Target.Protocol != "tcp" {
		after = "the send"
	}
	return fmt.Sprintf("%.2f ms after %s", float64(e.At)/1e6, after)
}

func name(netns string) string {
	host, own := evidence.SplitNetns(netns)
	switch own {
	case "":
		own = "a namespace the kernel did not name"
	case "init":
		own = "the initial namespace"
	}
	if host != "" {
		own += " on " + host
	}
	return own
}

// placed reports whether the kernel said in which namespace e happened.
func placed(e *evidence.Event) bool {
	_, own := evidence.SplitNetns(e.Netns)
	return own != ""
}

// packet names a packet: SYN, SYN-ACK, datagram …
func packet(p *evidence.Packet) string {
	if p == nil {
		return "packet"
	}
	switch {
	case p.Fragment:
		return "fragment"
	case p.Protocol == "arp":
		return "ARP request"
	case p.Protocol == "udp":
		return "datagram"
	case strings.HasPrefix(p.Protocol, "icmp"):
		if p.Type != nil && p.Code != nil {
			return fmt.Sprintf("ICMP %d/%d", *p.Type, *p.Code)
		}
		return "ICMP packet"
	case p.Protocol != "tcp":
		return "packet"
	case p.Flags == "S":
		return "SYN"
	case p.Flags == "S.":
		return "SYN-ACK"
	case strings.Contains(p.Flags, "R"):
		return "RST"
	case strings.Contains(p.Flags, "F"):
		return "FIN"
	case speaks(p):
		return "data segment"
	case p.Flags == ".":
		return "ACK"
	}
	return "segment [" + p.Flags + "]"
}

// quoted sets a text off that may itself have quotes.
func quoted(s string) string {
	if strings.Contains(s, `"`) {
		return "'" + s + "'"
	}
	return `"` + s + `"`
}

// whose says our SYN, or the SYN-ACK to us.
func whose(c *evidence.Case, e *evidence.Event) string {
	if e.Packet != nil && e.Packet.Protocol == "arp" {
		return "the ARP request"
	}
	p, in := e.Packet, ""
	if p != nil && p.Carries != nil {
		p, in = p.Inner(), "the tunnel's packet with "
	}
	if direction(c, e) == evidence.Reply {
		return in + "the reply (" + packet(p) + ")"
	}
	return in + "our " + packet(p)
}

// died tells a fate in the kernel's own words.
func died(c *evidence.Case, e *evidence.Event) string {
	var b strings.Builder
	b.WriteString(whose(c, e))
	switch e.Kind {
	case evidence.Consume:
		b.WriteString(" was used up")
	case evidence.ResetSent:
		b.WriteString(" was answered with a RST")
	case evidence.RuleVerdict:
		b.WriteString(" was dropped by the firewall")
	default:
		b.WriteString(" was freed")
	}
	if e.Function != "" {
		b.WriteString(" in " + e.Function)
	}
	if e.Reason != "" {
		b.WriteString(" with " + e.Reason)
	}
	b.WriteString(" " + since(c, e) + ", in " + name(e.Netns))
	if e.Device != "" {
		b.WriteString(" on " + e.Device)
	}
	if e.Hook != "" {
		b.WriteString(", hook " + e.Hook)
	}
	if e.Kind == evidence.Consume {
		b.WriteString(", and no SYN-ACK followed")
	}
	return b.String()
}

// sight tells where a packet was seen.
func sight(c *evidence.Case, e *evidence.Event) string {
	s := whose(c, e)
	switch e.Kind {
	case evidence.Receive:
		s += " arrived"
	case evidence.Transmit:
		s += " was queued to leave"
	default:
		s += " (" + string(e.Kind) + ")"
	}
	if e.Device != "" {
		s += " on " + e.Device
	}
	return s + " in " + name(e.Netns)
}

func outcome(c *evidence.Case) string {
	o := c.Probe.Outcome
	if o == "" {
		o = "nothing yet"
	}
	if c.Probe.Errno != "" {
		o += " (" + c.Probe.Errno
		if c.Probe.Syscall != "" {
			o += " from " + c.Probe.Syscall
		}
		o += ")"
	}
	return o
}

// parseAddr reads an address with or without a zone or an IPv4 address mapped into IPv6.
func parseAddr(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		return netip.Addr{}, false
	}
	return a.WithZone("").Unmap(), true
}

func sameAddr(a, b string) bool {
	x, ok := parseAddr(a)
	if !ok {
		return false
	}
	y, ok := parseAddr(b)
	return ok && x == y
}

// splitLocal takes "127.0.0.1:80", "[::]:80" and "*:80" apart; a wildcard gives the unspecified address of the family.
func splitLocal(s string, family int) (netip.Addr, int, bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return netip.Addr{}, 0, false
	}
	port, err := strconv.Atoi(s[i+1:])
	if err != nil {
		return netip.Addr{}, 0, false
	}
	host := strings.Trim(s[:i], "[]")
	if host == "*" || host == "" {
		if family == 6 {
			return netip.IPv6Unspecified(), port, true
		}
		return netip.IPv4Unspecified(), port, true
	}
	if j := strings.IndexByte(host, '%'); j >= 0 {
		host = host[:j]
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}, 0, false
	}
	return a.Unmap(), port, true
}

// because gives an event's reason as an aside, nothing when the kernel gave none (of a RST before Linux 6.10).
func because(e *evidence.Event) string {
	if e.Reason == "" {
		return ""
	}
	return " (" + e.Reason + ")"
}
