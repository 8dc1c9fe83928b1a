// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/pathtrace/pathtrace/evidence"
)

var ipCauses = []Cause{
	{
		ID: "rp-filter", Means: "reverse-path filter: the way back to the sender is not by the device that the packet came in on",
		Needs:   "drop IP_RPFILTER; sysctls net.ipv4.conf.all.rp_filter and of the device; lookups of the source (proof only)",
		Reasons: []string{"IP_RPFILTER"}, Find: findRPFilter,
	},
	{
		ID: "not-our-address", Means: "the host it reached has not got that address",
		Needs:   "drop IP_INADDRERRORS in ip_error or ip6_forward; the forwarding sysctls; the route event of the destination: it leaves by the device it came in on, or none exists; addresses",
		Reasons: []string{"IP_INADDRERRORS"},
		Find: func(c *evidence.Case, e *evidence.Event) *Verdict {
			return notForwarded(c, e, "not-our-address")
		},
	},
	{
		ID: "forwarding-disabled", Means: "this host passes nothing on: ip_forward / forwarding is off",
		Needs:   "drop IP_INADDRERRORS in ip_error or ip6_forward; the forwarding sysctls; the route event of the destination: it leaves by another device",
		Reasons: []string{"IP_INADDRERRORS"},
		Find: func(c *evidence.Case, e *evidence.Event) *Verdict {
			return notForwarded(c, e, "forwarding-disabled")
		},
	},
	{
		ID: "martian-source", Means: "a source address that may not appear there",
		Needs:   "drop IP_LOCAL_SOURCE or IP_INVALID_SOURCE, or IP_LOCALNET with a loopback source; connect() from a loopback address gives EINVAL though there is a route; IPv6: IP_INHDR in ip6_rcv_core with a loopback or multicast source",
		Reasons: []string{"IP_LOCAL_SOURCE", "IP_INVALID_SOURCE", "IP_LOCALNET", "IP_INHDR"}, Find: findMartianSource,
	},
	{
		ID: "martian-destination", Means: "a destination that may not appear there (route_localnet included)",
		Needs:   "drop IP_INVALID_DEST, or IP_LOCALNET with a loopback destination; a TCP connect() gives ENETUNREACH and the route is of type broadcast or multicast; IPv6: IP_INHDR in ip6_rcv_core with a loopback destination",
		Reasons: []string{"IP_INVALID_DEST", "IP_LOCALNET", "IP_INHDR"}, Find: findMartianDestination,
	},
	{
		ID: "ttl-expired", Means: "TTL or hop limit ran out",
		Needs: "drop IP_INHDR in ip_forward or ip6_forward, with a TTL of 1 or ICMP 11/0", Reasons: []string{"IP_INHDR"}, Find: findTTL,
	},
	{
		ID: "pmtu-blackhole", Means: "too big, and the ICMP that would say so is lost",
		Needs: "what mtu-exceeded needs; drop of the ICMP 3/4 (IPv6: 2/0) about our packet, which alone proves it where no kernel that we watch made that; beyond this host: what was sent is lost, and of packets of that size that may not be fragmented none comes farther than one hop, while the small ones do", Reasons: []string{"PKT_TOO_BIG"}, Find: findPMTUBlackhole,
	},
	{
		ID: "mtu-exceeded", Means: "too big for the next device, and it may not be fragmented",
		Needs: "drop PKT_TOO_BIG; the route event of the destination (device); links (its MTU)", Reasons: []string{"PKT_TOO_BIG", "NOT_SPECIFIED"}, Find: findMTU,
	},
	{
		ID: "bad-checksum", Means: "its checksum was wrong (IP, TCP, UDP or ICMP)",
		Needs: "drop with a checksum reason", Reasons: []string{"IP_CSUM", "TCP_CSUM", "UDP_CSUM", "ICMP_CSUM"}, Find: findChecksum,
	},
	{
		ID: "xfrm-policy", Means: "an IPsec policy blocks it",
		Needs:   "drop XFRM_POLICY; or counters XfrmInPolBlock with a drop NOT_SPECIFIED in ip6_forward, XfrmOutPolBlock with connect()'s or send()'s EPERM after a route was found, or with a SYN consumed without SYN-ACK",
		Reasons: []string{"XFRM_POLICY", "NOT_SPECIFIED"}, Find: findXFRM,
	},
	{
		ID: "ipv6-disabled", Means: "IPv6 is switched off on the way (disable_ipv6)",
		Needs: "drop IPV6DISABLED, or connect()'s errno without a route; sysctls disable_ipv6 of the device and of all", Reasons: []string{"IPV6DISABLED"}, Find: findIPv6Disabled,
	},
}

func findRPFilter(c *evidence.Case, e *evidence.Event) *Verdict {
	if !isDrop(e, "IP_RPFILTER") || e.Device == "" {
		return nil
	}
	n := space(c, e)
	if n == nil || !n.Sysctls.Read() {
		return nil
	}
	own, all := conf("ipv4", e.Device, "rp_filter"), conf("ipv4", "all", "rp_filter")
	x, ok := sysctl(n, own)
	y, ok2 := sysctl(n, all)
	dev, err := strconv.Atoi(x)
	every, err2 := strconv.Atoi(y)
	if !ok || !ok2 || err != nil || err2 != nil || max(dev, every) == 0 {
		return nil
	}
	v := start(c, e, Observed)
	v.Where.Sysctl = &evidence.Sysctl{Name: own, Value: x}
	if every > dev {
		v.Where.Sysctl = &evidence.Sysctl{Name: all, Value: y}
	}
	s := v.Where.Sysctl
	v.Proof = append(v.Proof, fmt.Sprintf("%s is %s, %s is %s: the greater is in force", own, x, all, y))
	v.Summary = fmt.Sprintf("%s: reverse-path filter of %s in %s (%s = %s)", target(c), e.Device, name(e.Netns), s.Name, s.Value)
	fix := "accept on " + e.Device + " what any device could answer (loose mode)"
	if src, _, fine := source(c, e); fine {
		if l := lookup(n, src, ""); l != nil && l.OIF != "" {
			v.Proof = append(v.Proof, fmt.Sprintf("the route back to %s leaves by %s, the packet came in on %s", src, l.OIF, e.Device))
			if l.OIF != e.Device {
				fix += "; replies still leave by " + l.OIF
			}
		}
	}
	if max(dev, every) == 1 {
		v.Fixes = setSysctl(n, fix, "2", own)
	}
	return v
}

func findTTL(c *evidence.Case, e *evidence.Event) *Verdict {
	if !isDrop(e, "IP_INHDR") || !at(e, "ip_forward", "ip6_forward") || !placed(e) {
		return nil
	}
	a := icmpFrom(c, e, "ip_forward")
	expired := a != nil && a.ICMP.Type == 11 && a.ICMP.Code == 0
	if !expired && (e.Packet == nil || e.Packet.TTL > 1) {
		return nil
	}
	v := start(c, e, Observed)
	if e.Packet != nil {
		v.Proof = append(v.Proof, fmt.Sprintf("its TTL was %d", e.Packet.TTL))
	}
	if expired {
		v.Proof = append(v.Proof, "the kernel answered with ICMP 11/0 "+since(c, a))
	}
	v.Summary = fmt.Sprintf("%s: the TTL ran out in %s", target(c), name(e.Netns))
	return v
}

func findChecksum(c *evidence.Case, e *evidence.Event) *Verdict {
	if !isDrop(e, "IP_CSUM", "TCP_CSUM", "UDP_CSUM", "ICMP_CSUM") || !placed(e) || e.Device == "" {
		return nil
	}
	v := start(c, e, Observed)
	v.Summary = fmt.Sprintf("%s: wrong checksum (%s) on %s of %s", target(c), e.Reason, e.Device, name(e.Netns))
	return v
}

func findIPv6Disabled(c *evidence.Case, e *evidence.Event) *Verdict {
	if e != nil {
		n := space(c, e)
		if !isDrop(e, "IPV6DISABLED") || n == nil || !n.Sysctls.Read() || e.Device == "" {
			return nil
		}
		return ipv6Off(c, start(c, e, Observed), n, conf("ipv6", e.Device, "disable_ipv6"))
	}
	n := c.Namespace(c.Probe.Netns)
	a, ok := parseAddr(c.Target.Address)
	if n == nil || !ok || !a.Is6() || success(c) || sentAny(c) || !n.Sysctls.Read() {
		return nil
	}
	if c.Probe.Errno != "ENETUNREACH" && c.Probe.Errno != "EADDRNOTAVAIL" && c.Probe.Errno != "EHOSTUNREACH" && c.Probe.Errno != "EACCES" {
		return nil
	}
	s := sixOff(n, a)
	if s == nil {
		return nil
	}
	v := &Verdict{Certainty: Inferred, Direction: evidence.Forward, Where: Where{Netns: n.Name, Device: c.Probe.Device}}
	v.Proof = append(v.Proof, fmt.Sprintf("%s gave %s, and no packet was made", c.Probe.Syscall, c.Probe.Errno))
	return ipv6Off(c, v, n, s.Name)
}

// sixOff is the setting that leaves n without IPv6 where a is an IPv6 address:
// that for all, or that of the first device when no device has it.
func sixOff(n *evidence.Namespace, a netip.Addr) *evidence.Sysctl {
	const all = "net.ipv6.conf.all.disable_ipv6"
	if !a.Is6() || a.IsLoopback() || !n.Sysctls.Read() {
		return nil
	}
	if x, ok := sysctl(n, all); ok && x != "0" {
		return &evidence.Sysctl{Name: all, Value: x}
	}
	if !n.Links.Read() {
		return nil
	}
	var first *evidence.Sysctl
	for _, l := range n.Links.Items {
		if l.Name == "lo" || !l.Up {
			continue
		}
		key := conf("ipv6", l.Name, "disable_ipv6")
		x, ok := sysctl(n, key)
		if !ok || x == "0" {
			return nil
		}
		if first == nil {
			first = &evidence.Sysctl{Name: key, Value: x}
		}
	}
	return first
}

func ipv6Off(c *evidence.Case, v *Verdict, n *evidence.Namespace, key string) *Verdict {
	x, ok := sysctl(n, key)
	if !ok || x == "0" {
		return nil
	}
	v.Where.Sysctl = &evidence.Sysctl{Name: key, Value: x}
	v.Proof = append(v.Proof, key+" is "+x)
	v.Summary = fmt.Sprintf("%s: IPv6 is switched off in %s (%s = %s)", target(c), name(n.Name), key, x)
	return v
}
