// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// addCounterfactual adds what came of a fix that was tried: that it heals, or what stands behind it.
func addCounterfactual(c *evidence.Case, v *Verdict) {
	t := c.Counterfactual
	switch {
	case t == nil || t.Cause == "" && t.Untried == "":
		return
	case t.Untried != "":
		v.Unseen = append(v.Unseen, "what stands behind it: no fix was tried: "+t.Untried)
		return
	case t.Fix < 0 || t.Fix >= len(v.Fixes):
		return
	}
	fix := &v.Fixes[t.Fix]
	with := "with this change (" + fix.Summary + ")"
	switch {
	case fix.Mark != "" && v.Where.Rule != nil && v.Where.Rule.Number == 0:
		with = "with this policy skipped"
	case fix.Mark != "":
		with = "with this rule skipped"
	}
	behind := strings.TrimPrefix(t.Summary, target(c)+": ")
	switch {
	case t.Cause == "unexplained":
		v.Proof = append(v.Proof, with+" it still fails, which was tried; why is not established: "+behind)
	case t.Cause != "reachable":
		v.Proof = append(v.Proof, with+" it still fails, which was tried: behind it stands another cause ("+t.Cause+"): "+behind)
	case t.Again == "reachable":
		v.Proof = append(v.Proof, with+" the service answers, but it did so as well when the change had been taken back: it was not the change that healed it")
	case t.Again == "":
		v.Proof = append(v.Proof, with+" the service answers, which was tried; whether it would without the change by now was not")
	default:
		fix.Verified = true
		v.Proof = append(v.Proof, with+" the service answers, and without it not: it was tried, taken back, and tried again")
	}
	if t.Restored {
		v.Proof = append(v.Proof, "the configuration of "+name(fix.Netns)+" was read after that, and is the one of before")
	}
}
