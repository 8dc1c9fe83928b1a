// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
)

// bridgeDevice joins the ports of the switch.
const bridgeDevice = "br0"

// spare are the ends of a second cable between client and router.
var spare = [2]nic{
	{Client, "eth1", netip.MustParsePrefix("198.18.5.10/24"), netip.MustParsePrefix("fd5c:7e1a:5::10/64")},
	{Router, "lan1", netip.MustParsePrefix("198.18.5.254/24"), netip.MustParsePrefix("fd5c:7e1a:5::1/64")},
}

// annex is the network of a bystander that the router has a cable to.
var annex = [2]nic{
	{Bystander, HostDevice, netip.MustParsePrefix("198.18.7.30/24"), netip.MustParsePrefix("fd5c:7e1a:7::30/64")},
	{Router, "annex0", netip.MustParsePrefix("198.18.7.254/24"), netip.MustParsePrefix("fd5c:7e1a:7::1/64")},
}

// secondCable joins client and router once more.
func secondCable(l *Lab) error { return l.cable(spare[0], spare[1]) }

// addBystander adds a host in a network of its own behind the router.
func addBystander(l *Lab) error {
	if err := l.addNamespace(Bystander); err != nil {
		return err
	}
	if err := l.cable(annex[0], annex[1]); err != nil {
		return err
	}
	return l.defaultRoutes(Bystander, annex[1])
}

// addSwitch cuts the cable between router and server and puts a bridge in; it
// returns when both of its ports forward frames.
func addSwitch(l *Lab) error {
	if err := l.addNamespace(Switch); err != nil {
		return err
	}
	// The router's end must not go: that would take its routes along.
	if err := l.IP(Server, 4, fmt.Sprintf("link set %s netns %s name %s", HostDevice, l.Netns(Switch), UpDevice)); err != nil {
		return err
	}
	for _, command := range []string{
		"link add " + bridgeDevice + " type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
		"link set " + bridgeDevice + " up",
		"link set " + UpDevice + " master " + bridgeDevice + " up",
	} {
		if err := l.IP(Switch, 4, command); err != nil {
			return err
		}
	}
	if err := l.addPort(nics[3], DownDevice); err != nil {
		return err
	}
	if err := l.defaultRoutes(Server, nics[2]); err != nil {
		return err
	}
	return l.awaitPort(UpDevice)
}

// addPort cables a host to a port of the switch.
func (l *Lab) addPort(host nic, port string) error {
	if err := l.cable(host, nic{role: Switch, device: port}); err != nil {
		return err
	}
	if err := l.IP(Switch, 4, "link set "+port+" master "+bridgeDevice); err != nil {
		return err
	}
	return l.awaitPort(port)
}

// awaitPort returns when the bridge forwards frames of a port: the news of a
// carrier, which may come late, sets that state once more.
func (l *Lab) awaitPort(port string) error {
	events, err := l.watch(Switch)
	if err != nil {
		return err
	}
	defer events.Close()
	return await(events, func() (bool, error) {
		link, err := l.links[Switch].LinkByName(port)
		if err != nil {
			return false, fmt.Errorf("look at port %s: %w", port, err)
		}
		if link.Attrs().OperState != netlink.OperUp {
			return false, nil
		}
		out, err := l.Output(Switch, "bridge", "link", "show", "dev", port)
		return strings.Contains(out, "state forwarding"), err
	})
}
