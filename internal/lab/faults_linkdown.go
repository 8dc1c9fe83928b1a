// SPDX-License-Identifier: Apache-2.0

package lab

import "slices"

// linkDownFaults take devices down, or their carrier away, on either way.
func linkDownFaults() []Fault {
	keep := func(r Role, device string) func(*Lab) error { // else IPv6 addresses go with the device
		return conf(r, 6, device, "keep_addr_on_down", "1")
	}
	cut := func(near, far int) func(*Lab) error {
		return func(l *Lab) error { return l.cut(nics[near], nics[far]) }
	}
	down := func(name, summary string, want Want, setup func(f int) func(*Lab) error) []Fault {
		return broken(name, "link-down", summary, want, setup)
	}
	any := func(s func(*Lab) error) func(int) func(*Lab) error { return func(int) func(*Lab) error { return s } }
	v6 := down("link-down", "the router's device towards the server is down", Want{Direction: forward, Role: Router, Device: DMZDevice},
		any(steps(keep(Router, DMZDevice), cut(2, 3))))[1:]
	emptied := broken("link-down-emptied", "no-route", "the router's device was down, and lost its IPv6 address", Want{Direction: forward, Role: Router}, any(cut(2, 3)))[1:]
	return slices.Concat(
		mended(v6), emptied,
		down("link-carrier-router", "the cable between router and server has no carrier", Want{Direction: forward, Role: Router, Device: DMZDevice}, any(cut(3, 2))),
		down("link-carrier-client", "the client's cable has no carrier", Want{Direction: forward, Role: Client, Device: HostDevice}, any(cut(1, 0))),
		down("link-carrier-ignored", "the same, and routes over dead links are not used", Want{Direction: forward, Role: Client, Device: HostDevice}, func(f int) func(*Lab) error {
			return steps(conf(Client, f, "all", "ignore_routes_with_linkdown", "1"), conf(Client, f, HostDevice, "ignore_routes_with_linkdown", "1"), cut(1, 0))
		}),
		down("link-carrier-reply", "the server's way back leaves by a device without carrier", Want{Direction: reply, Role: Server, Device: "dead0"}, func(f int) func(*Lab) error {
			return steps(spareLink(Server), ip(Server, f, "route add %%client dev dead0"))
		}),
		down("link-carrier-reply-router", "the router's way back leaves by a device without carrier", Want{Direction: reply, Role: Router, Device: "dead0"}, func(f int) func(*Lab) error {
			return steps(spareLink(Router), ip(Router, f, "route add %%client dev dead0"))
		}),
		down("link-down-reply", "the device that has the server's way back is down", Want{Direction: reply, Role: Server, Device: "dead1"}, func(f int) func(*Lab) error {
			near := pick(f, "198.18.4.71/24", "fd5c:7e1a:4::71/64") // its network is the client's
			return steps(ip(Server, f, "route del default"), spareLink(Server), ip(Server, f, "addr add %s dev dead1%s", near, pick(f, "", " nodad")))
		}),
	)
}
