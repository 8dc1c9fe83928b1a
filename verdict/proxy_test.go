// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"slices"
	"testing"

	"github.com/pathtrace/pathtrace/evidence"
)

// A proxy that was seen at work makes a verdict certain, one that is deduced does not.
func TestProxyThatIsDeduced(t *testing.T) {
	for _, n := range cases(t) {
		if n.name != "firewall-drop-behind-synproxy" {
			continue
		}
		c := n.load(t)
		if v := Judge(c); proxied(c) == nil || v.Certainty != Observed {
			t.Errorf("with the proxy's own event: %s %s", v.Cause, v.Certainty)
		}
		for p := proxied(c); p != nil; p = proxied(c) {
			seen := *p
			c.Events = slices.DeleteFunc(slices.Clone(c.Events), func(e evidence.Event) bool { return e.Kind == seen.Kind && e.At == seen.At && e.SKB == seen.SKB })
		}
		if v := Judge(c); v.Certainty == Observed {
			t.Errorf("without it: %s %s", v.Cause, v.Certainty)
		}
		return
	}
	t.Error("no recorded case of a SYN proxy")
}
