// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

var remoteCauses = []Cause{
	{
		ID: "remote-reset", Means: "a reset (RST) that no kernel we watch sent",
		Needs: "the first event of a RST to us is that it arrived; the probe was refused or reset", Find: findRemoteReset,
	},
	{
		ID: "remote-unreachable", Means: "an ICMP error from a host we do not watch",
		Needs: "the first event of an ICMP error about our packet is that it arrived; the probe got an error", Find: findRemoteUnreachable,
	},
	{
		ID: "remote-silent", Means: "the packet left this host whole, nothing came back",
		Needs: "the last event of our packet is that it left by a hardware device (link without kind); links; nothing lost", Find: findRemoteSilent,
	},
}

// fromOutside returns the first event about a reply that matches, when that
// event is its arrival: none of the kernels we watch made it.
func fromOutside(c *evidence.Case, match func(*evidence.Event) bool) *evidence.Event {
	for i := range c.Events {
		e := &c.Events[i]
		// an answer has the direction of the packet that it is about, a RST out of the blue its own
		if e.Kind == evidence.ResetSent && (e.SKB != "") == (e.Direction == evidence.Forward) || e.Kind == evidence.ICMPSent {
			return nil
		}
		if e.Packet == nil || !match(e) {
			continue
		}
		if e.Kind == evidence.Receive && placed(e) {
			return e
		}
		return nil
	}
	return nil
}

// arrived says how sure it is that e came from another host: certain on
// hardware; behind any other device may be a namespace that was not watched.
func arrived(c *evidence.Case, e *evidence.Event) Certainty {
	if n := space(c, e); n != nil && n.Links.Read() {
		if l := link(n, e.Device); l != nil && l.Kind == "" && l.Name != "lo" {
			return Observed
		}
	}
	return Inferred
}

func findRemoteReset(c *evidence.Case, e *evidence.Event) *Verdict {
	if e != nil || c.Probe.Outcome != evidence.Refused && c.Probe.Outcome != evidence.Reset {
		return nil
	}
	r := fromOutside(c, func(o *evidence.Event) bool { return isRST(o) && direction(c, o) == evidence.Reply })
	if r == nil || handshakeDone(c) && served(c) != nil {
		return nil // the server is on this host: its RST was missed
	}
	v := &Verdict{Certainty: arrived(c, r), Direction: evidence.Forward, Where: Where{Netns: r.Netns, Device: r.Device}}
	v.Proof = []string{
		fmt.Sprintf("a RST from %s with TTL %d arrived on %s of %s %s", r.Packet.Source, r.Packet.TTL, r.Device, name(r.Netns), since(c, r)),
		"no kernel that we watch sent it",
	}
	v.Summary = fmt.Sprintf("%s: a RST came in by %s of %s; no kernel that we watch sent it", target(c), r.Device, name(r.Netns))
	notArrived(c, r, v)
	beyondReset(c, v)
	return v
}

func isICMPError(e *evidence.Event) bool {
	p := e.Packet
	if p == nil || p.Type == nil {
		return false
	}
	switch p.Protocol {
	case "icmp":
		return *p.Type == 3 || *p.Type == 11 || *p.Type == 12
	case "icmpv6":
		return *p.Type >= 1 && *p.Type <= 4
	}
	return false
}

// gotICMPError is the arrival of an ICMP error from a host that we do not watch.
func gotICMPError(c *evidence.Case) *evidence.Event { return fromOutside(c, isICMPError) }

func findRemoteUnreachable(c *evidence.Case, e *evidence.Event) *Verdict {
	if e != nil || c.Probe.Outcome != evidence.Unreachable && c.Probe.Outcome != evidence.Refused && c.Probe.Outcome != evidence.Denied && c.Probe.Outcome != evidence.Timeout {
		return nil
	}
	r := gotICMPError(c)
	if r == nil || r.Packet.Code == nil {
		return nil
	}
	kind := fmt.Sprintf("%s %d/%d", strings.ToUpper(strings.TrimSuffix(r.Packet.Protocol, "v6")), *r.Packet.Type, *r.Packet.Code)
	v := &Verdict{Certainty: arrived(c, r), Direction: evidence.Forward, Where: Where{Netns: r.Netns, Device: r.Device}}
	v.Where.Hop = &HopRef{Address: r.Packet.Source}
	v.Proof = []string{
		fmt.Sprintf("%s from %s arrived on %s of %s %s", kind, r.Packet.Source, r.Device, name(r.Netns), since(c, r)),
		"no kernel that we watch sent it",
	}
	v.Summary = fmt.Sprintf("%s: %s answered with %s", target(c), r.Packet.Source, kind)
	notArrived(c, r, v)
	beyondError(c, v)
	return v
}

func findRemoteSilent(c *evidence.Case, e *evidence.Event) *Verdict {
	if e != nil || c.Lost > 0 || success(c) || c.Probe.Outcome != evidence.Timeout && c.Probe.Outcome != evidence.Silent {
		return nil
	}
	if v := lostOnTheWayBack(c); v != nil {
		return v
	}
	l := leftHost(c)
	if l == nil || served(c) != nil {
		return nil
	}
	for i := range c.Events { // something did come back, whatever became of it
		if o := &c.Events[i]; o.Packet != nil && !resolves(o) && direction(c, o) == evidence.Reply && o.Kind != evidence.Route {
			return nil
		}
	}
	v := &Verdict{Certainty: Inferred, Direction: evidence.Forward, Where: Where{Netns: l.Netns, Device: l.Device}}
	v.Proof = []string{
		fmt.Sprintf("%s, %s", sight(c, l), since(c, l)),
		fmt.Sprintf("no reply, RST or ICMP error was seen until %.0f ms after the start", float64(c.Probe.DurationNS)/1e6),
	}
	v.Summary = fmt.Sprintf("%s: %s left %s by %s, and nothing came back", target(c), whose(c, l), name(l.Netns), l.Device)
	notArrived(c, l, v)
	beyondSilence(c, v)
	return v
}
