// SPDX-License-Identifier: Apache-2.0

package evidence

import "testing"

// A place on the way is blamed for large packets only where small ones came
// through beside each that was lost, and never against one that arrived.
func TestHole(t *testing.T) {
	passed := func(ttl int) SizeTest {
		return SizeTest{TTL: ttl, Size: 1500, Sent: 1, Passed: true, Address: "192.0.2.1", Answer: TimeExceeded}
	}
	lost := func(ttl, n int, answer string) SizeTest {
		return SizeTest{TTL: ttl, Size: 1500, Sent: 4, Lost: n, Address: "192.0.2.2", Answer: answer}
	}
	told := lost(3, 0, "")
	told.TooBig, told.MTU = "192.0.2.9", 1400
	for name, c := range map[string]struct {
		tests        []SizeTest
		last, behind int
	}{
		"nothing was tried":            {},
		"all arrive":                   {[]SizeTest{passed(1), passed(2), passed(3)}, 3, 0},
		"vanish":                       {[]SizeTest{passed(1), lost(2, SizeTries, TimeExceeded), lost(3, SizeTries, SYNACK)}, 1, 2},
		"vanish at once":               {[]SizeTest{lost(1, SizeTries, TimeExceeded), lost(2, SizeTries, TimeExceeded)}, 0, 1},
		"too few to tell from chance":  {[]SizeTest{passed(1), lost(2, SizeTries-1, TimeExceeded)}, 1, 0},
		"small ones are lost as well":  {[]SizeTest{passed(1), lost(2, 0, ""), lost(3, 0, "")}, 1, 0},
		"one arrived farther away":     {[]SizeTest{passed(1), lost(2, SizeTries, TimeExceeded), passed(3)}, 3, 0},
		"a service has nothing to say": {[]SizeTest{passed(1), passed(2), lost(3, SizeTries, Replied)}, 2, 0},
		"a router says why":            {[]SizeTest{passed(1), passed(2), told, lost(4, SizeTries, SYNACK)}, 0, 0},
	} {
		m := PathMTU{Small: 44, Tests: c.tests}
		last, behind := m.Hole(1500)
		ttl := func(t *SizeTest) int {
			if t == nil {
				return 0
			}
			return t.TTL
		}
		if ttl(last) != c.last || ttl(behind) != c.behind {
			t.Errorf("%s: between %d and %d, want %d and %d", name, ttl(last), ttl(behind), c.last, c.behind)
		}
	}
}
