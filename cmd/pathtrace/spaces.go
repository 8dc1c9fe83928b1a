// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/pathtrace/pathtrace/netcfg"
)

// maxCounted bounds the namespaces whose counters are read before the probe.
const maxCounted = 64

// spaces are the network namespaces that are watched.
type spaces struct {
	start     *netcfg.Netns   // where the probe starts
	connected []*netcfg.Netns // those that devices lead to from there: only they are armed
	unseen    []string
	byInode   map[uint32]*netcfg.Netns
	byName    map[string]*netcfg.Netns
	counters  map[string]map[string]uint64 // before the probe, by namespace
	nft       map[string]uint32            // generation of the ruleset once armed, by namespace
	traced    map[string]bool              // namespaces whose nftables rules are traced
}

// openSpaces opens the probe's namespace and, unless ownOnly, all others of this host.
func openSpaces(spec string, ownOnly bool) (*spaces, error) {
	s := &spaces{byInode: map[uint32]*netcfg.Netns{}, byName: map[string]*netcfg.Netns{}, counters: map[string]map[string]uint64{}, nft: map[string]uint32{}, traced: map[string]bool{}}
	var err error
	if spec == "" {
		s.start, err = netcfg.Current()
	} else {
		s.start, err = netcfg.Open(spec)
	}
	if errors.Is(err, netcfg.ErrNoNetns) {
		return nil, badUse("%w", err)
	}
	if err != nil {
		return nil, cannotTrace(err)
	}
	s.add(s.start)
	s.connected = []*netcfg.Netns{s.start}
	if ownOnly {
		return s, nil
	}
	all, err := netcfg.List()
	if err != nil {
		s.close()
		return nil, cannotTrace(err)
	}
	for _, n := range all {
		if s.byInode[uint32(n.Inode)] != nil {
			n.Close()
			continue
		}
		s.add(n)
	}
	if s.connected, err = netcfg.Connected(s.start, slices.Collect(maps.Values(s.byInode))); err != nil {
		s.unseen = append(s.unseen, err.Error())
	}
	return s, nil
}

func (s *spaces) add(n *netcfg.Netns) {
	s.byInode[uint32(n.Inode)] = n
	s.byName[n.Name] = n
}

// nameInitial calls the initial namespace "init", as only the kernel can tell
// it: in a container, process 1 is in another one, or may not be looked at.
func (s *spaces) nameInitial(inode uint32) {
	for i, n := range s.byInode {
		switch {
		case i == inode:
			n.Name = "init"
		case n.Name == "init":
			n.Name = fmt.Sprintf("net:[%d]", i)
		default:
			continue
		}
		s.byName[n.Name] = n
	}
}

// name of a namespace; one that cannot be entered goes by its inode number.
func (s *spaces) name(inode uint32) string {
	if n := s.byInode[inode]; n != nil {
		return n.Name
	}
	return fmt.Sprintf("net:[%d]", inode)
}

// readCounters notes the SNMP counters before the probe; what cannot be read is left out, and then unread in the case.
func (s *spaces) readCounters() {
	for i, n := range s.connected {
		if i >= maxCounted {
			return
		}
		if m, err := n.Counters(); err == nil {
			s.counters[n.Name] = m
		}
	}
}

func (s *spaces) close() {
	for _, n := range s.byInode {
		n.Close()
	}
}
