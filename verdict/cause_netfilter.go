// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

var netfilterCauses = []Cause{
	{
		ID:      "nfqueue-unread",
		Means:   "sent to user space, and nobody reads the queue",
		Needs:   "drop at nf_queue; rule event with verdict queue (or target NFQUEUE); firewall chains",
		Reasons: []string{"NOT_SPECIFIED", "NETFILTER_DROP"},
		Find:    findQueueUnread,
	},
	{
		ID:      "nfqueue-drop",
		Means:   "sent to user space, and the reader dropped it",
		Needs:   "drop at nfqnl_reinject in the reader's context (pid, comm); rule event with verdict queue; firewall chains",
		Reasons: []string{"NOT_SPECIFIED", "NETFILTER_DROP"},
		Find:    findQueueDrop,
	},
	{
		ID:      "conntrack-full",
		Means:   "the connection table is full",
		Needs:   "drop NETFILTER_DROP; hooks and observers that leave conntrack alone; sysctls nf_conntrack_count and _max; counters ConntrackDrop or ConntrackInsert_failed",
		Reasons: []string{"NETFILTER_DROP"},
		Find:    findConntrackFull,
	},
}

// queueRule names the rule that sent the packet of e to a queue; nil when no trace names it.
func queueRule(c *evidence.Case, e *evidence.Event, v *Verdict) *Rule {
	d := decided(c, e, "queue", "stolen")
	if d == nil {
		for i := range c.Events { // a legacy rule's trace names the target, the verdict is the target's own
			s := &c.Events[i]
			if s.Kind == evidence.RuleVerdict && s.Rule != nil && s.Rule.Target == "NFQUEUE" && fits(c, s, e) {
				d = walk(c, s, true)
			}
		}
	}
	if d == nil {
		return nil
	}
	r, certain := rule(v, space(c, e), d)
	if !certain || !d.exact {
		v.Certainty = Inferred
	}
	v.Where.Rule = r
	if v.Where.Hook == "" {
		v.Where.Hook = d.step.Hook
	}
	proveRule(v, d, false)
	v.Fixes = allow(c, e, space(c, e), v, d)
	return r
}

func findQueueUnread(c *evidence.Case, e *evidence.Event) *Verdict {
	if !isDrop(e, "NOT_SPECIFIED", "NETFILTER_DROP", "") || !at(e, "nf_queue", "__nf_queue") || !placed(e) {
		return nil
	}
	v := start(c, e, Observed)
	r := queueRule(c, e, v)
	if r == nil {
		return nil
	}
	v.Proof = append(v.Proof, "the kernel freed it in "+e.Function+": it found nobody to hand it to")
	v.Summary = fmt.Sprintf("%s: sent to a queue that no program reads by%s in %s", target(c), ruleWords(r), name(e.Netns))
	return v
}

func findQueueDrop(c *evidence.Case, e *evidence.Event) *Verdict {
	if e == nil || e.Kind != evidence.Drop || !placed(e) || !calledBy(e, "nfqnl_reinject", "nfqnl_recv_verdict", "nfqnl_recv_verdict_batch") {
		return nil
	}
	// A queue that is taken down drops what is in it, in nobody's name.
	if e.PID == 0 || !e.InTask && !calledBy(e, "nfqnl_recv_verdict", "nfqnl_recv_verdict_batch") {
		return nil
	}
	v := start(c, e, Observed)
	r := queueRule(c, e, v)
	if r == nil {
		return nil
	}
	v.Where.Process = &evidence.Process{PID: e.PID, Comm: e.Comm}
	v.Proof = append(v.Proof, fmt.Sprintf("%s (pid %d) read it from the queue and said drop", e.Comm, e.PID))
	v.Summary = fmt.Sprintf("%s: %s (pid %d) read it from a queue and dropped it; queued by%s in %s", target(c), e.Comm, e.PID, ruleWords(r), name(e.Netns))
	return v
}

func findConntrackFull(c *evidence.Case, e *evidence.Event) *Verdict {
	if !isNetfilter(e) || e.Kind != evidence.Drop || e.Function == "nft_do_chain" || decided(c, e, "drop") != nil {
		return nil
	}
	n := space(c, e)
	list, known := suspects(c, e, n)
	// Observers that are not marked as ours look like any BPF program; what conntrack itself counted settles it.
	list = slices.DeleteFunc(list, func(h evidence.Hook) bool { return h.Type == "bpf" })
	if !known || len(list) != 1 || !strings.Contains(list[0].Function, "conntrack_in") && !strings.Contains(list[0].Function, "conntrack_local") {
		return nil
	}
	if !n.Sysctls.Read() || !n.Counters.Read() {
		return nil
	}
	const limit = "net.netfilter.nf_conntrack_max"
	most, ok := sysctl(n, limit)
	count, ok2 := sysctl(n, "net.netfilter.nf_conntrack_count")
	x, err := strconv.Atoi(most)
	y, err2 := strconv.Atoi(count)
	if !ok || !ok2 || err != nil || err2 != nil || x == 0 || y < x {
		return nil
	}
	moved, ours := conntrackDrops(n), uint64(0)
	for i := range c.Events {
		if d := &c.Events[i]; isNetfilter(d) && d.Netns == e.Netns && d.Hook == e.Hook && d.At <= e.At {
			ours++
		}
	}
	if moved < ours {
		return nil
	}
	v := start(c, e, Inferred)
	v.Transient = true
	v.Where.Sysctl = &evidence.Sysctl{Name: limit, Value: most}
	v.Proof = append(v.Proof,
		fmt.Sprintf("of the functions at hook %s only %s (priority %d) can have dropped it", e.Hook, list[0].Function, list[0].Priority),
		fmt.Sprintf("nf_conntrack_count is %s, %s is %s", count, limit, most),
		fmt.Sprintf("conntrack's drop counters rose by %d during the probe", moved))
	v.Summary = fmt.Sprintf("%s: the connection table of %s is full: %s of %s entries", target(c), name(e.Netns), count, most)
	return v
}

// conntrackDrops sums the counters of packets that conntrack itself threw away.
func conntrackDrops(n *evidence.Namespace) uint64 {
	var sum uint64
	for _, k := range n.Counters.Items {
		s := strings.ToLower(k.Name)
		if strings.Contains(s, "conntrack") && !strings.Contains(s, "early") && (strings.HasSuffix(s, "drop") || strings.HasSuffix(s, "insert_failed")) {
			sum += k.Delta
		}
	}
	return sum
}
