// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"encoding/json"
	"go/build"
	"slices"
	"strings"
	"testing"

	"github.com/pathtrace/pathtrace/evidence"
)

// The verdict is a pure function, so that `pathtrace judge` gives the same one
// on any machine: whoever needs a file, a socket or a clock belongs elsewhere.
func TestImports(t *testing.T) {
	allowed := []string{"cmp", "fmt", "maps", "math", "net/netip", "regexp", "slices", "strconv", "strings", "github.com/pathtrace/pathtrace/evidence"}
	p, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range p.Imports {
		if !slices.Contains(allowed, i) {
			t.Errorf("verdict imports %s; it decides from evidence alone", i)
		}
	}
}

// sections unread one section each.
var sections = map[string]func(*evidence.Namespace){
	"hooks":     func(n *evidence.Namespace) { n.Hooks = evidence.Missing[evidence.Hook]("test") },
	"links":     func(n *evidence.Namespace) { n.Links = evidence.Missing[evidence.Link]("test") },
	"addresses": func(n *evidence.Namespace) { n.Addresses = evidence.Missing[evidence.Address]("test") },
	"routes":    func(n *evidence.Namespace) { n.Routes = evidence.Missing[evidence.RouteItem]("test") },
	"rules":     func(n *evidence.Namespace) { n.Rules = evidence.Missing[evidence.IPRule]("test") },
	"lookups":   func(n *evidence.Namespace) { n.Lookups = evidence.Missing[evidence.Lookup]("test") },
	"neighbors": func(n *evidence.Namespace) { n.Neighbors = evidence.Missing[evidence.Neighbor]("test") },
	"sockets":   func(n *evidence.Namespace) { n.Sockets = evidence.Missing[evidence.Socket]("test") },
	"libwrap":   func(n *evidence.Namespace) { n.Wraps = evidence.Missing[evidence.WrapDecision]("test") },
	"chains":    func(n *evidence.Namespace) { n.Chains = evidence.Missing[evidence.Chain]("test") },
	"sysctls":   func(n *evidence.Namespace) { n.Sysctls = evidence.Missing[evidence.Sysctl]("test") },
	"programs":  func(n *evidence.Namespace) { n.Programs = evidence.Missing[evidence.CgroupProgram]("test") },
	"counters":  func(n *evidence.Namespace) { n.Counters = evidence.Missing[evidence.Counter]("test") },
}

// deciding sections: without one of these the cause may not be given at all.
var deciding = map[string][]string{
	"no-route":            {"rules"},
	"link-down":           {"links"},
	"no-listener":         {"sockets"},
	"listener-elsewhere":  {"sockets"},
	"accept-queue-full":   {"sockets", "counters"},
	"syn-queue-full":      {"sockets", "counters", "sysctls", "lookups"},
	"rp-filter":           {"sysctls"},
	"forwarding-disabled": {"sysctls"},
	"not-our-address":     {"sysctls"},
	"conntrack-full":      {"hooks", "sysctls", "counters"},
	"ipv6-disabled":       {"sysctls"},
	"qdisc-drop":          {"links"},
	"socket-filter":       {"sockets"},
	"cgroup-bpf":          {"sockets"},
	"time-wait":           {"sockets"},
	"app-silent":          {"sockets"},
	"remote-silent":       {"links"},
	"firewall-drop":       nil,
}

// naming sections: without one of these the cause stands, but its object is not known for certain.
var naming = map[string][]string{
	"firewall-drop":   {"chains"},
	"firewall-reject": {"chains"},
	"firewall-policy": {"chains"},
	"nfqueue-unread":  {"chains"},
	"nfqueue-drop":    {"chains"},
	"route-blackhole": {"routes"}, "route-unreachable": {"routes"}, "route-prohibit": {"routes"},
	"no-route":        {"links", "addresses"},
	"not-our-address": {"addresses"},
	"mtu-exceeded":    {"links"},
	"md5-mismatch":    {"sockets"}, "min-ttl": {"sockets"}, "receive-buffer-full": {"sockets"},
	"neighbor-unresolved": {"links"},
	"libwrap-denied":      {"libwrap"},
}

// notNeeded are cases that a cause is proven by without the section.
var notNeeded = map[string][]string{
	"cgroup-bpf-egress":      {"sockets"}, // our own packet: the probe knows its cgroup
	"cgroup-bpf-connect":     {"sockets"}, // our own connect()
	"cgroup-bpf-own-ingress": {"sockets"}, // an answer to our own socket
}

func TestUnreadSections(t *testing.T) {
	for _, n := range cases(t) {
		want := Judge(n.load(t))
		for _, s := range deciding[want.Cause] {
			v := without(t, n, want.Where.At(n.load(t)), s)
			if v.Cause == want.Cause && !slices.Contains(notNeeded[n.name], s) {
				t.Errorf("%s: %s is given although %s were not read", n.name, v.Cause, s)
			}
		}
		for _, s := range naming[want.Cause] {
			v := without(t, n, want.Where.At(n.load(t)), s)
			if v.Cause == want.Cause && v.Certainty == Observed {
				t.Errorf("%s: %s is observed although %s were not read", n.name, v.Cause, s)
			}
		}
	}
}

func without(t *testing.T, n namedCase, netns, section string) Verdict {
	t.Helper()
	c := n.load(t)
	if m := c.Namespace(netns); m != nil {
		sections[section](m)
	}
	return Judge(c)
}

func TestLostEvents(t *testing.T) {
	for _, n := range cases(t) {
		c := n.load(t)
		c.Lost = 1
		if v := Judge(c); v.Certainty == Observed {
			t.Errorf("%s: %s is observed although an event was lost", n.name, v.Cause)
		}
	}
}

// weaker lists what a verdict may become, and still be called observed, when a
// piece of the evidence is taken away: what remains is then true as well.
var weaker = map[string][]string{
	"pmtu-blackhole": {"mtu-exceeded"}, // all that is left of it
	// that is what the server then does; and words of libwrap itself are an answer, where it is not known that they are
	"libwrap-denied":     {"app-error", "app-silent", "closed-by-app", "reset-by-app", "reachable"},
	"bridge-isolated":    {"neighbor-unresolved"}, // nor is more of this: the question went unanswered
	"listener-elsewhere": {"no-listener"},         // of a listener in another namespace nothing is then known; the namespace it reached has none
}

// Less evidence must never give another cause with certainty.
func TestLessEvidence(t *testing.T) {
	check := func(n namedCase, what string, before, after Verdict) {
		if after.Cause == before.Cause || after.Cause == "unexplained" || after.Certainty != Observed || slices.Contains(weaker[before.Cause], after.Cause) {
			return
		}
		t.Errorf("%s: without %s it becomes %s (%s), observed", n.name, what, after.Cause, after.Summary)
	}
	for _, n := range cases(t) {
		before := Judge(n.load(t))
		for i := range n.load(t).Events {
			c := n.load(t)
			e := c.Events[i]
			c.Events = slices.Delete(c.Events, i, i+1)
			check(n, "event "+string(e.Kind)+" in "+e.Netns+" "+e.Function, before, Judge(c))
		}
		for i := range n.load(t).Namespaces {
			for s, unread := range sections {
				c := n.load(t)
				unread(&c.Namespaces[i])
				check(n, s+" of "+c.Namespaces[i].Name, before, Judge(c))
			}
		}
	}
}

func TestNoNamespaceNoCommands(t *testing.T) {
	for _, n := range cases(t) {
		v := Judge(n.load(t))
		for _, f := range v.Fixes {
			if len(f.Commands) == 0 || len(f.Undo) == 0 {
				t.Errorf("%s: a fix without commands or undo", n.name)
			}
			for _, line := range append(slices.Clone(f.Commands), f.Undo...) {
				// a file and a process id are in no network namespace
				if v.Where.File == nil && !strings.HasPrefix(line, "kill -") && !strings.HasPrefix(line, "ip netns exec "+v.Where.Netns+" ") {
					t.Errorf("%s: %q does not enter %s", n.name, line, v.Where.Netns)
				}
			}
		}
		c := n.load(t)
		c.Namespaces = nil
		if v := Judge(c); len(v.Fixes) > 0 {
			t.Errorf("%s: commands for a namespace of which nothing is known: %q", n.name, v.Fixes[0].Commands)
		}
	}
}

func FuzzJudge(f *testing.F) {
	for _, n := range cases(f) {
		var c any
		if json.Unmarshal(n.raw, &c) == nil {
			small, _ := json.Marshal(c)
			f.Add(small)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := new(evidence.Case)
		if json.Unmarshal(raw, c) != nil {
			return
		}
		v := Judge(c)
		if v.Cause == "" || v.Certainty == "" || v.Summary == "" {
			t.Errorf("an empty verdict: %+v", v)
		}
		if v.Cause == "unexplained" && v.Certainty != None || c.Lost > 0 && v.Certainty == Observed {
			t.Errorf("%s is %s with %d lost", v.Cause, v.Certainty, c.Lost)
		}
	})
}
