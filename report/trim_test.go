// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// bloat makes a case as large as busy hosts make them: packets by the thousand,
// full routing tables, sockets, flows, and namespaces that have nothing to do with it.
func bloat(c evidence.Case, packets int) evidence.Case {
	c.Namespaces = slices.Clone(c.Namespaces)
	for i := range c.Namespaces {
		n := &c.Namespaces[i]
		if n.Routes.Read() {
			n.Routes.Items = slices.Clone(n.Routes.Items)
			for j := range 2000 {
				dest := fmt.Sprintf("198.%d.%d.0/24", 51+j>>8, j&255)
				n.Routes.Items = append(n.Routes.Items, evidence.RouteItem{Family: 4, Type: "unicast", Dest: dest, Gateway: "203.0.113.1", Device: "wan0", Table: "main", Text: dest + " via 203.0.113.1 dev wan0"})
			}
		}
		if n.Sockets.Read() {
			n.Sockets.Items = slices.Clone(n.Sockets.Items)
			for j := range 2000 {
				n.Sockets.Items = append(n.Sockets.Items, evidence.Socket{Protocol: "tcp", Family: 4, State: "LISTEN", Local: fmt.Sprintf("203.0.113.9:%d", 20_000+j)})
			}
		}
	}
	for i := range 10 {
		n := evidence.Namespace{Name: fmt.Sprintf("other%d", i), Neighbors: evidence.Have([]evidence.Neighbor{})}
		for j := range 6000 {
			n.Neighbors.Items = append(n.Neighbors.Items, evidence.Neighbor{Address: fmt.Sprintf("203.0.113.%d", j&255), Device: "eth0", State: "STALE"})
		}
		c.Namespaces = append(c.Namespaces, n)
	}
	c.Events = slices.Clone(c.Events)
	var end int64
	if n := len(c.Events); n > 0 {
		end = c.Events[n-1].At
	}
	for i := range packets {
		c.Events = append(c.Events, evidence.Event{At: end, Kind: evidence.Receive, Direction: evidence.Reply, Netns: "other0", Device: "eth0", SKB: fmt.Sprintf("%016x", i)})
	}
	return c
}

func judged(c evidence.Case) verdict.Verdict { return verdict.Judge(&c) }

// TestTrim: a case that is too large is judged the same when it was made to fit, and says what is missing.
func TestTrim(t *testing.T) {
	all := recorded(t)
	for _, name := range []string{"accept-queue-full", "firewall-drop", "libwrap-denied", "neighbor-unresolved", "no-listener", "remote-silent", "route-blackhole", "rp-filter", "unexplained-two-rules"} {
		t.Run(name, func(t *testing.T) { trims(t, all[name], 0) })
	}
	t.Run("packets", func(t *testing.T) { trims(t, all["no-route"], 11_000) })
}

func trims(t *testing.T, whole evidence.Case, packets int) {
	c := bloat(whole, packets)
	v := judged(c)
	small, gone := Trim(c, v, 1, verdict.Judge)
	if len(gone) == 0 {
		t.Errorf("nothing went of %d events and %d namespaces", len(c.Events), len(c.Namespaces))
	}
	saved, err := read(write(t, Bundle{Document: NewDocument(small, v), LeftOut: gone}))
	if err != nil {
		t.Fatal(err)
	}
	if d := saved.Document(verdict.Judge, evidence.Tool{}); d.Recorded != nil {
		t.Errorf("judged as %s %s, was %s %s; gone: %s", d.Verdict.Cause, d.Verdict.Certainty, v.Cause, v.Certainty, gone)
	}
	if n := len(saved.Unseen); n == 0 || !strings.HasPrefix(saved.Unseen[n-1], "left out, because the bundle would be too large: ") {
		t.Errorf("it does not say what is missing: %q", saved.Unseen)
	}
	for _, n := range saved.Namespaces {
		if n.Routes.Read() && len(n.Routes.Items) < len(c.Namespace(n.Name).Routes.Items) {
			t.Errorf("%s: routes are missing, and count as read", n.Name)
		}
	}
}

// TestTrimLeavesWhatFits: a case of the usual size stays as it is.
func TestTrimLeavesWhatFits(t *testing.T) {
	for name, c := range recorded(t) {
		small, gone := Trim(c, verdict.Judge(&c), 3, func(*evidence.Case) verdict.Verdict { t.Error("judged"); return verdict.Verdict{} })
		if d := cmp.Diff(c, small); d != "" || gone != nil {
			t.Errorf("%s: %v\n%s", name, gone, d)
		}
	}
}

// TestTrimAtLast: where nothing can go without changing the verdict the case is
// trimmed all the same, and the bundle says that it was judged otherwise.
func TestTrimAtLast(t *testing.T) {
	c := bloat(recorded(t)["no-listener"], 0)
	v := verdict.Judge(&c)
	fussy := func(x *evidence.Case) verdict.Verdict {
		for i := range c.Namespaces {
			for j, s := range sections(&c.Namespaces[i]) {
				if sections(&x.Namespaces[i])[j].size < s.size {
					return verdict.Verdict{Cause: "unexplained"}
				}
			}
		}
		return v
	}
	small, gone := Trim(c, v, 1, fussy)
	if !fits(&small, 1) || len(gone) == 0 {
		t.Fatalf("it does not fit: %v", gone)
	}
	saved, err := read(write(t, Bundle{Document: NewDocument(small, v)}))
	if err != nil {
		t.Fatal(err)
	}
	if d := saved.Document(fussy, evidence.Tool{}); d.Recorded == nil || d.Recorded.Cause != v.Cause {
		t.Errorf("%+v", d.Recorded)
	}
}

// TestBundleLeavesToolsOut: what tools printed goes, the largest first, until the archive has its size.
func TestBundleLeavesToolsOut(t *testing.T) {
	s := stories["nft-drop"]()
	b := Bundle{Document: NewDocument(s.c, s.v), Config: []File{{"init/small.txt", []byte("x")}}}
	random := rand.NewChaCha8([32]byte{})
	for i := range 3 {
		noise := make([]byte, 14<<20)
		random.Read(noise)
		b.Config = append(b.Config, File{fmt.Sprintf("init/noise%d.txt", i), noise})
	}
	data := write(t, b)
	if len(data) > MaxBundle || len(data) < 20<<20 {
		t.Errorf("%d bytes", len(data))
	}
	if _, err := read(data); err != nil {
		t.Error(err)
	}
	m, names := manifestOf(t, data)
	if !slices.Contains(names, "config/init/small.txt") || len(m.Unread) != 1 {
		t.Errorf("%v, left out: %v", names, m.Unread)
	}
}
