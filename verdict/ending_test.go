// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"slices"
	"strings"
	"testing"

	"github.com/pathtrace/pathtrace/evidence"
)

// Where the kernel told who accepted, that is in the proof with its time; an
// accept of another connection, or behind the end, is not.
func TestEndingTellsWhoAccepted(t *testing.T) {
	s := &evidence.Event{Kind: evidence.State, At: 3_000_000, Netns: "srv", Socket: &evidence.EventSocket{Local: "10.0.0.1:80"},
		State: &evidence.StateChange{Old: "ESTABLISHED", New: "FIN_WAIT1"}, PID: 7, Comm: "child"}
	accept := func(at int64, netns, local string) evidence.Event {
		return evidence.Event{Kind: evidence.Accept, At: at, Netns: netns, Socket: &evidence.EventSocket{Local: local}, PID: 5, Comm: "server"}
	}
	for _, c := range []struct {
		name string
		e    evidence.Event
		want bool
	}{
		{"this connection", accept(2_000_000, "srv", "10.0.0.1:80"), true},
		{"another socket", accept(2_000_000, "srv", "10.0.0.1:81"), false},
		{"another namespace", accept(2_000_000, "cli", "10.0.0.1:80"), false},
		{"later", accept(4_000_000, "srv", "10.0.0.1:80"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			proof := ending(&evidence.Case{Target: evidence.Target{Protocol: "tcp"}, Events: []evidence.Event{c.e, *s}}, s)
			said := slices.Contains(proof, "server (pid 5) had accepted it 2.00 ms after connect()")
			if said != c.want {
				t.Errorf("told: %v, want %v: %s", said, c.want, strings.Join(proof, "; "))
			}
		})
	}
}
