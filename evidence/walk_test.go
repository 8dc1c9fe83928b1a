// SPDX-License-Identifier: Apache-2.0

package evidence

import "testing"

// That the way back is another one is said only where several answers agree on
// it, up to the last; hosts begin with whatever TTL they like.
func TestWayBack(t *testing.T) {
	for name, c := range map[string]struct {
		back   []int // TTLs that the answers arrive with, hop by hop; 0: silent
		answer string
		from   int
		longer int
	}{
		"the same way":                       {back: []int{64, 63, 62, 61}, answer: SYNACK},
		"systems of several makers":          {back: []int{255, 63, 126, 252}, answer: SYNACK},
		"longer from the third on":           {back: []int{64, 63, 60, 59}, answer: SYNACK, from: 3, longer: 2},
		"shorter":                            {back: []int{64, 255, 62, 63, 62}, answer: TimeExceeded, from: 4, longer: -2},
		"silence between":                    {back: []int{64, 61, 0, 59}, answer: Replied, from: 2, longer: 2},
		"one alone, who begins with 61":      {back: []int{64, 63, 59}, answer: SYNACK},
		"an answer between goes the one way": {back: []int{62, 63, 62, 59}, answer: SYNACK},
		"routers that begin with 254":        {back: []int{64, 253, 252}, answer: TimeExceeded},
		"no two agree":                       {back: []int{64, 61, 58, 52}, answer: SYNACK},
		"too far to be one's guess":          {back: []int{64, 63, 20, 19}, answer: SYNACK},
		"who resets may be a router before":  {back: []int{64, 63, 60, 63}, answer: RSTAnswer},
	} {
		w := Walk{}
		for i, ttl := range c.back {
			h := Hop{TTL: i + 1, ReplyTTL: ttl}
			if ttl != 0 {
				h.Answer = TimeExceeded
			}
			if i == len(c.back)-1 {
				h.Answer = c.answer
			}
			w.Hops = append(w.Hops, h)
		}
		got := w.WayBack()
		if (got == nil) != (c.from == 0) || got != nil && (got.From.TTL != c.from || got.Longer != c.longer) {
			t.Errorf("%s: %+v, want %d more from %d on", name, got, c.longer, c.from)
		}
	}
}
