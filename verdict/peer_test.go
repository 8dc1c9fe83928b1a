// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
)

// split makes two hosts of a recorded case: the namespace where the packet died
// is the other end's, all else that was seen besides the probe's own is lost.
func split(c *evidence.Case, netns string) (here, there *evidence.Case) {
	here, there = new(evidence.Case), new(evidence.Case)
	*here, *there = *c, *c
	here.Events, there.Events, here.Namespaces, there.Namespaces = nil, nil, nil, nil
	there.Lost, there.Unseen, there.Probe.Netns = 0, nil, ""
	here.Scope = evidence.OwnNamespace
	for _, e := range c.Events {
		switch e.Netns {
		case c.Probe.Netns:
			here.Events = append(here.Events, e)
		case netns:
			there.Events = append(there.Events, e)
		}
	}
	for _, n := range c.Namespaces {
		switch n.Name {
		case c.Probe.Netns:
			here.Namespaces = append(here.Namespaces, n)
		case netns:
			there.Namespaces = append(there.Namespaces, n)
		}
	}
	return here, there
}

func joined(c *evidence.Case, netns string, p evidence.Peer) *evidence.Case {
	here, there := split(c, netns)
	here.Join(p, there, 0)
	return here
}

// routersPart are cases that another kernel than the server's decides, or makes certain.
var routersPart = []string{
	"firewall-drop-behind-synproxy", "no-listener-behind-synproxy", // that there is a proxy is deduced
	"firewall-policy-arp",          // the router never sends it
	"listener-elsewhere-namespace", // somebody listens in the router's namespace
}

// What one kernel shows whole is judged the same when the server's is another
// one: only that the proof and the objects are said to be over there.
func TestPeerVerdicts(t *testing.T) {
	peer := evidence.Peer{Host: evidence.Host{Name: "web1", Kernel: "6.1.0"}, Reached: "ssh://web1"}
	tried := map[string]bool{}
	for _, n := range cases(t) {
		c := n.load(t)
		want := Judge(c)
		if want.Where.Netns == c.Probe.Netns || want.Where.Netns == "" || len(c.Peers) > 0 || want.Cause == "unexplained" || slices.Contains(routersPart, n.name) {
			continue
		}
		arrived := false // at the server, whose verdict it is
		for i := range c.Events {
			e := &c.Events[i]
			arrived = arrived || e.Netns == want.Where.Netns && e.Kind == evidence.Receive && direction(c, e) == evidence.Forward && atDestination(c, e)
		}
		if !arrived {
			continue
		}
		tried[want.Cause] = true
		t.Run(n.name, func(t *testing.T) {
			got := Judge(joined(c, want.Where.Netns, peer))
			if got.Where.Host != "web1" || got.Where.Netns != want.Where.Netns {
				t.Fatalf("%s on %q, in %s: %s", got.Cause, got.Where.Host, got.Where.Netns, got.Summary)
			}
			type short struct {
				Cause     string
				Certainty Certainty
				Direction string
				Rule      *Rule
				File      *FileRef
				Socket    *SocketRef
			}
			of := func(v Verdict) short {
				return short{v.Cause, v.Certainty, v.Direction, v.Where.Rule, v.Where.File, v.Where.Socket}
			}
			if diff := cmp.Diff(of(want), of(got)); diff != "" {
				t.Errorf("(-one kernel +two):\n%s", diff)
			}
			for _, f := range got.Fixes {
				if f.Host != "web1" {
					t.Errorf("a fix for %q: %v", f.Host, f.Commands)
				}
			}
			if s := strings.Join(append(got.Proof, got.Summary), "\n"); strings.Contains(s, "web1/") {
				t.Errorf("the name of a namespace as the case has it is shown:\n%s", s)
			}
		})
	}
	if len(tried) < 15 {
		t.Errorf("only %d causes were tried: %v", len(tried), tried)
	}
}

// What the other end would have seen had it not been cut off is not known.
func TestPeerCutOff(t *testing.T) {
	for _, n := range cases(t) {
		if n.name != "firewall-drop" {
			continue
		}
		c := n.load(t)
		v := Judge(c)
		got := Judge(joined(c, v.Where.Netns, evidence.Peer{Host: evidence.Host{Name: "web1"}, Error: "the connection to it ended"}))
		if got.Certainty == Observed || len(got.Unseen) == 0 || !strings.Contains(got.Unseen[len(got.Unseen)-1], "web1") {
			t.Errorf("%s %s, unseen %v", got.Certainty, got.Cause, got.Unseen)
		}
	}
}

// FuzzJoin judges what a peer that wants us harm says.
func FuzzJoin(f *testing.F) {
	all := cases(f)
	here := all[0].load(f)
	for _, n := range all {
		f.Add(n.raw, int64(1000))
	}
	f.Fuzz(func(t *testing.T, raw []byte, shift int64) {
		there := new(evidence.Case)
		if json.Unmarshal(raw, there) != nil {
			return
		}
		c := *here
		c.Events, c.Namespaces = append([]evidence.Event{}, here.Events...), append([]evidence.Namespace{}, here.Namespaces...)
		c.Join(evidence.Peer{Host: evidence.Host{Name: "web1"}}, there, shift)
		if v := Judge(&c); v.Cause == "" || v.Summary == "" {
			t.Errorf("an empty verdict: %+v", v)
		}
	})
}
