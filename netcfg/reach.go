// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// Connected returns those of all namespaces that devices lead to from start,
// over any number of them, start included: a packet leaves a namespace only by
// a device whose other end (of a veth pair), lower device (of a macvlan or
// VLAN) or tunnel lies in another (IFLA_LINK_NETNSID). all must hold start.
//
// When a namespace's devices cannot be read every namespace may be behind
// them: then all are returned, with the reason.
func Connected(start *Netns, all []*Netns) ([]*Netns, error) {
	list, seen := []*Netns{start}, map[uint64]bool{start.Inode: true}
	for i := 0; i < len(list); i++ {
		next, err := list[i].beyond(all, seen)
		if err != nil {
			return all, fmt.Errorf("what the devices of %s lead to: %w", list[i].Name, err)
		}
		list = append(list, next...)
	}
	return list, nil
}

// beyond returns the namespaces one device away from n that were not seen, and marks them.
func (n *Netns) beyond(all []*Netns, seen map[uint64]bool) (found []*Netns, err error) {
	err = n.Do(func() error {
		links, err := retry(netlink.LinkList)
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
			id, err := netlink.GetNetNsIdByFd(int(other.handle))
			if err != nil {
				return err
			}
			if !ids[id] {
				continue
			}
			delete(ids, id)
			if !seen[other.Inode] {
				seen[other.Inode] = true
				found = append(found, other)
			}
		}
		return nil
	})
	return found, err
}
