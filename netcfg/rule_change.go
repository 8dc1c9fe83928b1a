// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// PlanRule works out what "ip rule OPERATION WORDS" would do: add or del, as
// [Netns.PlanRoute] does for routes.
func (n *Netns) PlanRule(operation string, w RuleWords) (*Change, error) {
	t, err := n.readChangeable(w.family)
	if err != nil {
		return nil, err
	}
	c := &Change{netns: n, before: t}
	names := readRouteNames()
	switch operation {
	case "add":
		return c, c.planNewRule(names, w.complete(t.rules))
	case "del":
		return c, c.planDeleteRule(names, w)
	}
	return nil, badWord(operation, "not add or del")
}

// complete returns the rule that the kernel will have for the words.
func (w RuleWords) complete(rules []ipRule) ipRule {
	r := w.ipRule
	if !w.typed["action"] {
		r.action, r.table = frActTable, unix.RT_TABLE_MAIN
	}
	if _, ok := r.attrs[nl.FRA_PRIORITY]; !ok {
		// fib_default_rule_pref: before the second of all rules.
		priority := uint32(0)
		if len(rules) > 1 && rules[1].priority() > 0 {
			priority = rules[1].priority() - 1
		}
		r.set(nl.FRA_PRIORITY, binary.NativeEndian.AppendUint32(nil, priority))
	}
	return r
}

func (c *Change) planNewRule(names *routeNames, r ipRule) error {
	if to, ok := r.attrs[nl.FRA_GOTO]; ok && to.u32() <= r.priority() {
		return badWord(fmt.Sprintf("goto %d", to.u32()), "a rule can only lead to a later one, and this is number %d", r.priority())
	}
	if slices.ContainsFunc(c.before.rules, r.same) {
		return fmt.Errorf("nothing was changed: %w: %s", ErrIsThere, r.describe(names))
	}
	c.kind, c.flags, c.body = unix.RTM_NEWRULE, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL, r.body()
	c.What = "add " + r.describe(names)
	at := slices.IndexFunc(c.before.rules, func(x ipRule) bool { return x.priority() > r.priority() })
	if at < 0 {
		at = len(c.before.rules)
	}
	other := *c.before
	other.rules = slices.Insert(slices.Clone(c.before.rules), at, r)
	c.after = &other
	if err := deletable(names, other.rules, r); err != nil {
		return err
	}
	return c.undo(r.command("del"))
}

// planDeleteRule deletes the first rule that fits. The undo adds it again, which puts it behind
// those of its priority: these are put behind it, one after the other.
func (c *Change) planDeleteRule(names *routeNames, w RuleWords) error {
	at := slices.IndexFunc(c.before.rules, w.fits)
	if at < 0 {
		return fmt.Errorf("%w: there is no such ip rule", ErrNotThere)
	}
	r := c.before.rules[at]
	if slices.ContainsFunc(c.before.rules[at+1:], r.same) {
		return fmt.Errorf("%w: %s is there twice, and could not be restored", ErrNoUndo, r.describe(names))
	}
	c.kind, c.flags, c.body = unix.RTM_DELRULE, unix.NLM_F_ACK, r.body()
	c.What = "delete " + r.describe(names)
	c.after = c.before.without(nil, &r)
	if err := deletable(names, c.before.rules, r); err != nil {
		return err
	}
	err := c.undo(r.command("add"))
	for _, x := range c.before.rules[at+1:] {
		if x.priority() == r.priority() {
			err = errors.Join(err, c.undo(x.command("del")), c.undo(x.command("add")))
		}
	}
	return err
}

// deletable makes sure that the kernel, told to delete r, does that. It takes
// the first rule that fits, and to it what r does not select fits anything (rule_find).
func deletable(names *routeNames, rules []ipRule, r ipRule) error {
	plain, err := parseRule(r.body())
	if err != nil {
		return err
	}
	w := RuleWords{plain, map[string]bool{"from": r.srcLen > 0, "to": r.dstLen > 0, "tos": r.tos != 0, "action": true, "table": r.table != 0}}
	for _, x := range rules {
		w.typed["not"] = x.ruleFlags&fibRuleInvert != 0
		if !w.fits(x) {
			continue
		}
		if x.same(r) {
			break
		}
		return fmt.Errorf("%w: %s could not be told from %s, which has its priority", ErrNoUndo, r.describe(names), x.text(names))
	}
	return nil
}

// fits reports whether the rule is what was typed, all that was not typed being free.
func (w RuleWords) fits(r ipRule) bool {
	if w.typed["not"] != (r.ruleFlags&fibRuleInvert != 0) || w.typed["from"] && w.srcLen != r.srcLen || w.typed["to"] && w.dstLen != r.dstLen ||
		w.typed["tos"] && w.tos != r.tos || w.typed["action"] && w.action != r.action || w.typed["table"] && w.table != r.table {
		return false
	}
	for kind, want := range w.attrs {
		if have, ok := r.attrs[kind]; !ok && !(kind == nl.FRA_PRIORITY && want.u32() == 0) || ok && !bytes.Equal(want.value, have.value) {
			return false
		}
	}
	return true
}

func (r ipRule) describe(names *routeNames) string {
	return fmt.Sprintf("IPv%d rule %s", ipVersion(r.family), r.text(names))
}
