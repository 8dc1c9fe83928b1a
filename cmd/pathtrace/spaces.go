// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg"
	"github.com/pathtrace/pathtrace/tracer"
)

// maxCounted bounds the namespaces whose counters are read before the probe.
const maxCounted = 64

// spaces are the network namespaces that are watched.
type spaces struct {
	start     *netcfg.Netns   // where the probe starts
	connected []*netcfg.Netns // those that devices lead to from there: only they are armed
	ownOnly   bool
	unseen    []string
	naming    sync.Mutex // of the names in byInode, which the reader of events asks for
	byInode   map[uint32]*netcfg.Netns
	byName    map[string]*netcfg.Netns
	counters  map[string]map[string]uint64 // before the probe, by namespace
	nft       map[string]uint32            // generation of the ruleset once armed, by namespace
	traced    map[string]bool              // namespaces whose nftables rules are traced
}

// openSpaces opens the probe's namespace and, unless ownOnly, all others of this host.
func openSpaces(spec string, ownOnly bool) (*spaces, error) {
	s := &spaces{ownOnly: ownOnly, byInode: map[uint32]*netcfg.Netns{}, byName: map[string]*netcfg.Netns{}, counters: map[string]map[string]uint64{}, nft: map[string]uint32{}, traced: map[string]bool{}}
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
	if s.connected, err = netcfg.Connected(s.start, slices.SortedFunc(maps.Values(s.byInode), func(a, b *netcfg.Netns) int { return cmp.Compare(a.Inode, b.Inode) })); err != nil {
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
	s.naming.Lock()
	defer s.naming.Unlock()
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
	s.naming.Lock()
	defer s.naming.Unlock()
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

// foreign reports whether a record is about a namespace that the user did not
// want to be watched, or that the probe cannot have to do with.
func (s *spaces) foreign(r tracer.Record) bool {
	netns := r.Event.Netns
	if r.Counters != nil {
		netns = r.Counters.Event.Netns
	}
	switch {
	case netns == "":
		return false
	case s.ownOnly:
		return netns != s.start.Name
	}
	// Questions for link addresses are known by these only, and two networks that never meet may use the same.
	return resolves(r.Event.Packet) && !slices.ContainsFunc(s.connected, func(n *netcfg.Netns) bool { return n.Name == netns })
}

// resolves reports whether a packet asks for or tells a link address (ARP; RFC 4861).
func resolves(p *evidence.Packet) bool {
	return p != nil && (p.Protocol == "arp" || p.Protocol == "icmpv6" && p.Type != nil && (*p.Type == 135 || *p.Type == 136))
}

func (s *spaces) close() {
	for _, n := range s.byInode {
		n.Close()
	}
}
