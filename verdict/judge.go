// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// Judge says why the probe of c failed, or that it did not. It never changes c.
// Whatever is not proven by c is `unexplained`, with what was seen in the proof.
func Judge(c *evidence.Case) Verdict {
	v := decide(c)
	addTranslations(c, v)
	addConsumed(c, v)
	addCounterfactual(c, v)
	if c.Lost > 0 {
		if v.Certainty == Observed {
			v.Certainty = Inferred
		}
		v.Unseen = append(v.Unseen, fmt.Sprintf("%d events were lost", c.Lost))
	}
	for _, u := range c.Unseen {
		if !slices.Contains(v.Unseen, u) {
			v.Unseen = append(v.Unseen, u)
		}
	}
	place(c, v)
	if v.Proof == nil {
		v.Proof = []string{}
	}
	if v.Fixes == nil {
		v.Fixes = []Fix{}
	}
	if v.Unseen == nil {
		v.Unseen = []string{}
	}
	return *v
}

func decide(c *evidence.Case) *Verdict {
	all := fates(c)
	if last := diedBehindProxy(c, all); last != nil {
		v := ask(c, last)
		if v == nil {
			v = unexplained(c, last)
		}
		proxy := "the client had been answered before that, by somebody else than this server"
		if p := proxied(c); p != nil {
			proxy = "the client was answered by a SYN proxy in " + name(p.Netns) + ", which the server never answered"
		} else if v.Certainty == Observed {
			v.Certainty = Inferred // that there is a proxy is deduced from the order of the handshakes
		}
		v.Proof = append(v.Proof, proxy)
		noteEarlier(c, v, all[:len(all)-1], "")
		return v
	}
	if success(c) {
		lost := unrecovered(c, all)
		over := slices.DeleteFunc(slices.Clone(all), func(e *evidence.Event) bool { return slices.Contains(lost, e) })
		v := stalled(c, lost)
		if v != nil {
			lost = nil // it is about these
		} else if v = ask(c, nil); v == nil {
			return unexplained(c, nil)
		}
		noteEarlier(c, v, over, "; a later copy passed")
		noteEarlier(c, v, lost, "; no later copy was seen to pass")
		return v
	}
	if handshakeDone(c) {
		if v := ask(c, nil); v != nil && slices.Contains([]string{"libwrap-denied", "reset-by-app", "closed-by-app", "app-error"}, v.Cause) {
			return v
		}
	}
	if len(all) == 0 || leftAfter(c, all[len(all)-1]) {
		v := astray(c)
		if v == nil {
			v = ask(c, nil)
		}
		switch {
		case v == nil:
			v = unexplained(c, nil)
		case v.Cause == "neighbor-unresolved":
			v = lostQuestion(c, nil, v)
		}
		noteEarlier(c, v, all, "")
		return v
	}
	last := all[len(all)-1]
	v := ask(c, last)
	if v != nil && v.Cause == "neighbor-unresolved" {
		v = lostQuestion(c, last, v)
	}
	if v == nil {
		v = unexplained(c, last)
	} else if w := contradicted(c, v, last); w != nil {
		v = w
	}
	v.Copied = v.Copied || last.Copy
	v.Transient = v.Transient || last.Copy
	noteEarlier(c, v, all[:len(all)-1], "")
	return v
}

// silentCauses kill a packet without telling its sender.
var silentCauses = []string{
	"firewall-drop", "firewall-policy", "rp-filter", "martian-source", "martian-destination", "forwarding-disabled",
	"not-our-address", "accept-queue-full", "syn-queue-full", "tc-drop", "xdp-drop", "qdisc-drop", "socket-filter",
	"md5-mismatch", "min-ttl", "bad-checksum", "wrong-destination-mac", "xfrm-policy", "conntrack-full", "route-blackhole",
}

// contradicted replaces a verdict that cannot be the reason of what the client
// saw: who was refused did not fail because a copy was dropped in silence.
func contradicted(c *evidence.Case, v *Verdict, e *evidence.Event) *Verdict {
	if !slices.Contains(silentCauses, v.Cause) {
		return nil
	}
	told := c.Probe.Outcome == evidence.Refused ||
		c.Probe.Outcome == evidence.Unreachable && gotICMPError(c) != nil
	if !told {
		return nil
	}
	w := ask(c, nil)
	if w == nil {
		w = unexplained(c, e)
		w.Proof = append(w.Proof, fmt.Sprintf("the client saw %q, which a silent drop (%s) does not cause", c.Probe.Outcome, v.Cause))
	}
	return w
}

// maxEarlier bounds how many drops of other copies are explained one by one: a probe sends a few packets.
const maxEarlier = 64

// noteEarlier adds the drops of other copies to the proof.
func noteEarlier(c *evidence.Case, v *Verdict, earlier []*evidence.Event, what string) {
	if more := len(earlier) - maxEarlier; more > 0 {
		v.Proof = append(v.Proof, fmt.Sprintf("%d drops of our packets before those that follow", more))
		earlier = earlier[more:]
	}
	count := map[string]int{}
	var order []string
	for _, e := range earlier {
		line := died(c, e)
		if w := ask(c, e); w != nil {
			line = w.Summary
			if w.Cause == v.Cause && w.Where.Netns == v.Where.Netns {
				continue
			}
		}
		if count[line] == 0 {
			order = append(order, line)
		}
		count[line]++
	}
	for _, line := range order {
		v.Proof = append(v.Proof, fmt.Sprintf("%d earlier: %s%s", count[line], line, what))
	}
}

// unexplained reports what was seen about the fate e, or about the whole case, without a cause.
func unexplained(c *evidence.Case, e *evidence.Event) *Verdict {
	v := &Verdict{Cause: "unexplained", Certainty: None}
	if e != nil {
		v = start(c, e, None)
		v.Cause = "unexplained"
		v.Summary = fmt.Sprintf("%s: not explained: %s", target(c), died(c, e))
		explainNetfilter(c, e, v)
		explainSocket(c, e, v)
		explainEcho(c, e, v)
		unreadHere(c, e, v)
		return v
	}
	v.Summary = fmt.Sprintf("%s: %s, and no event explains it", target(c), outcome(c))
	v.Where.Netns = c.Probe.Netns
	if l := lastSeen(c); l != nil {
		v.Direction = direction(c, l)
		v.Where.Netns, v.Where.Device = l.Netns, l.Device
		v.Proof = append(v.Proof, fmt.Sprintf("last seen: %s, %s", sight(c, l), since(c, l)))
		explainEcho(c, l, v)
		unreadHere(c, l, v)
	} else {
		v.Proof = append(v.Proof, "no event of our packets was seen")
		if c.Probe.Outcome == evidence.Denied {
			v.Unseen = append(v.Unseen, "cgroup programs and security modules that can refuse "+c.Probe.Syscall)
		}
	}
	v.Proof = append(v.Proof, "the client saw "+outcome(c))
	v.Proof = append(append(v.Proof, acked(c)...), sized(c)...)
	return v
}

// explainEcho adds to an echo request that was not answered that the host was told to answer none.
func explainEcho(c *evidence.Case, e *evidence.Event, v *Verdict) {
	n := space(c, e)
	if n == nil || c.Target.Protocol != "icmp" {
		return
	}
	for _, key := range []string{"net.ipv4.icmp_echo_ignore_all", "net.ipv6.icmp.echo_ignore_all"} {
		if x, ok := sysctl(n, key); ok && x != "0" && strings.Contains(key, "ipv4") == (e.Packet.Family == 4) {
			v.Proof = append(v.Proof, fmt.Sprintf("%s is %s in %s: it answers no echo request", key, x, name(n.Name)))
		}
	}
}

// unreadHere names the sections of the event's namespace that were not read and that causes depend on.
func unreadHere(c *evidence.Case, e *evidence.Event, v *Verdict) {
	n := c.Namespace(e.Netns)
	if n == nil {
		v.Unseen = append(v.Unseen, name(e.Netns)+": its configuration was not read")
		return
	}
	unread(v, n, "hooks", n.Hooks.Read(), n.Hooks.Why())
	unread(v, n, "links", n.Links.Read(), n.Links.Why())
	unread(v, n, "addresses", n.Addresses.Read(), n.Addresses.Why())
	unread(v, n, "routes", n.Routes.Read(), n.Routes.Why())
	unread(v, n, "ip rules", n.Rules.Read(), n.Rules.Why())
	unread(v, n, "route lookups", n.Lookups.Read(), n.Lookups.Why())
	unread(v, n, "sockets", n.Sockets.Read(), n.Sockets.Why())
	unread(v, n, "firewall chains", n.Chains.Read(), n.Chains.Why())
	unread(v, n, "sysctls", n.Sysctls.Read(), n.Sysctls.Why())
	unread(v, n, "counters", n.Counters.Read(), n.Counters.Why())
}

// unread notes that a section of n was not read; it returns read.
func unread(v *Verdict, n *evidence.Namespace, what string, read bool, why string) bool {
	if !read {
		v.Unseen = append(v.Unseen, fmt.Sprintf("%s: %s not read: %s", name(n.Name), what, why))
	}
	return read
}
