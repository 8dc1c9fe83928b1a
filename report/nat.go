// SPDX-License-Identifier: Apache-2.0

package report

import (
	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// translations adds what NAT did to the first packet of either direction.
func (l *ladder) translations() {
	for _, t := range verdict.Translations(l.c) {
		reply := t.Event.Direction == evidence.Reply
		if p := class(t.Event.Packet); p == "ACK" || p == "data" || p == "FIN" || !reply && !l.first(p) {
			continue
		}
		station, r := t.Hook, hook
		if station == "" {
			station = "nat"
		}
		if reply {
			r = echo
		}
		e := *t.Event
		if t.Step != nil && e.Kind != evidence.HookPassed {
			e.At = t.Step.At // no observer was there: it shows later than it was made
		}
		l.add(&e, r, station, t.String(), "")
	}
}
