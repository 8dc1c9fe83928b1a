// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
)

// maxHops is the most routers that a line may have.
const maxHops = 9

// Hop is the n-th router of a line, counted from 1.
func Hop(n int) Role { return Role(fmt.Sprintf("hop%d", n)) }

func lineRoles() []Role {
	out := make([]Role, 0, maxHops)
	for n := range maxHops {
		out = append(out, Hop(n+1))
	}
	return out
}

// lineNIC is one end of the n-th cable of a line, counted from 0 at the client.
func lineNIC(r Role, device string, n int, far bool) nic {
	host := byte(1)
	if far {
		host = 2
	}
	v6 := [16]byte{0xfd, 0x5c, 0x7e, 0x1a, 0, byte(0x10 + n), 15: host}
	return nic{r, device, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 19, byte(n), host}), 24), netip.PrefixFrom(netip.AddrFrom16(v6), 64)}
}

// LineAddr is the address of the end of the n-th cable of a line, counted from 0
// at the client, that is nearer to the client or farther from it.
func LineAddr(n, family int, far bool) netip.Addr {
	return lineNIC("", "", n, far).prefix(family).Addr()
}

// NewLine builds a client, n routers in a row and a server. The devices of a
// router are called in0, towards the client, and out0; the others have eth0.
func NewLine(prefix string, n int) (*Lab, error) {
	if n < 1 || n > maxHops {
		return nil, fmt.Errorf("a line of %d routers: want 1 to %d", n, maxHops)
	}
	l, err := blank(prefix)
	if err != nil {
		return nil, err
	}
	if err := l.buildLine(n); err != nil {
		l.Close()
		return nil, fmt.Errorf("build lab %s: %w", prefix, err)
	}
	return l, nil
}

func (l *Lab) buildLine(n int) error {
	var err error
	if l.record, err = openRecord(l.prefix); err != nil {
		return err
	}
	row := []Role{Client}
	for i := range n {
		row = append(row, Hop(i+1))
	}
	row = append(row, Server)
	for i, r := range row {
		if err := l.addNamespace(r); err != nil {
			return err
		}
		if i == 0 {
			continue
		}
		near, far := lineNIC(row[i-1], "out0", i-1, false), lineNIC(r, "in0", i-1, true)
		if i == 1 {
			near.device = HostDevice
		}
		if i == n+1 {
			far.device = HostDevice
		}
		if err := l.cable(near, far); err != nil {
			return err
		}
	}
	for i, r := range row {
		for _, family := range []int{4, 6} {
			if err := l.lineRoutes(r, i, n, family); err != nil {
				return err
			}
		}
	}
	return nil
}

// lineRoutes makes the i-th host of a line forward, and gives it its way to the server's end and back.
func (l *Lab) lineRoutes(r Role, i, n, family int) error {
	if i > n {
		return l.IP(r, family, fmt.Sprintf("route add default via %s", LineAddr(n, family, false)))
	}
	if err := l.IP(r, family, fmt.Sprintf("route add default via %s", LineAddr(i, family, true))); err != nil || i == 0 {
		return err
	}
	forwarding := map[int]string{4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
	if err := l.Sysctl(r, forwarding[family], "1"); err != nil {
		return err
	}
	for back := range i - 1 {
		net := lineNIC("", "", back, true).prefix(family).Masked()
		if err := l.IP(r, family, fmt.Sprintf("route add %s via %s", net, LineAddr(i-1, family, false))); err != nil {
			return err
		}
	}
	return nil
}
