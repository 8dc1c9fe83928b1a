// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"slices"

	"github.com/pathtrace/pathtrace/evidence"
)

//go:generate go run ./gen ../docs/causes.md

// Causes lists every cause that Judge can find. Where two could claim the
// same packet the earlier one is the more exact.
var Causes = slices.Concat(
	wrapCauses,
	reachCauses,
	firewallCauses,
	netfilterCauses,
	isolatedCauses,
	linkCauses,
	routeCauses,
	ipCauses,
	socketCauses,
	listenCauses,
	queueCauses,
	appCauses,
	remoteCauses,
)

// ask returns the first cause that is proven by the fate e, or by the case as a whole when e is nil.
func ask(c *evidence.Case, e *evidence.Event) *Verdict {
	for _, cause := range Causes {
		if e != nil && isStray(e) && cause.ID != otherHost {
			continue // whatever freed such a frame, nobody here would have taken it
		}
		if v := cause.Find(c, e); v != nil {
			v.Cause = cause.ID
			return v
		}
	}
	return nil
}
