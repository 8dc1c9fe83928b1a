// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func seen(at int64, k Kind, direction, flags string) Event {
	return Event{At: at, Netns: "init", Kind: k, Direction: direction, SKB: "ff01", Packet: &Packet{Protocol: "tcp", Flags: flags, Seq: 7}}
}

// Two clocks are compared within half a round trip; what the packets say is certain.
func TestJoinOrders(t *testing.T) {
	here := []Event{seen(100, Transmit, Forward, "S"), seen(900, Receive, Reply, "S.")}
	there := []Event{seen(10, Receive, Forward, "S"), seen(60, Transmit, Reply, "S.")}
	for name, c := range map[string]struct {
		shift int64
		there []Event
		want  []int64 // At of the events of there
	}{
		"as measured":          {400, there, []int64{410, 460}},
		"it came before":       {-500, there, []int64{100, 150}},
		"it was answered late": {2000, there, []int64{850, 900}},
		"another answer":       {2000, []Event{there[0], seen(60, Transmit, Reply, "R.")}, []int64{2010, 2060}},
		"nothing came":         {-500, nil, nil},
		"its routes":           {-500, []Event{{At: 3, Kind: Route, Direction: Forward}}, []int64{-497}},
	} {
		t.Run(name, func(t *testing.T) {
			joined := Case{Target: Target{Protocol: "tcp"}, Events: append([]Event{}, here...)}
			joined.Join(Peer{Host: Host{Name: "web1"}}, &Case{Target: joined.Target, Events: c.there}, c.shift)
			var got []int64
			last := int64(-1 << 62)
			for _, e := range joined.Events {
				if e.At < last {
					t.Errorf("%d after %d", e.At, last)
				}
				last = e.At
				if host, _ := SplitNetns(e.Netns); host == "web1" {
					got = append(got, e.At)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Nothing of one host can be taken for something of the other, and what was given stays as it is.
func TestJoinKeepsApart(t *testing.T) {
	event := seen(1, Drop, Forward, "S")
	unplaced := Event{At: 2, Kind: ICMPSent}
	made := func() *Case {
		return &Case{
			Events: []Event{event, unplaced}, Lost: 1, Unseen: []string{"x"}, Listeners: []Process{{PID: 1}}, Logs: []LogLine{{Source: "journal"}},
			Namespaces: []Namespace{{Name: "init", Sockets: Have([]Socket{{Inode: 5, Accepted: 10}})}},
		}
	}
	c, there := made(), made()
	c.Join(Peer{Host: Host{Name: "web1"}, Reached: "ssh://web1"}, there, 5)
	if diff := cmp.Diff(made(), there); diff != "" {
		t.Errorf("what was given changed:\n%s", diff)
	}
	far, farUnplaced := event, unplaced
	far.At, far.Netns, far.SKB = 6, "web1/init", "web1/ff01"
	farUnplaced.At, farUnplaced.Netns = 7, "web1/"
	want := &Case{
		Events: []Event{event, unplaced, far, farUnplaced}, Lost: 2, Unseen: []string{"x", "web1: x"},
		Listeners: []Process{{PID: 1}, {PID: 1, Host: "web1"}}, Logs: []LogLine{{Source: "journal"}, {Source: "web1: journal"}},
		Namespaces: []Namespace{made().Namespaces[0], {Name: "web1/init", Sockets: Have([]Socket{{Inode: 5, Accepted: 15}})}},
		Peers:      []Peer{{Host: Host{Name: "web1", Missing: []string{}}, Reached: "ssh://web1"}},
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	if p := c.Peer("web1/init"); p == nil || p.Name != "web1" || c.Peer("init") != nil || c.Peer("web2/init") != nil {
		t.Errorf("peer of web1/init: %v", p)
	}
	if Unnamed("web1/init") != "web1/" || Unnamed("init") != "" {
		t.Error("the namespace that a kernel did not name")
	}
}
