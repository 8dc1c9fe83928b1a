// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"

	"github.com/pathtrace/pathtrace/evidence"
)

// listenCauses are those of a listener that takes a SYN and throws it away without a word.
var listenCauses = []Cause{
	{
		ID: "accept-queue-full", Means: "the application does not accept fast enough",
		Needs:   "a SYN consumed in tcp_* without SYN-ACK, or drop TCP_LISTEN_OVERFLOW; sockets (Recv-Q above Send-Q, process) or the event's own queue; counters (TcpExtListenOverflows)",
		Reasons: []string{"TCP_LISTEN_OVERFLOW"}, Find: findAcceptQueue,
	},
	{
		ID: "syn-queue-full", Means: "too many half-open connections",
		Needs: "a SYN consumed in tcp_* without SYN-ACK; sockets; counters (TcpExtListenDrops without TcpExtListenOverflows, or TcpExtTCPReqQFullDrop); " +
			"sysctl net.ipv4.tcp_syncookies (0); lookups (that the way back exists)",
		Find: findSYNQueue,
	},
}

// discarded is the listener that took a SYN and threw it away without a word; nil when e is no such fate.
func discarded(c *evidence.Case, e *evidence.Event) (*evidence.Namespace, *evidence.Socket) {
	if e == nil || e.Kind != evidence.Consume || !usedUp(c, e) {
		return nil, nil
	}
	n := space(c, e)
	if n == nil || !n.Sockets.Read() || !n.Counters.Read() {
		return nil, nil
	}
	return n, listener(c, e, n)
}

func findAcceptQueue(c *evidence.Case, e *evidence.Event) *Verdict {
	if isDrop(e, "TCP_LISTEN_OVERFLOW") {
		v := atSocket(c, e, "has a full accept queue", "TCP_LISTEN_OVERFLOW")
		if v != nil {
			v.Transient = true
		}
		return v
	}
	n, s := discarded(c, e)
	if s == nil {
		return nil
	}
	overflows, drops := counter(n, "TcpExtListenOverflows"), counter(n, "TcpExtListenDrops")
	sawQueue := e.Socket != nil && e.Socket.Limit > 0
	full := sawQueue && e.Socket.Queue > e.Socket.Limit
	if overflows == 0 || sawQueue && !full || s.Queue <= s.Backlog && !full {
		return nil
	}
	v := start(c, e, Inferred)
	v.Transient = true
	if full {
		v.Proof = append(v.Proof, fmt.Sprintf("the listener's accept queue then held %d, its limit is %d", e.Socket.Queue, e.Socket.Limit))
	}
	p := setDiscarder(c, e, n, v)
	v.Proof = append(v.Proof,
		fmt.Sprintf("%s has %d connections waiting to be accepted, its backlog is %d", s.Local, s.Queue, s.Backlog),
		fmt.Sprintf("TcpExtListenOverflows rose by %d during the probe", overflows))
	if overflows == drops && overflows >= unanswered(c, n) {
		v.Proof = append(v.Proof, "TcpExtListenDrops rose by as much: whatever listeners there turned away met a full accept queue")
	} else if !full {
		v.Certainty = Inferred
	}
	if p != nil {
		if d := doing(p); d != "" {
			v.Proof = append(v.Proof, fmt.Sprintf("%s (pid %d) %s", p.Comm, p.PID, d))
		}
	}
	v.Summary = fmt.Sprintf("%s: the accept queue of %s in %s is full (%d of %d)%s", target(c), s.Local, name(e.Netns), s.Queue, s.Backlog, held(p))
	return v
}

// setDiscarder names the one socket that turned the SYN of e away; with several to choose from, v is inferred.
func setDiscarder(c *evidence.Case, e *evidence.Event, n *evidence.Namespace, v *Verdict) *evidence.Process {
	v.Certainty = Observed
	p := setListener(c, e, n, v)
	if p == nil || len(listeners(c, e, n)) > 1 {
		v.Certainty = Inferred
	}
	return p
}

// unanswered counts our SYNs that listeners of n used up without an answer.
func unanswered(c *evidence.Case, n *evidence.Namespace) (count uint64) {
	for i := range c.Events {
		if e := &c.Events[i]; e.Kind == evidence.Consume && e.Netns == n.Name && usedUp(c, e) {
			count++
		}
	}
	return count
}

func held(p *evidence.Process) string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf(": %s (pid %d)", p.Comm, p.PID)
}

func findSYNQueue(c *evidence.Case, e *evidence.Event) *Verdict {
	n, s := discarded(c, e)
	if s == nil || s.Queue > s.Backlog || !n.Sysctls.Read() || !n.Lookups.Read() {
		return nil
	}
	cookies, ok := sysctl(n, "net.ipv4.tcp_syncookies")
	if !ok || cookies != "0" { // with cookies a full SYN queue turns nobody away
		return nil
	}
	src, _, ok := source(c, e)
	if !ok {
		return nil
	}
	if l := lookup(n, src, ""); l == nil || l.Errno != "" {
		return nil // the way back is what is missing, or is not known
	}
	exact, drops, overflows := counter(n, "TcpExtTCPReqQFullDrop"), counter(n, "TcpExtListenDrops"), counter(n, "TcpExtListenOverflows")
	if overflows != 0 || exact+drops == 0 {
		return nil
	}
	v := start(c, e, Inferred)
	v.Transient = true
	p := setDiscarder(c, e, n, v)
	switch mine := unanswered(c, n); {
	case exact == drops && exact >= mine:
		v.Proof = append(v.Proof, "whatever listeners there turned away met a full SYN queue")
	case exact == 0 && drops >= mine && wayBackFound(c, e, n, src):
		v.Proof = append(v.Proof, "the way back was found first: after that only a SYN queue three quarters full makes the kernel drop a SYN")
	default:
		v.Certainty = Inferred
	}
	half := 0
	for _, o := range n.Sockets.Items {
		if o.State == "SYN_RECV" && o.Local == s.Local {
			half++
		}
	}
	v.Proof = append(v.Proof, fmt.Sprintf("TcpExtListenDrops rose by %d and TcpExtTCPReqQFullDrop by %d during the probe, TcpExtListenOverflows by none", drops, exact),
		"net.ipv4.tcp_syncookies is 0")
	if half > 0 {
		v.Proof = append(v.Proof, fmt.Sprintf("%s has %d half-open connections, its backlog is %d", s.Local, half, s.Backlog))
	}
	if most, fine := sysctl(n, "net.ipv4.tcp_max_syn_backlog"); fine {
		v.Proof = append(v.Proof, "net.ipv4.tcp_max_syn_backlog is "+most)
	}
	v.Fixes = setSysctl(n, "answer with SYN cookies when the queue of "+name(n.Name)+" is full", "1", "net.ipv4.tcp_syncookies")
	v.Summary = fmt.Sprintf("%s: the SYN queue of %s in %s is full, and SYN cookies are off%s", target(c), s.Local, name(e.Netns), held(p))
	return v
}

// wayBackFound reports whether the listener got as far as to ask for the route
// of its SYN-ACK, and found it. The reverse-path filter asks the same question:
// where it is on, or local routes or ip rules make it ask, nothing is known.
func wayBackFound(c *evidence.Case, e *evidence.Event, n *evidence.Namespace, src netip.Addr) bool {
	in := visitOf(c, e).arrived()
	if in == nil || !src.Is4() || !n.Neighbors.Read() {
		return false
	}
	for _, device := range []string{"all", in.Device} {
		if x, ok := sysctl(n, conf("ipv4", device, "rp_filter")); !ok || x != "0" {
			return false
		}
	}
	for _, r := range n.Rules.Items {
		if r.Family == 4 && !everyone(&r) {
			return false
		}
	}
	device, hop := routedTo(c, e, src)
	for _, nb := range n.Neighbors.Items { // the SYN-ACK may wait for this one
		if nb.Device == device && sameAddr(nb.Address, hop) && (nb.State == "INCOMPLETE" || nb.State == "FAILED") {
			return false
		}
	}
	return device != "" && n.Rules.Read()
}
