// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A chain of namespaces is found to its end; one that no cable leads to stays out.
func TestConnected(t *testing.T) {
	one, two := newPair(t)
	three, upper, alone := newLab(t), newLab(t), newLab(t)
	run(t, "ip", "-n", two.Name, "link", "add", "q0", "type", "veth", "peer", "name", "q0", "netns", three.Name)
	// a device on top of another tells where that is, not the other way round
	run(t, "ip", "-n", three.Name, "link", "add", "m0", "link", "q0", "type", "macvlan")
	run(t, "ip", "-n", three.Name, "link", "set", "m0", "netns", upper.Name)
	all := []*Netns{alone.Netns, upper.Netns, three.Netns, two.Netns, one.Netns}
	for start, want := range map[*Netns][]string{
		one.Netns:   {one.Name, two.Name, three.Name, upper.Name},
		three.Netns: {one.Name, two.Name, three.Name, upper.Name},
		upper.Netns: {one.Name, two.Name, three.Name, upper.Name},
		alone.Netns: {alone.Name},
	} {
		list, err := Connected(start, all)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range list {
			got = append(got, n.Name)
		}
		if got[0] != start.Name {
			t.Errorf("from %s: %v does not begin there", start.Name, got)
		}
		slices.Sort(got)
		slices.Sort(want)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("from %s: %s", start.Name, d)
		}
	}
}

func TestIsolatedPorts(t *testing.T) {
	l := newLab(t)
	l.sh(`ip link add br0 type bridge; ip link add p0 type veth peer name p1; ip link add q0 type veth peer name q1
ip link set p0 master br0; ip link set q0 master br0; ip link set p0 type bridge_slave isolated on`)
	links := l.Links()
	if !links.Read() {
		t.Fatal(links.Why())
	}
	for _, x := range links.Items {
		if x.Isolated != (x.Name == "p0") {
			t.Errorf("%s: isolated %v", x.Name, x.Isolated)
		}
	}
}
