// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// wanted is what a socket must take for our packet to reach it.
type wanted struct {
	protocol string
	addr     netip.Addr
	port     int
	devices  []string // where it arrived, and that device's master
}

func wantedAt(c *evidence.Case, e *evidence.Event, n *evidence.Namespace) (wanted, bool) {
	a, port, ok := destination(c, e)
	w := wanted{protocol: c.Target.Protocol, addr: a, port: port, devices: []string{e.Device}}
	if e.Packet != nil && e.Packet.Carries != nil {
		w.protocol = e.Packet.Protocol
	}
	if l := link(n, e.Device); l != nil && l.Master != "" {
		w.devices = append(w.devices, l.Master)
	}
	if s := steered(c, e); s != nil {
		w.addr, w.port, ok = splitLocal(s.Local, 4)
	}
	return w, ok && w.port != 0
}

// steered is the socket that something before the stack chose for the probe's packets in the namespace of e; nil when nothing did.
func steered(c *evidence.Case, e *evidence.Event) *evidence.EventSocket {
	if e.Packet != nil && direction(c, e) != evidence.Forward {
		return nil // an answer, which both ends may share a namespace with
	}
	for i := range c.Events {
		o := &c.Events[i]
		if s := o.Steered(); s != nil && o.Netns == e.Netns && direction(c, o) == evidence.Forward {
			return s
		}
	}
	return nil
}

// listens reports whether s waits for strangers on the wanted protocol and port, on whatever address.
func (w wanted) listens(s evidence.Socket) bool {
	if s.Protocol != w.protocol {
		return false
	}
	if _, port, ok := splitLocal(s.Local, s.Family); !ok || port != w.port {
		return false
	}
	if w.protocol == "tcp" {
		return s.State == "LISTEN"
	}
	_, remote, ok := splitLocal(s.Remote, s.Family)
	return !ok || remote == 0
}

// misses says why the packet does not reach s, a socket that listens on its port; empty when it does.
func (w wanted) misses(s evidence.Socket) string {
	a, _, _ := splitLocal(s.Local, s.Family)
	switch {
	case s.Device != "" && !contains(w.devices, s.Device):
		return "it is bound to device " + s.Device
	case a == w.addr:
		return ""
	case a == netip.IPv4Unspecified():
		if w.addr.Is4() {
			return ""
		}
		return "it takes IPv4 only"
	case a == netip.IPv6Unspecified():
		if w.addr.Is6() || !s.V6Only {
			return ""
		}
		return "it takes IPv6 only"
	}
	return "it is bound to " + a.String() + ", not to " + w.addr.String()
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// portSockets divides the sockets that listen on the wanted port into those the packet reaches and the others.
func portSockets(n *evidence.Namespace, w wanted) (takers, others []*evidence.Socket) {
	for i := range n.Sockets.Items {
		s := &n.Sockets.Items[i]
		if !w.listens(*s) {
			continue
		}
		if w.misses(*s) == "" {
			takers = append(takers, s)
		} else {
			others = append(others, s)
		}
	}
	return takers, others
}

// setSocket puts s and the process that holds it into v. It returns nil, and says why, when nobody is known to hold it.
func setSocket(v *Verdict, s *evidence.Socket, pid int) *evidence.Process {
	v.Where.Socket = &SocketRef{Local: s.Local, Backlog: s.Backlog, Queue: s.Queue}
	if len(s.Process) == 0 {
		why := s.Owner
		if why == "" {
			why = "nobody was found"
		}
		v.Unseen = append(v.Unseen, "which process holds the socket "+s.Local+": "+why)
		return nil
	}
	p := s.Process[0]
	for _, q := range s.Process {
		if q.PID == pid {
			p = q
		}
	}
	v.Where.Process = &p
	if names := holders([]*evidence.Socket{s}); len(names) > 1 {
		v.Certainty = Inferred
		v.Unseen = append(v.Unseen, "which of its holders serves the socket "+s.Local+": "+strings.Join(names, ", "))
	}
	v.Proof = append(v.Proof, fmt.Sprintf("the socket %s is held by %s", s.Local, who(&p)))
	return &p
}

// holders are the names of the programs that hold the sockets, each once.
func holders(sockets []*evidence.Socket) []string {
	var names []string
	for _, s := range sockets {
		for _, p := range s.Process {
			if !contains(names, p.Comm) {
				names = append(names, p.Comm)
			}
		}
	}
	return names
}

// listener is the socket that takes the packet of e: the most narrowly bound one, or nil.
func listener(c *evidence.Case, e *evidence.Event, n *evidence.Namespace) *evidence.Socket {
	var best *evidence.Socket
	for _, s := range listeners(c, e, n) {
		if best == nil || s.Queue-s.Backlog > best.Queue-best.Backlog { // of a group the one in trouble
			best = s
		}
	}
	return best
}

// listeners are the sockets of which one takes the packet of e: several when they share the port (SO_REUSEPORT).
func listeners(c *evidence.Case, e *evidence.Event, n *evidence.Namespace) []*evidence.Socket {
	w, ok := wantedAt(c, e, n)
	if e.Packet == nil && e.Socket != nil && steered(c, e) == nil {
		if a, port, fine := splitLocal(e.Socket.Local, 4); fine {
			w.addr, w.port, ok = a, port, true
		}
	}
	if !ok {
		return nil
	}
	if e.Device == "" {
		w.devices = nil
		if a := visitOf(c, e).arrived(); a != nil {
			at, _ := wantedAt(c, a, n)
			w.devices = at.devices
		} else { // nobody says where it came in: any binding may be meant
			for _, s := range n.Sockets.Items {
				w.devices = append(w.devices, s.Device)
			}
		}
	}
	takers, _ := portSockets(n, w)
	var best []*evidence.Socket
	for _, s := range takers {
		if e.Socket != nil && e.Socket.Inode != 0 && s.Inode == e.Socket.Inode {
			return []*evidence.Socket{s}
		}
		switch {
		case len(best) == 0 || narrowness(s) > narrowness(best[0]):
			best = []*evidence.Socket{s}
		case narrowness(s) == narrowness(best[0]):
			best = append(best, s)
		}
	}
	return best
}

func narrowness(s *evidence.Socket) int {
	score := 0
	if a, _, _ := splitLocal(s.Local, s.Family); a.IsValid() && !a.IsUnspecified() {
		score = 2
	}
	if s.Device != "" {
		score++
	}
	return score
}

// setListener names the listener of e's packet and its process in v. Where
// they cannot be named it says so and returns nil.
func setListener(c *evidence.Case, e *evidence.Event, n *evidence.Namespace, v *Verdict) *evidence.Process {
	if !unread(v, n, "sockets", n.Sockets.Read(), n.Sockets.Why()) {
		return nil
	}
	s := listener(c, e, n)
	if s == nil {
		v.Unseen = append(v.Unseen, "which socket took the packet in "+name(n.Name)+": none of those read fits")
		return nil
	}
	if group := listeners(c, e, n); len(holders(group)) > 1 {
		v.Certainty = Inferred
		v.Unseen = append(v.Unseen, fmt.Sprintf("which of the %d sockets on %s took it", len(group), s.Local))
	}
	if chosen := steered(c, e); chosen != nil {
		v.Proof = append(v.Proof, "the packet was handed to the listening socket "+chosen.Local+" before the stack looked for one: by TPROXY or a BPF program")
	}
	return setSocket(v, s, e.PID)
}
