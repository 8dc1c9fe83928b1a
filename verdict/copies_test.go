// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
)

// A switch floods the SYN to three hosts; what became of the copy for the host that has the address decides.
func TestFatesOfCopies(t *testing.T) {
	drop := func(at int64, netns, skb, reason string) evidence.Event {
		return evidence.Event{
			At: at, Kind: evidence.Drop, Netns: netns, Direction: evidence.Forward, SKB: skb, Reason: reason,
			Packet: &evidence.Packet{Family: 4, Protocol: "tcp", Flags: "S", Source: "192.0.2.1", Dest: "192.0.2.9", DPort: 80, ID: 7, Seq: 1},
		}
	}
	with := func(e evidence.Event, change func(*evidence.Event)) evidence.Event { change(&e); return e }
	copied := func(e *evidence.Event) { e.Copy = true }
	stray := func(e *evidence.Event) { e.OtherHost = true }
	later := func(e *evidence.Event) { e.Packet.ID = 8 }
	for name, c := range map[string]struct {
		events []evidence.Event
		want   []string // buffers whose fate counts
	}{
		"alone":                              {[]evidence.Event{drop(1, "switch", "a", "X")}, []string{"a"}},
		"alone, a copy":                      {[]evidence.Event{with(drop(1, "switch", "a", "X"), copied)}, []string{"a"}},
		"stray last":                         {[]evidence.Event{with(drop(1, "server", "a", "X"), copied), with(drop(2, "other", "b", "TC_INGRESS"), stray)}, []string{"a"}},
		"stray only":                         {[]evidence.Event{with(drop(1, "other", "b", "TC_INGRESS"), stray)}, []string{"b"}},
		"refused on the way, server's last":  {[]evidence.Event{with(drop(1, "switch", "b", "X"), copied), drop(2, "server", "a", "Y")}, []string{"a"}},
		"refused on the way, server's first": {[]evidence.Event{with(drop(1, "server", "a", "Y"), copied), drop(2, "switch", "b", "X")}, []string{"a"}},
		"both on the way":                    {[]evidence.Event{with(drop(1, "switch", "a", "X"), copied), drop(2, "switch", "b", "Y")}, []string{"b"}},
		"sent again":                         {[]evidence.Event{with(drop(1, "switch", "a", "X"), copied), with(drop(2, "server", "b", "Y"), later)}, []string{"a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			k := &evidence.Case{
				Target: evidence.Target{Address: "192.0.2.9", Port: 80, Protocol: "tcp"}, Events: c.events,
				Namespaces: []evidence.Namespace{
					{Name: "server", Addresses: evidence.Have([]evidence.Address{{Prefix: "192.0.2.9/24"}})},
					{Name: "switch", Addresses: evidence.Have([]evidence.Address{})},
				},
			}
			var got []string
			for _, e := range fates(k) {
				got = append(got, e.SKB)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("fates (-want +got):\n%s", diff)
			}
		})
	}
}
