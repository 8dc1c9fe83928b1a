// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"

	"github.com/pathtrace/pathtrace/evidence"
)

func eventSource(e *evidence.Event) (a netip.Addr, port int, ok bool) {
	if e == nil || e.Packet == nil {
		return netip.Addr{}, 0, false
	}
	a, ok = parseAddr(e.Packet.Source)
	return a, e.Packet.SPort, ok
}

// notForwarded is a packet for another host, on a host that does not forward.
// It is forwarding-disabled when this host knows a way on, else the packet should not have come here.
func notForwarded(c *evidence.Case, e *evidence.Event, id string) *Verdict {
	if !isDrop(e, "IP_INADDRERRORS") || !at(e, "ip_error", "ip6_forward") || e.Device == "" {
		return nil
	}
	n := space(c, e)
	dest, _, ok := destination(c, e)
	if n == nil || !ok || !n.Sysctls.Read() {
		return nil
	}
	s := forwardingOff(n, e.Device, dest.Is6())
	if s == nil {
		return nil
	}
	asked := routesAsked(c, e, dest)
	device, _ := routedTo(c, e, dest)
	v := start(c, e, Observed)
	if device == "" && len(asked) == 0 {
		l := lookup(n, dest, "")
		if l == nil || l.IIF != "" || l.Errno == "" && l.OIF == "" {
			return nil
		}
		device = l.OIF
		v.Certainty = Inferred
		v.Proof = append(v.Proof, fmt.Sprintf("asked for the route to %s, the kernel answers %q", dest, l.OIF+l.Errno))
	}
	v.Proof = append(v.Proof, s.Name+" is "+s.Value)
	if device == "" || device == e.Device {
		if id != "not-our-address" {
			return nil
		}
		return strayed(c, e, n, v, dest, device)
	}
	if id != "forwarding-disabled" {
		return nil
	}
	v.Where.Sysctl = s
	v.Proof = append(v.Proof, fmt.Sprintf("the route to %s leaves by %s, the packet came in on %s", dest, device, e.Device))
	v.Summary = fmt.Sprintf("%s: %s does not forward (%s = %s)", target(c), name(e.Netns), s.Name, s.Value)
	v.Fixes = forwardAgain(n, e.Device, device, dest.Is6())
	return v
}

func strayed(c *evidence.Case, e *evidence.Event, n *evidence.Namespace, v *Verdict, dest netip.Addr, device string) *Verdict {
	here, known := localAddress(n, dest)
	if here {
		return nil
	}
	if !known {
		v.Certainty = Inferred
		unread(v, n, "addresses", false, n.Addresses.Why())
	} else {
		v.Proof = append(v.Proof, fmt.Sprintf("no device of %s has the address %s", name(e.Netns), dest))
	}
	way := "there is no route to it either"
	if device != "" {
		way = "it would leave by " + device + ", where it came in"
	}
	v.Proof = append(v.Proof, way)
	v.Summary = fmt.Sprintf("%s: it reached %s, which has not got the address %s", target(c), name(e.Netns), dest)
	return v
}

// forwardingOff is the setting that keeps packets from device from being
// forwarded; nil when forwarding is on or the setting was not read. IPv4 asks
// the arriving device, IPv6 the setting for all.
func forwardingOff(n *evidence.Namespace, device string, six bool) *evidence.Sysctl {
	keys := []string{conf("ipv4", device, "forwarding"), "net.ipv4.ip_forward"}
	if six {
		keys = []string{"net.ipv6.conf.all.forwarding"}
		if x, ok := sysctl(n, conf("ipv6", device, "force_forwarding")); ok && x != "0" {
			return nil
		}
	}
	for _, key := range keys {
		if x, ok := sysctl(n, key); ok {
			if x != "0" {
				return nil
			}
			return &evidence.Sysctl{Name: key, Value: x}
		}
	}
	return nil
}

// forwardAgain switches forwarding on for the two devices of this path, for
// requests and replies. ip_forward is not written: that changes every device.
func forwardAgain(n *evidence.Namespace, in, out string, six bool) []Fix {
	summary := fmt.Sprintf("forward what arrives on %s and %s", in, out)
	if !six {
		return setSysctl(n, summary, "1", conf("ipv4", in, "forwarding"), conf("ipv4", out, "forwarding"))
	}
	// force_forwarding came with Linux 6.17; before, only the switch for all devices counts.
	if f := setSysctl(n, summary, "1", conf("ipv6", in, "force_forwarding"), conf("ipv6", out, "force_forwarding")); f != nil {
		return f
	}
	if !n.Links.Read() || !n.Routes.Read() {
		return nil
	}
	devices := []string{"default"}
	for _, l := range n.Links.Items {
		devices = append(devices, l.Name)
	}
	for _, d := range devices { // the switch writes all of these, and its undo would write them 0
		if x, ok := sysctl(n, conf("ipv6", d, "forwarding")); !ok || x != "0" {
			return nil
		}
	}
	for _, r := range n.Routes.Items {
		if r.Protocol == "ra" { // forwarding removes these, and they do not come back
			return nil
		}
	}
	return setSysctl(n, "forward IPv6 on all devices", "1", "net.ipv6.conf.all.forwarding")
}
