// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
)

// A packet that carries ours in a tunnel bears other addresses, but nothing was translated.
func TestNATInTunnel(t *testing.T) {
	for name, test := range map[string]struct {
		carries *evidence.Carried
		want    *NATRef
	}{
		"translated":   {nil, &NATRef{From: "10.9.0.2:53", To: "10.0.0.2:4789"}},
		"encapsulated": {&evidence.Carried{Protocol: "udp"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := &evidence.Case{Target: evidence.Target{Address: "10.9.0.2", Port: 53, Protocol: "udp"}}
			c.Events = []evidence.Event{{At: 9, Kind: evidence.Drop, Netns: "s", Direction: evidence.Forward, SKB: "a",
				Packet: &evidence.Packet{Family: 4, Protocol: "udp", Source: "10.0.0.1", Dest: "10.0.0.2", SPort: 40000, DPort: 4789, Carries: test.carries}}}
			if diff := cmp.Diff(test.want, nat(c, &c.Events[0])); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Where nothing takes a tunnel's packets, neither the probe's port nor the other end of the tunnel is what is missed.
func TestTunnelEnd(t *testing.T) {
	c := &evidence.Case{Target: evidence.Target{Address: "10.9.0.2", Port: 80, Protocol: "tcp"}}
	c.Probe.Outcome, c.Probe.Netns = evidence.Timeout, "c"
	c.Events = []evidence.Event{{At: 3, Kind: evidence.Drop, Netns: "s", Device: "vb", Direction: evidence.Forward, Reason: "NO_SOCKET", Function: "__udp4_lib_rcv", SKB: "a",
		Packet: &evidence.Packet{Family: 4, Protocol: "udp", Source: "10.0.0.1", Dest: "10.0.0.2", SPort: 40000, DPort: 4789, Carries: &evidence.Carried{Protocol: "tcp", Flags: "S"}}}}
	listen := func(protocol, state, local string) evidence.Socket {
		return evidence.Socket{Protocol: protocol, Family: 4, State: state, Local: local}
	}
	c.Namespaces = []evidence.Namespace{
		{Name: "s", Sockets: evidence.Have([]evidence.Socket{listen("tcp", "LISTEN", "0.0.0.0:80"), listen("tcp", "LISTEN", "0.0.0.0:4789")})},
		{Name: "c", Sockets: evidence.Have([]evidence.Socket{listen("udp", "UNCONN", "0.0.0.0:4789")})},
	}
	v := Judge(c)
	want := "10.9.0.2:80/tcp: nothing takes the tunnel's packets at 10.0.0.2:4789/udp in s"
	if v.Cause != "no-listener" || v.Certainty != Observed || v.Summary != want {
		t.Errorf("%s %s %q, want no-listener observed %q", v.Cause, v.Certainty, v.Summary, want)
	}
}

// A tunnel's device that finds no way to its other end says so of the probe's packet, which had its own route.
func TestTunnelUnrouted(t *testing.T) {
	p := &evidence.Packet{Family: 4, Protocol: "tcp", Source: "10.9.0.1", Dest: "10.9.0.2", SPort: 40000, DPort: 80, Flags: "S"}
	c := &evidence.Case{Target: evidence.Target{Address: "10.9.0.2", Port: 80, Protocol: "tcp"}}
	c.Probe.Outcome, c.Probe.Netns = evidence.Timeout, "c"
	c.Events = []evidence.Event{
		{At: 1, Kind: evidence.Route, Netns: "c", Direction: evidence.Forward, Route: &evidence.RouteLookup{Table: "main", Dest: "10.9.0.2", OIF: "d0"}},
		{At: 2, Kind: evidence.Transmit, Netns: "c", Device: "d0", Direction: evidence.Forward, SKB: "a", Packet: p},
		{At: 3, Kind: evidence.Drop, Netns: "c", Device: "d0", Direction: evidence.Forward, Reason: "IP_OUTNOROUTES", Function: "vxlan_xmit_one", SKB: "a", Packet: p},
	}
	c.Namespaces = []evidence.Namespace{{Name: "c", Links: evidence.Have([]evidence.Link{{Name: "d0", Kind: "vxlan", Up: true, Carrier: true}}),
		Rules: evidence.Have([]evidence.IPRule{}), Addresses: evidence.Have([]evidence.Address{})}}
	v := Judge(c)
	want := "10.9.0.2:80/tcp: c has no route to the other end of the tunnel d0"
	if v.Cause != "no-route" || v.Certainty != Observed || v.Summary != want {
		t.Errorf("%s %s %q, want no-route observed %q", v.Cause, v.Certainty, v.Summary, want)
	}
}

// That nobody answers within a tunnel may be the doing of whoever dropped the tunnel's own packets.
func TestNeighborInTunnel(t *testing.T) {
	for kind, want := range map[string]Certainty{"veth": Observed, "vxlan": Inferred} {
		t.Run(kind, func(t *testing.T) {
			c := &evidence.Case{Target: evidence.Target{Address: "10.9.0.2", Port: 80, Protocol: "tcp"}}
			c.Probe.Outcome, c.Probe.Netns = evidence.Unreachable, "c"
			c.Events = []evidence.Event{
				{At: 1, Kind: evidence.Route, Netns: "c", Direction: evidence.Forward, Route: &evidence.RouteLookup{Table: "main", Dest: "10.9.0.2", OIF: "d0"}},
				{At: 2, Kind: evidence.NeighborEvt, Netns: "c", Device: "d0", Neighbor: &evidence.Neighbor{Address: "10.9.0.2", Device: "d0", State: "FAILED"}},
				{At: 3, Kind: evidence.Drop, Netns: "c", Device: "d0", Direction: evidence.Forward, Reason: "NEIGH_FAILED", Function: "neigh_invalidate", SKB: "a",
					Packet: &evidence.Packet{Family: 4, Protocol: "tcp", Source: "10.9.0.1", Dest: "10.9.0.2", SPort: 40000, DPort: 80, Flags: "S"}},
			}
			c.Namespaces = []evidence.Namespace{{Name: "c", Links: evidence.Have([]evidence.Link{{Name: "d0", Kind: kind, Up: true, Carrier: true}})}}
			v := Judge(c)
			if v.Cause != "neighbor-unresolved" || v.Certainty != want || (want == Inferred) != (len(v.Unseen) > 0) {
				t.Errorf("%s %s, unseen %v; want neighbor-unresolved %s", v.Cause, v.Certainty, v.Unseen, want)
			}
		})
	}
}
