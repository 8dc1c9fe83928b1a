// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Connected returns those of all namespaces that devices join to start, over
// any number of them, start included: a packet leaves a namespace only by a
// device whose other end (of a veth pair), lower device (of a macvlan or VLAN)
// or tunnel lies in another (IFLA_LINK_NETNSID). Only the upper device tells of
// the lower one, so that each namespace is asked. all must hold start.
//
// When a namespace's devices cannot be read every namespace may be behind
// them: then all are returned, with the reason.
func Connected(start *Netns, all []*Netns) ([]*Netns, error) {
	joined := map[uint64][]*Netns{} // by inode
	candidates := slices.Clone(all)
	for _, n := range all {
		others, err := n.beyond(candidates)
		if err != nil {
			return all, fmt.Errorf("what the devices of %s lead to: %w", n.Name, err)
		}
		for _, other := range others {
			joined[n.Inode] = append(joined[n.Inode], other)
			joined[other.Inode] = append(joined[other.Inode], n)
			// the devices of containers mostly lead to one and the same: it is asked about first
			at := slices.Index(candidates, other)
			copy(candidates[1:at+1], candidates[:at])
			candidates[0] = other
		}
	}
	list, seen := []*Netns{start}, map[uint64]bool{start.Inode: true}
	for i := 0; i < len(list); i++ {
		for _, n := range joined[list[i].Inode] {
			if !seen[n.Inode] {
				seen[n.Inode] = true
				list = append(list, n)
			}
		}
	}
	return list, nil
}

// beyond returns the namespaces that the devices of n name as those of their other ends.
func (n *Netns) beyond(all []*Netns) (found []*Netns, err error) {
	err = n.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE) // one socket for all the questions
		if err != nil {
			return err
		}
		defer h.Close()
		links, err := retry(h.LinkList)
		if err != nil {
			return err
		}
		ids := map[int]bool{}
		for _, l := range links {
			if id := l.Attrs().NetNsID; id >= 0 {
				ids[id] = true
			}
		}
		for _, other := range all {
			if len(ids) == 0 {
				return nil
			}
			id, err := h.GetNetNsIdByFd(int(other.handle))
			if err != nil {
				return err
			}
			if ids[id] {
				delete(ids, id)
				found = append(found, other)
			}
		}
		return nil
	})
	return found, err
}
