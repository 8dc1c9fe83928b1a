// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"errors"
	"fmt"
	"slices"

	"github.com/pathtrace/pathtrace/evidence"
)

// errAmbiguous says that more than one way through the rules fits.
var errAmbiguous = errors.New("the counters fit more than one way through the rules")

// The entries looked at, over all ways that are tried, are bounded by this
// many times the size of the table and as many again. Where each chain is
// visited once, one is enough.
const (
	replayRounds = 20
	replayExtra  = 100_000
)

// Replay finds the way of one packet through the table from the counters that
// it moved: moved(i) is by how much the packet counter of Entries[i] has grown.
// hook is one of PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING.
//
// The steps are the rules that matched, in order. The last is the decision: a
// rule, or with Policy the chain's policy. The return at the end of a user
// chain is a step with Number 0. Backend is "iptables-legacy", Verdict
// continue for a rule without target or with one that only does something
// (LOG, MARK …), and empty for a deciding target whose verdict the counters do
// not tell (TPROXY, SYNPROXY, unknown extensions).
//
// It is an error, never a guess, when no way or more than one way through the
// rules explains the counters: when another packet was counted meanwhile, for
// instance, or when a match dropped the packet without a verdict (hotdrop).
func (t *LegacyTable) Replay(hook string, moved func(index int) uint64) ([]evidence.RuleStep, error) {
	start, ok := t.HookEntry[hook]
	if !ok {
		return nil, fmt.Errorf("replay: table %s has no chain %s", t.Name, hook)
	}
	r := &replay{table: t, policy: t.Underflow[hook], left: make([]uint64, len(t.Entries)), budget: replayRounds*len(t.Entries) + replayExtra}
	if err := r.prepare(start, moved); err != nil {
		return nil, fmt.Errorf("replay %s %s: %w", t.Name, hook, err)
	}
	err := r.walk(start, nil, nil)
	if err == nil && r.found == nil {
		err = errors.New("no way through the rules explains the counters")
	}
	if err != nil {
		return nil, fmt.Errorf("replay %s %s: %w", t.Name, hook, err)
	}
	return r.found, nil
}

// replay is a search for the one way that uses up every counter's movement.
type replay struct {
	table  *LegacyTable
	policy int
	left   []uint64       // movement of each entry not yet explained
	total  uint64         // sum of left within reach
	visits map[int]uint64 // by a chain's first entry: how often it is still to be begun
	first  []int          // of each entry: the first of its chain
	found  []evidence.RuleStep
	budget int
}

// prepare notes what moved in the chains that the packet can have seen:
// those that rules which moved lead to. Counters elsewhere belong to other
// hooks and other packets.
func (r *replay) prepare(start int, moved func(int) uint64) error {
	entries := r.table.Entries
	r.first = make([]int, len(entries))
	for i := range entries {
		if i > 0 && entries[i].Chain == entries[i-1].Chain && !entries[i-1].Head {
			r.first[i] = r.first[i-1]
		} else {
			r.first[i] = i
		}
	}
	r.visits = map[int]uint64{start: 1}
	for chains := []int{start}; len(chains) > 0; chains = chains[1:] {
		for i := chains[0]; i < len(entries) && r.first[i] == chains[0] && !entries[i].Head; i++ {
			r.left[i] = moved(i)
			r.total += r.left[i]
			to := entries[i].Jump
			if r.left[i] == 0 || to < 0 {
				continue
			}
			if _, known := r.visits[to]; !known {
				chains = append(chains, to)
			}
			r.visits[to] += r.left[i]
		}
	}
	for i, left := range r.left {
		if left > r.visits[r.first[i]] {
			return fmt.Errorf("the counter of %s %s moved by %d: other packets were counted, too", r.table.Name, r.table.place(i), left)
		}
	}
	return nil
}

// place names an entry for a message.
func (t *LegacyTable) place(i int) string {
	e := t.Entries[i]
	switch {
	case e.Policy:
		return e.Chain + " policy"
	case e.Number == 0:
		return e.Chain + " end"
	}
	return fmt.Sprintf("%s %d", e.Chain, e.Number)
}

// way is how the packet came here: its steps, last first. Ways that branch
// share their beginning.
type way struct {
	before *way
	step   evidence.RuleStep
}

// caller is the stack of entries that jumped, innermost first.
type caller struct {
	entry int
	outer *caller
}

// walk follows the packet from entry at to the end of that chain.
func (r *replay) walk(at int, from *caller, came *way) error {
	if at >= len(r.left) {
		return nil
	}
	chain := r.first[at]
	if at == chain {
		if r.visits[chain] == 0 {
			return nil
		}
		r.visits[chain]--
		defer func() { r.visits[chain]++ }()
	}
	for ; at < len(r.left) && r.first[at] == chain; at++ {
		if r.budget--; r.budget < 0 {
			return errors.New("too many ways through the rules")
		}
		if r.left[at] == 0 {
			continue
		}
		if err := r.match(at, from, came); err != nil {
			return err
		}
		// It need not have matched if later visits can explain the movement.
		if r.left[at] > r.visits[chain] {
			return nil
		}
	}
	return nil // ran off the chain's end, whose last entry matches everything
}

// match follows the packet on from entry at, which it matched.
func (r *replay) match(at int, from *caller, came *way) error {
	e := r.table.Entries[at]
	if e.Head {
		return nil
	}
	r.left[at]--
	r.total--
	defer func() { r.left[at]++; r.total++ }()
	with := func(verdict string) *way { return &way{came, r.table.step(at, verdict)} }
	if !e.standard {
		verdict, ends := targetVerdict(e.Target)
		if ends != never {
			if err := r.finish(with(verdict)); err != nil {
				return err
			}
		}
		if ends != always {
			return r.walk(at+1, from, with("continue"))
		}
		return nil
	}
	switch {
	case e.Jump >= 0 && e.Goto:
		return r.walk(e.Jump, from, with("goto"))
	case e.Jump >= 0:
		return r.walk(e.Jump, &caller{at, from}, with("jump"))
	case e.Target == "":
		return r.walk(at+1, from, with("continue"))
	case e.Target == "RETURN" && from != nil:
		return r.walk(from.entry+1, from.outer, with("return"))
	case e.Target == "RETURN" && at != r.policy:
		return r.walk(r.policy, nil, with("return"))
	}
	return r.finish(with(map[string]string{"ACCEPT": "accept", "DROP": "drop", "QUEUE": "queue"}[e.Target]))
}

// finish takes a way that has come to a decision, if it explains everything.
func (r *replay) finish(w *way) error {
	if r.total != 0 {
		return nil
	}
	if r.found != nil {
		return errAmbiguous
	}
	for ; w != nil; w = w.before {
		r.found = append(r.found, w.step)
	}
	slices.Reverse(r.found)
	return nil
}

// step words the match of an entry.
func (t *LegacyTable) step(i int, verdict string) evidence.RuleStep {
	e := t.Entries[i]
	family := "ip"
	if t.Family == 6 {
		family = "ip6"
	}
	s := evidence.RuleStep{Backend: "iptables-legacy", Family: family, Table: t.Name, Chain: e.Chain, Number: e.Number,
		Policy: e.Policy, Verdict: verdict}
	if !e.Policy && !e.End {
		s.Target = e.Target
	}
	return s
}

// ending says whether a target decides over the packet.
type ending int

const (
	perhaps ending = iota
	always
	never
)

// targetVerdict says what a target extension does, by its name. One that is
// not known, or that does now this and now that, decides exactly if no later
// counter moved, and then its verdict is not known.
func targetVerdict(target string) (verdict string, ends ending) {
	switch target {
	case "REJECT":
		return "drop", always
	case "DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP", "SAME":
		return "accept", always
	case "NFQUEUE":
		return "queue", always
	case "TPROXY", "MIRROR":
		return "", always
	case "LOG", "ULOG", "NFLOG", "MARK", "CONNMARK", "CONNSECMARK", "SECMARK", "TOS", "DSCP", "SET", "CLASSIFY", "NOTRACK", "CT",
		"TRACE", "AUDIT", "CHECKSUM", "RATEEST", "LED", "IDLETIMER", "TEE", "HMARK", "ACCOUNT":
		return "", never
	}
	return "", perhaps
}
