// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// proxied is where a firewall answered the handshake in the server's name
// (SYNPROXY, nft's synproxy): it used up the client's SYN, or the ACK that
// proved the client, and connects on by itself. Nil where none did.
func proxied(c *evidence.Case) *evidence.Event {
	for i := range c.Events {
		e := &c.Events[i]
		if e.Kind == evidence.Consume && isSYN(e) && direction(c, e) == evidence.Forward && strings.Contains(e.Function+" "+strings.Join(e.Stack, " "), "synproxy") {
			return e
		}
	}
	return nil
}

// behindProxy reports whether e is about the proxy's own handshake with the server, while nothing shows
// that the server took it: the client's success then says nothing about the server.
func behindProxy(c *evidence.Case, e *evidence.Event) bool {
	p := proxied(c)
	if p == nil {
		p = handshakeAnswered(c)
	}
	return p != nil && e.At > p.At && !tookProxy(c, p)
}

// handshakeAnswered is the end of the client's handshake, where it sent one SYN only: a SYN that is
// seen after it is somebody else's, and the client was not answered by the host that SYN goes to.
func handshakeAnswered(c *evidence.Case) *evidence.Event {
	var done *evidence.Event
	for i := range c.Events {
		e := &c.Events[i]
		switch {
		case e.Kind == evidence.Retransmit:
			return nil
		case done == nil && e.Kind == evidence.State && e.State != nil && e.State.New == "ESTABLISHED" && e.Netns == c.Probe.Netns && !serverState(c, e):
			done = e
		}
	}
	return done
}

// tookProxy reports whether the server answered the proxy p.
func tookProxy(c *evidence.Case, p *evidence.Event) bool {
	for i := range c.Events {
		e := &c.Events[i]
		switch {
		case e.At < p.At:
		case e.Kind == evidence.State && e.State != nil && serverState(c, e) && e.State.New == "ESTABLISHED":
			return true
		case p.Kind == evidence.Consume && e.Kind == evidence.Receive && e.Netns == p.Netns && isSYNACK(e) && direction(c, e) == evidence.Reply:
			return true
		}
	}
	return false
}

// diedBehindProxy is the last fate of the proxy's own packets to a server that never answered.
func diedBehindProxy(c *evidence.Case, all []*evidence.Event) *evidence.Event {
	if c.Probe.Outcome == evidence.Answered || len(all) == 0 {
		return nil
	}
	last := all[len(all)-1]
	if p := last.Packet; p == nil || !strings.Contains(p.Flags, "S") || !behindProxy(c, last) {
		return nil
	}
	return last
}
