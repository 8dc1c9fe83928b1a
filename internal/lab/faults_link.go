// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"slices"
)

// linkFaults are those below and beside routing: neighbours, devices, forwarding, TTL.
func linkFaults() []Fault {
	return slices.Concat(forwardingFaults(), neighbourFaults(), []Fault{
		{Name: "link-down", Cause: "link-down", Family: 4, Summary: "the router's device towards the server is down",
			Setup: steps(serve(4), func(l *Lab) error { return l.cut(nics[2], nics[3]) }),
			Want:  Want{Direction: forward, Role: Router, Device: DMZDevice}, Fix: true},
		{Name: "link-down-client", Cause: "link-down", Family: 4, Summary: "the client's only device is down",
			Setup: steps(func(l *Lab) error {
				return l.Serve(Router, Listen{Addr: netip.AddrPortFrom(addr(Router, 4), Port)})
			}, func(l *Lab) error { return l.cut(nics[0], nics[1]) }),
			Target: func(l *Lab) string { return at(l.Addr(Router, 4)) },
			Want:   Want{Direction: forward, Role: Client, Device: HostDevice}, Fix: true},
	}, both(func(f int) Fault {
		return Fault{Name: "ttl-expired", Cause: "ttl-expired", Summary: "the client's packets may make one hop only",
			Setup: steps(serve(f), ip(Client, f, "route replace default via %s dev eth0 hoplimit 1", nics[1].prefix(f).Addr())),
			Want:  Want{Direction: forward, Role: Router}}
	}))
}

func forwardingFaults() []Fault {
	off := func(family int, name, s string) Fault {
		return Fault{Name: name, Cause: "forwarding-disabled", Family: family, Summary: "the router does not forward",
			Setup: steps(serve(family), sysctl(Router, s, "0")),
			Want:  Want{Direction: forward, Role: Router}, Fix: true}
	}
	device := off(4, "forwarding-off-device", "net.ipv4.conf.lan0.forwarding")
	device.Summary = "the router does not forward what arrives from the client"
	device.Want.Sysctl = [2]string{"net.ipv4.conf.lan0.forwarding", "0"}
	v6 := off(6, "forwarding-off-v6", "net.ipv6.conf.all.forwarding")
	v6.Want.Sysctl = [2]string{"net.ipv6.conf.all.forwarding", "0"}
	return []Fault{off(4, "forwarding-off", "net.ipv4.ip_forward"), device, v6}
}

// neighbourFaults ask for an address that nobody answers for, a fifth of a second each time.
func neighbourFaults() []Fault {
	fault := func(name string, r Role, device, v4, v6 string) []Fault {
		return both(func(f int) Fault {
			absent := netip.MustParseAddr(pick(f, v4, v6))
			return Fault{Name: name, Cause: "neighbor-unresolved", Summary: fmt.Sprintf("nobody answers the %s for the next hop", r),
				Setup:  sysctl(r, pick(f, "net.ipv4.neigh.", "net.ipv6.neigh.")+device+".retrans_time_ms", "200"),
				Target: fixed(netip.AddrPortFrom(absent, Port).String()),
				Args:   []string{"-w", "6s"},
				Want:   Want{Direction: forward, Role: r, Device: device, Neighbor: absent.String()}}
		})
	}
	return slices.Concat(
		fault("neighbor-router", Router, DMZDevice, "198.18.9.222", "fd5c:7e1a:9::222"),
		fault("neighbor-client", Client, HostDevice, "198.18.4.222", "fd5c:7e1a:4::222"),
	)
}
