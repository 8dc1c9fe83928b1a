// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"slices"

	"github.com/pathtrace/pathtrace/evidence"
)

// raise sets a device up.
func raise(n *evidence.Namespace, l *evidence.Link) []Fix {
	return []Fix{{
		Netns:    n.Name,
		Summary:  "set " + l.Name + " up",
		Commands: []string{shell(n, "ip", "link", "set", "dev", l.Name, "up")},
		Undo:     []string{shell(n, "ip", "link", "set", "dev", l.Name, "down")},
	}}
}

// setPort changes an option of a bridge port.
func setPort(n *evidence.Namespace, l *evidence.Link, option, value, old string) []Fix {
	return []Fix{{
		Netns:    n.Name,
		Summary:  fmt.Sprintf("set %s of bridge port %s to %s", option, l.Name, value),
		Commands: []string{shell(n, "bridge", "link", "set", "dev", l.Name, option, value)},
		Undo:     []string{shell(n, "bridge", "link", "set", "dev", l.Name, option, old)},
	}}
}

// forwardPort has a bridge port forward frames. Nil where a spanning tree decides that, or where it is not known.
func forwardPort(n *evidence.Namespace, l *evidence.Link) []Fix {
	bridge := link(n, l.Master)
	if bridge == nil || bridge.STP == nil || *bridge.STP || l.PortState == "" || l.PortState == "forwarding" {
		return nil
	}
	return setPort(n, l, "state", "forwarding", l.PortState)
}

// forgetNeighbor removes a static entry, so that the link address is asked for, and puts it back exactly.
func forgetNeighbor(n *evidence.Namespace, nb *evidence.Neighbor) []Fix {
	a, ok := parseAddr(nb.Address)
	if !ok || nb.State != "PERMANENT" || nb.MAC == "" {
		return nil
	}
	family := 4
	if a.Is6() {
		family = 6
	}
	spec := []string{nb.Address, "dev", nb.Device}
	return []Fix{{
		Netns:    n.Name,
		Summary:  fmt.Sprintf("delete the static neighbour entry for %s on %s of %s", nb.Address, nb.Device, name(n.Name)),
		Commands: []string{shell(n, slices.Concat(ipTool(family), []string{"neigh", "del"}, spec)...)},
		Undo:     []string{shell(n, slices.Concat(ipTool(family), []string{"neigh", "replace"}, spec, []string{"lladdr", nb.MAC, "nud", "permanent"})...)},
	}}
}
