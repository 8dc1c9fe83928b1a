// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"testing"

	"github.com/pathtrace/pathtrace/evidence"
)

// Both ends may be in one namespace: what was chosen for the request does not take the answer.
func TestSteeredTakesNoAnswer(t *testing.T) {
	packet := func(from, to int) *evidence.Packet {
		return &evidence.Packet{Family: 4, Protocol: "tcp", Source: "127.0.0.1", Dest: "127.0.0.1", SPort: from, DPort: to}
	}
	c := &evidence.Case{
		Target: evidence.Target{Address: "127.0.0.1", Port: 80, Protocol: "tcp"},
		Events: []evidence.Event{
			{Kind: evidence.HookPassed, Netns: "host", Direction: evidence.Forward, Packet: packet(40000, 80), Socket: &evidence.EventSocket{Local: "0.0.0.0:15006", State: "LISTEN"}},
			{Kind: evidence.Consume, Netns: "host", Direction: evidence.Forward, Packet: packet(40000, 80)},
			{Kind: evidence.Drop, Netns: "host", Direction: evidence.Reply, Packet: packet(80, 40000)},
		},
	}
	for i, want := range map[int]int{1: 15006, 2: 40000} {
		if w, ok := wantedAt(c, &c.Events[i], &evidence.Namespace{Name: "host"}); !ok || w.port != want {
			t.Errorf("the %s packet goes to port %d, want %d", c.Events[i].Direction, w.port, want)
		}
	}
}
