// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

var reachCauses = []Cause{
	{
		ID:    "reachable",
		Means: "it did not die: connected, and answered if asked",
		Needs: "the probe's outcome; sockets of the namespace that took the SYN (process)",
		Find:  findReachable,
	},
	{
		ID:    "app-error",
		Means: "it answered with an error (421, 5xx, a TLS alert), in another protocol, or not what --expect demands",
		Needs: "an answer that its protocol calls an error, or that does not fit what was awaited; sockets (process)",
		Find:  findAppError,
	},
}

func findReachable(c *evidence.Case, e *evidence.Event) *Verdict {
	if e != nil || c.Probe.Unmatched {
		return nil
	}
	if p := proxied(c); p != nil && c.Probe.Outcome == evidence.Connected && !tookProxy(c, p) {
		return nil // who was reached is the proxy
	}
	how := ""
	switch {
	case success(c):
		how = fmt.Sprintf("%s after %.2f ms", c.Probe.Outcome, float64(c.Probe.OutcomeNS())/1e6)
	case c.Probe.Outcome != evidence.Silent || c.Probe.Expected || c.Target.Protocol == "icmp": // an echo request awaits its reply
		return nil
	case c.Target.Protocol == "tcp" || served(c) != nil && findUnrouted(c, nil) == nil:
		how = "taken in, and no answer was awaited"
	default:
		return nil
	}
	if said := words(c); said != "" {
		how += ", it said " + said
	}
	v := &Verdict{Certainty: Observed, Proof: []string{"the probe: " + how}}
	by := serverSide(c, v)
	v.Summary = fmt.Sprintf("%s: reachable: %s%s", target(c), how, by)
	if trouble := tlsFacts(c, v); trouble != "" {
		v.Summary += "; but clients will refuse it: " + trouble
	}
	return v
}

// shown is how much of an answer a sentence holds, in bytes.
const shown = 300

// words is what the other end said, quoted: the line that its protocol makes
// the answer, else the beginning of it all.
func words(c *evidence.Case) string {
	s := c.Probe.Banner
	if d := c.Probe.Dialogue; d != nil && d.Line != "" {
		s = d.Line
	}
	if s == "" {
		return ""
	}
	if len(s) > shown {
		return fmt.Sprintf("%q…", s[:shown])
	}
	return fmt.Sprintf("%q", s)
}

// tlsFacts adds what was seen of TLS to the proof, and returns why clients that check the certificate refuse it.
func tlsFacts(c *evidence.Case, v *Verdict) string {
	d := c.Probe.Dialogue
	if d == nil || d.TLS == nil {
		return ""
	}
	t := d.TLS
	if t.Version != "" {
		v.Proof = append(v.Proof, fmt.Sprintf("%s was agreed on, with %s", t.Version, t.Cipher))
	}
	if t.Failed != "" {
		v.Proof = append(v.Proof, "the TLS handshake came to no end: "+t.Failed)
	}
	if len(t.Certificates) > 0 {
		leaf := t.Certificates[0]
		v.Proof = append(v.Proof, fmt.Sprintf("its certificate: subject %s, issuer %s, valid from %s to %s", leaf.Subject, leaf.Issuer,
			leaf.NotBefore.Format("2006-01-02"), leaf.NotAfter.Format("2006-01-02")))
	}
	v.Proof = append(v.Proof, t.Problems...)
	if t.Unverified != "" {
		v.Unseen = append(v.Unseen, "whether the certificate is trusted: "+t.Unverified)
	}
	return strings.Join(t.Problems, "; ")
}

func findAppError(c *evidence.Case, e *evidence.Event) *Verdict {
	if e != nil || !c.Probe.Unmatched {
		return nil
	}
	what := "answered, but not what --expect demands"
	switch d := c.Probe.Dialogue; {
	case d != nil && d.TLS != nil && d.TLS.Alert != "":
		what = "refused the TLS session with an alert"
	case d != nil && d.Reply == evidence.ReplyError, errorBanner(c.Probe.Banner):
		what = "answered with an error"
	case d != nil && d.Reply == evidence.ReplyForeign:
		what = "answered, but not in " + strings.ToUpper(d.Protocol)
		if d.TLS != nil && d.TLS.Version == "" {
			what = "answered, but not in TLS"
		}
	}
	v := &Verdict{Certainty: Observed, Direction: evidence.Reply}
	v.Proof = append(v.Proof, "the answer was "+words(c))
	tlsFacts(c, v)
	by := serverSide(c, v)
	noteFiles(c, v)
	v.Summary = fmt.Sprintf("%s: %s%s: %s", target(c), what, by, words(c))
	return v
}

// errorBanner reports whether an answer begins with a 4xx or 5xx code, alone or after HTTP's version.
func errorBanner(s string) bool {
	if len(s) > 9 && s[:5] == "HTTP/" {
		s = s[9:]
	}
	if len(s) < 4 || s[0] != '4' && s[0] != '5' {
		return false
	}
	digit := func(b byte) bool { return b >= '0' && b <= '9' }
	return digit(s[1]) && digit(s[2]) && (s[3] == ' ' || s[3] == '-' || s[3] == '\r')
}

// takenIn are the functions in which a socket, and not a device, uses a packet up.
var takenIn = regexp.MustCompile(`^(tcp_|udp|skb_consume_udp|__skb_free_datagram|icmp_rcv|icmpv6_rcv)`)

// served is the event that shows where a socket took our packet: the
// established connection, else the packet's own end, else, of a datagram, that
// nothing but a socket can have become of it. Nil when none of these was seen.
func served(c *evidence.Case) *evidence.Event {
	var found *evidence.Event
	for i := range c.Events {
		e := &c.Events[i]
		switch {
		case e.Kind == evidence.Consume && e.Packet != nil && e.Packet.Carries == nil && !resolves(e) && direction(c, e) == evidence.Forward && placed(e) && takenIn.MatchString(e.Function):
			if found == nil || found.Kind != evidence.State {
				found = e
			}
		case e.Kind == evidence.State && serverState(c, e) && e.State.New == "ESTABLISHED":
			found = e
		}
	}
	if found == nil && success(c) {
		found = answeredFor(c)
	}
	if found == nil {
		return arrivedAtSocket(c)
	}
	return found
}

// answeredFor is the arrival of the packet that was answered where the first
// answer was made. Since Linux 6.18 a datagram that a process has read may be
// freed later on another CPU, without an event.
func answeredFor(c *evidence.Case) *evidence.Event {
	var in *evidence.Event
	for i := range c.Events {
		e := &c.Events[i]
		if e.Packet == nil || secondary(c, e) {
			continue
		}
		switch {
		case direction(c, e) == evidence.Reply && e.Kind == evidence.Transmit:
			if in != nil && in.Netns == e.Netns {
				return in
			}
			return nil
		case direction(c, e) == evidence.Reply && e.Kind == evidence.Receive:
			return nil // the answer came from where we do not watch
		case e.Kind == evidence.Receive && !e.Packet.Fragment: // later fragments have no ports
			in = e
		}
	}
	return nil
}

// arrivedAtSocket is the last sight of a datagram that came to a namespace with its address and a
// socket for it, and was not seen to be dropped: since Linux 6.18 a process that reads a datagram
// frees it unseen, and before it reads nothing is to be seen either.
func arrivedAtSocket(c *evidence.Case) *evidence.Event {
	if c.Target.Protocol != "udp" || c.Lost > 0 || len(fates(c)) > 0 {
		return nil
	}
	l := lastForward(c)
	if l == nil || !placed(l) || l.Kind == evidence.Transmit || l.Kind == evidence.Drop || l.Packet.Protocol != "udp" || l.Packet.Carries != nil {
		return nil
	}
	n := space(c, l)
	dest, _, ok := destination(c, l)
	if n == nil || !ok || !n.Sockets.Read() || listener(c, l, n) == nil {
		return nil
	}
	if here, known := localAddress(n, dest); !here || !known {
		return nil
	}
	return l
}

// serverState reports whether e is a state change on the server's side of the connection.
func serverState(c *evidence.Case, e *evidence.Event) bool {
	if e.Kind != evidence.State || e.State == nil || !placed(e) {
		return false
	}
	if e.Socket != nil && e.Socket.Local != "" {
		if _, port, ok := splitLocal(c.Probe.Local, 4); ok {
			if _, p, ok := splitLocal(e.Socket.Local, 4); ok {
				return p != port
			}
		}
	}
	return e.Direction == evidence.Reply || e.Netns != c.Probe.Netns
}

// serverSide puts namespace, socket and process of whoever took our packet
// into v, and returns " by …" for the summary.
func serverSide(c *evidence.Case, v *Verdict) string {
	e := served(c)
	if e == nil {
		v.Unseen = append(v.Unseen, "which process answered: no namespace that we watched took the packet")
		return ""
	}
	v.Where.Netns = e.Netns
	if c.Target.Protocol == "udp" && e.Kind != evidence.Consume && e.Kind != evidence.State && !success(c) {
		v.Certainty = Inferred
		v.Proof = append(v.Proof, sight(c, e)+", and was not seen to be dropped; a socket there takes it")
	}
	for i := range c.Events {
		if p := &c.Events[i]; p.Kind == evidence.Consume && p.Netns == e.Netns && p.Packet != nil && !resolves(p) && direction(c, p) == evidence.Forward {
			v.Where.NAT = nat(c, p)
		}
	}
	by := " in " + name(e.Netns)
	n := space(c, e)
	if n == nil {
		v.Unseen = append(v.Unseen, name(e.Netns)+": sockets not read: not looked at")
		return by
	}
	if p := setListener(c, e, n, v); p != nil {
		if c.Target.Protocol == "tcp" {
			p = accepter(c, e, n, p, v)
		}
		by = fmt.Sprintf(" by %s (pid %d) in %s", p.Comm, p.PID, name(e.Netns))
	}
	return by
}
