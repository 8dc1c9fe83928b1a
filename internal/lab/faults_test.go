// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"regexp"
	"testing"
)

func TestFaultsAreWellFormed(t *testing.T) {
	names := map[string]bool{}
	for _, f := range Faults() {
		if names[f.Name] {
			t.Errorf("%s: the name is used twice", f.Name)
		}
		names[f.Name] = true
		if !regexp.MustCompile(`^[a-z0-9-]+$`).MatchString(f.Name) {
			t.Errorf("%q: want a name of small letters, digits and dashes", f.Name)
		}
		if f.Cause == "" || f.Summary == "" || f.Family != 4 && f.Family != 6 || f.Setup == nil || f.Target == nil {
			t.Errorf("%s: something is missing: %+v", f.Name, f)
		}
		if f.Cause != "reachable" && f.Want.Direction == "" {
			t.Errorf("%s: the direction is not asked about", f.Name)
		}
		if f.Want.Role == "" {
			t.Errorf("%s: the namespace is not asked about", f.Name)
		}
		if target := f.service(&Lab{}); !target.IsValid() || target.Addr().Is4() != (f.Family == 4) {
			t.Errorf("%s: target %q does not fit family %d", f.Name, f.Target(&Lab{}), f.Family)
		}
	}
	causes, controls := map[string]bool{}, 0
	for _, f := range Faults() {
		causes[f.Cause] = true
		if f.Twin != "" {
			controls++
		}
	}
	t.Logf("%d causes, %d faults, %d controls", len(causes), len(names)-controls, controls) // make test shows it
	for _, f := range Faults() {
		if f.Twin != "" && !names[f.Twin] {
			t.Errorf("%s: its twin %s does not exist", f.Name, f.Twin)
		}
	}
}

func TestFind(t *testing.T) {
	if f, ok := Find("nft-jumps-v6"); !ok || f.Family != 6 || f.Want.Rule.Chain != "apps" {
		t.Errorf("Find(nft-jumps-v6) = %+v, %v", f, ok)
	}
	if f, ok := Find("no such fault"); ok {
		t.Errorf("Find of an unknown name returns %+v", f)
	}
}

func TestSnapshotLeavesOutOwnedTables(t *testing.T) {
	const mine = "table inet edge {\n\tflags dormant\n\n\tchain guard {\n\t\taccept\n\t}\n}\n"
	const theirs = "table inet trace { # progname other\n\tflags owner\n\n\tchain prerouting {\n\t\tmeta nftrace set 1\n\t}\n}\n"
	for _, ruleset := range []string{theirs + mine, mine + theirs, theirs + mine + theirs} {
		if got := owned.ReplaceAllString(ruleset, ""); got != mine {
			t.Errorf("got %q", got)
		}
	}
}
