// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

var socketCauses = []Cause{
	{
		ID:      "no-listener",
		Means:   "nothing listens on that port in the namespace it reached",
		Needs:   "drop NO_SOCKET (or reset-sent NO_SOCKET) of a forward packet; sockets read in that namespace",
		Reasons: []string{"NO_SOCKET"},
		Find:    findNoListener,
	},
	{
		ID:      "listener-elsewhere",
		Means:   "something listens on that port, but on another address, device, family or namespace",
		Needs:   "drop NO_SOCKET of a forward packet; sockets read in that namespace, with processes",
		Reasons: []string{"NO_SOCKET"},
		Find:    findListenerElsewhere,
	},
}

// noSocket is the common part of no-listener and listener-elsewhere: the
// kernel found no socket, the sockets were read, and none of them would take the packet.
func noSocket(c *evidence.Case, e *evidence.Event) (v *Verdict, others []*evidence.Socket, w wanted) {
	if e == nil || e.Reason != "NO_SOCKET" || e.Kind != evidence.Drop && e.Kind != evidence.ResetSent || direction(c, e) != evidence.Forward {
		return nil, nil, w
	}
	n := space(c, e)
	if n == nil || !n.Sockets.Read() {
		return nil, nil, w
	}
	w, ok := wantedAt(c, e, n)
	if !ok {
		return nil, nil, w
	}
	takers, others := portSockets(n, w)
	if len(takers) > 0 {
		return nil, nil, w
	}
	v = start(c, e, Observed)
	if r := resetFor(c, e); r != nil && r != e {
		v.Proof = append(v.Proof, fmt.Sprintf("the TCP stack answered with a RST%s %s", because(r), since(c, r)))
	}
	stay := visitOf(c, e)
	for i := range c.Events {
		if d := &c.Events[i]; d.Kind == evidence.Drop && (isRST(d) || isICMPError(d)) && stay.during(d) {
			v.Proof = append(v.Proof, "that answer was lost: "+died(c, d))
		}
	}
	return v, others, w
}

func findNoListener(c *evidence.Case, e *evidence.Event) *Verdict {
	v, others, w := noSocket(c, e)
	if v == nil || len(others) > 0 {
		return nil
	}
	if s, _ := otherNamespace(c, e, w); s != nil {
		return nil
	}
	for i := range c.Namespaces {
		if n := &c.Namespaces[i]; n.Name != e.Netns {
			unread(v, n, "sockets (who else listens there)", n.Sockets.Read(), n.Sockets.Why())
		}
	}
	n := space(c, e)
	v.Proof = append(v.Proof, fmt.Sprintf("of the %d sockets of %s none listens on %d/%s", len(n.Sockets.Items), name(e.Netns), w.port, w.protocol))
	at := fmt.Sprintf("%s/%s in %s", endpoint(w.addr.String(), w.port), w.protocol, name(e.Netns))
	if e.Packet != nil && e.Packet.Carries != nil {
		v.Summary = fmt.Sprintf("%s: nothing takes the tunnel's packets at %s", target(c), at)
		return v
	}
	v.Summary = fmt.Sprintf("%s: nothing listens on %s%s", target(c), at, natted(v))
	explainServices(n, v)
	return v
}

func findListenerElsewhere(c *evidence.Case, e *evidence.Event) *Verdict {
	v, others, w := noSocket(c, e)
	if v == nil {
		return nil
	}
	where := name(e.Netns)
	var s *evidence.Socket
	if len(others) > 0 {
		s = others[0]
		v.Proof = append(v.Proof, fmt.Sprintf("a socket of %s listens on %s, but %s", where, listening(s), w.misses(*s)))
	} else {
		var n *evidence.Namespace
		if s, n = otherNamespace(c, e, w); s == nil {
			return nil
		}
		where = name(n.Name)
		v.Certainty = Inferred // that this is the service that was meant is a deduction
		v.Proof = append(v.Proof, fmt.Sprintf("no socket of %s listens on %d/%s, but one of %s does, on %s", name(e.Netns), w.port, w.protocol, where, listening(s)))
	}
	p := setSocket(v, s, e.PID)
	who := ""
	if p != nil {
		who = p.Comm + " "
	} else {
		v.Certainty = Inferred
	}
	v.Summary = fmt.Sprintf("%s: no socket takes %s in %s; %slistens on %s in %s%s",
		target(c), endpoint(w.addr.String(), w.port), name(e.Netns), who, listening(s), where, natted(v))
	return v
}

// explainSocket adds to an unexplained fate at a listener what is known of that listener.
func explainSocket(c *evidence.Case, e *evidence.Event, v *Verdict) {
	n := space(c, e)
	if n == nil || e.Kind != evidence.Consume && e.Reason != "NO_SOCKET" || direction(c, e) != evidence.Forward {
		return
	}
	if s := listener(c, e, n); s != nil {
		v.Where.Socket = &SocketRef{Local: s.Local, Backlog: s.Backlog, Queue: s.Queue}
		v.Proof = append(v.Proof, fmt.Sprintf("when the sockets were read, %s listened there, with %d of %d connections waiting", s.Local, s.Queue, s.Backlog))
	}
	for _, k := range n.Counters.Items {
		if strings.HasPrefix(k.Name, "TcpExt") && k.Delta > 0 {
			v.Proof = append(v.Proof, fmt.Sprintf("%s rose by %d during the probe", k.Name, k.Delta))
		}
	}
}

// otherNamespace finds the one other namespace that listens on the port; nothing when several do.
func otherNamespace(c *evidence.Case, e *evidence.Event, w wanted) (*evidence.Socket, *evidence.Namespace) {
	if e.Packet != nil && e.Packet.Carries != nil {
		return nil, nil // both ends of a tunnel listen
	}
	var found *evidence.Socket
	var in *evidence.Namespace
	for i := range c.Namespaces {
		n := &c.Namespaces[i]
		if n.Name == e.Netns {
			continue
		}
		takers, others := portSockets(n, w)
		all := append(takers, others...)
		if len(all) == 0 {
			continue
		}
		if found != nil {
			return nil, nil
		}
		found, in = all[0], n
	}
	return found, in
}

func listening(s *evidence.Socket) string {
	if s.Device != "" {
		return s.Local + " of " + s.Device
	}
	return s.Local
}

func natted(v *Verdict) string {
	if v.Where.NAT == nil {
		return ""
	}
	return fmt.Sprintf(" (translated from %s to %s)", v.Where.NAT.From, v.Where.NAT.To)
}

// resetFor is the RST by which the stack of e's namespace answered e's packet.
func resetFor(c *evidence.Case, e *evidence.Event) *evidence.Event {
	for _, r := range visitOf(c, e).events {
		if r.Kind == evidence.ResetSent {
			return r
		}
	}
	return nil
}
