// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
)

// A packet that carries ours in a tunnel bears other addresses, but nothing was translated.
func TestNATInTunnel(t *testing.T) {
	seen := func(at int64, kind evidence.Kind, dest string, port, length int) evidence.Event {
		return evidence.Event{At: at, Kind: kind, Netns: "s", Direction: evidence.Forward, SKB: "a",
			Packet: &evidence.Packet{Family: 4, Protocol: "udp", Source: "10.0.0.1", Dest: dest, SPort: 40000, DPort: port, Length: length}}
	}
	for name, test := range map[string]struct {
		before []evidence.Event
		length int
		want   *NATRef
	}{
		"translated":   {[]evidence.Event{seen(1, evidence.Receive, "10.9.0.2", 53, 29)}, 29, &NATRef{From: "10.9.0.2:53", To: "10.0.0.2:4789"}},
		"encapsulated": {[]evidence.Event{seen(1, evidence.Transmit, "10.9.0.2", 53, 29)}, 79, nil},
		"another packet in the buffer": {[]evidence.Event{seen(1, evidence.Transmit, "10.9.0.2", 53, 29), seen(2, evidence.Consume, "10.9.0.2", 53, 29)}, 79,
			&NATRef{From: "10.9.0.2:53", To: "10.0.0.2:4789"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := &evidence.Case{Target: evidence.Target{Address: "10.9.0.2", Port: 53, Protocol: "udp"}}
			c.Events = append(test.before, seen(9, evidence.Drop, "10.0.0.2", 4789, test.length))
			if diff := cmp.Diff(test.want, nat(c, &c.Events[len(c.Events)-1])); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
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
