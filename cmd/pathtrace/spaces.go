// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/pathtrace/pathtrace/netcfg"
)

// maxCounted bounds the namespaces whose counters are read before the probe.
const maxCounted = 64

// spaces are the network namespaces that are watched.
type spaces struct {
	start    *netcfg.Netns // where the probe starts
	byInode  map[uint32]*netcfg.Netns
	byName   map[string]*netcfg.Netns
	ownOnly  bool
	counters map[string]map[string]uint64 // before the probe, by namespace
}

// openSpaces opens the probe's namespace and, unless ownOnly, all others of this host.
func openSpaces(spec string, ownOnly bool) (*spaces, error) {
	s := &spaces{byInode: map[uint32]*netcfg.Netns{}, byName: map[string]*netcfg.Netns{}, ownOnly: ownOnly, counters: map[string]map[string]uint64{}}
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

// unentered says that a namespace has rules which we cannot look at.
func (s *spaces) unentered(inode uint32) []string {
	if s.ownOnly {
		return nil // nobody asked for it
	}
	return []string{fmt.Sprintf("net:[%d]: its firewall: no process or mount leads to this namespace", inode)}
}

// readCounters notes the SNMP counters before the probe; what cannot be read is left out, and then unread in the case.
func (s *spaces) readCounters() {
	for name, n := range s.byName {
		if len(s.byName) > maxCounted && n != s.start {
			continue
		}
		if m, err := n.Counters(); err == nil {
			s.counters[name] = m
		}
	}
}

func (s *spaces) close() {
	for _, n := range s.byInode {
		n.Close()
	}
}
