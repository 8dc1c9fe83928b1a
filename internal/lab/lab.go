// SPDX-License-Identifier: Apache-2.0

// Package lab builds small networks of namespaces and breaks them in known ways.
// Tests and `pathtrace demo` use the same ones:
//
//	client eth0 ---- lan0 router dmz0 ---- eth0 server
//
// Nothing outside its own namespaces is changed, but for cgroups of its own where
// a fault needs them, and one record in /run by which [Sweep] finds what a killed run has left.
package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Role is the part a namespace plays.
type Role string

// The namespaces of a lab.
const (
	Client Role = "client"
	Router Role = "router"
	Server Role = "server"
	// Bystander has no cable to the others; it exists only where a fault asks for it.
	Bystander Role = "bystander"
	// Switch is a bridge in the cable between router and server, only where a fault asks for it.
	Switch Role = "switch"
)

// Port is where the lab's service listens, unless a fault says otherwise.
const Port = 8080

// Devices of the lab.
const (
	HostDevice = "eth0"  // of the client and of the server
	LANDevice  = "lan0"  // of the router, towards the client
	DMZDevice  = "dmz0"  // of the router, towards the server
	UpDevice   = "up0"   // of the switch, towards the router
	DownDevice = "down0" // of the switch, towards the server
)

var (
	wired = []Role{Client, Router, Server}
	roles = append(wired, Bystander, Switch)
)

// nic is one end of a cable.
type nic struct {
	role   Role
	device string
	v4, v6 netip.Prefix
}

var nics = []nic{
	{Client, HostDevice, netip.MustParsePrefix("198.18.4.10/24"), netip.MustParsePrefix("fd5c:7e1a:4::10/64")},
	{Router, LANDevice, netip.MustParsePrefix("198.18.4.254/24"), netip.MustParsePrefix("fd5c:7e1a:4::1/64")},
	{Router, DMZDevice, netip.MustParsePrefix("198.18.9.254/24"), netip.MustParsePrefix("fd5c:7e1a:9::1/64")},
	{Server, HostDevice, netip.MustParsePrefix("198.18.9.80/24"), netip.MustParsePrefix("fd5c:7e1a:9::80/64")},
}

// Lab is a network of namespaces. It is made by [New] and ended by [Lab.Close].
type Lab struct {
	prefix string
	record *os.File
	ns     map[Role]netns.NsHandle
	links  map[Role]*netlink.Handle

	mu       sync.Mutex
	services []*service
	programs []link.Link
	cgroups  map[Role]string
	closed   bool
}

var prefixes = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)

// New builds a lab that works in IPv4 and IPv6. Its namespaces are called
// PREFIX-client, PREFIX-router and PREFIX-server, as `ip netns` shows them.
func New(prefix string) (*Lab, error) {
	l, err := blank(prefix)
	if err != nil {
		return nil, err
	}
	if err := l.build(); err != nil {
		l.Close()
		return nil, fmt.Errorf("build lab %s: %w", prefix, err)
	}
	return l, nil
}

func blank(prefix string) (*Lab, error) {
	if !prefixes.MatchString(prefix) {
		return nil, fmt.Errorf("lab name %q: want letters, digits and dashes", prefix)
	}
	return &Lab{prefix: prefix, ns: map[Role]netns.NsHandle{}, links: map[Role]*netlink.Handle{}, cgroups: map[Role]string{}}, nil
}

// Start builds a lab and breaks it. When it returns an error nothing is left of the lab.
func Start(prefix string, f Fault) (*Lab, error) {
	l, err := New(prefix)
	if err != nil {
		return nil, err
	}
	if err := f.Setup(l); err != nil {
		l.Close()
		return nil, fmt.Errorf("set up fault %s: %w", f.Name, err)
	}
	return l, nil
}

// Netns returns the name of a namespace, as `ip netns` shows it.
func (l *Lab) Netns(r Role) string { return l.prefix + "-" + string(r) }

// Role returns the role of the namespace called name, or "" when it is none of the lab's.
func (l *Lab) Role(name string) Role {
	for _, r := range roles {
		if l.Netns(r) == name {
			return r
		}
	}
	return ""
}

// Addr returns the address of a role in family 4 or 6; the router's is the one that faces the client.
func (l *Lab) Addr(r Role, family int) netip.Addr { return addr(r, family) }

func addr(r Role, family int) netip.Addr {
	for _, n := range nics {
		if n.role == r {
			return n.prefix(family).Addr()
		}
	}
	panic("lab: no such role: " + string(r))
}

func (n nic) prefix(family int) netip.Prefix {
	if family == 6 {
		return n.v6
	}
	return n.v4
}

// Close ends every process of the lab and removes its namespaces. It may be called more than once.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	for _, s := range l.services {
		s.stop()
	}
	for _, p := range l.programs {
		p.Close()
	}
	for _, h := range l.links {
		h.Close()
	}
	for _, h := range l.ns {
		h.Close()
	}
	if l.record == nil {
		return nil // not ours, or nothing built yet
	}
	err := errors.Join(removeCgroups(l.prefix), removeNamespaces(l.prefix))
	if err == nil {
		err = os.Remove(recordPath(l.prefix))
	}
	l.record.Close()
	return err
}

// Missing returns the tools and kernel settings that f needs and this machine has not got.
func Missing(f Fault) []string {
	var missing []string
	for _, s := range f.Needs {
		if _, err := os.Stat("/proc/sys/" + strings.ReplaceAll(s, ".", "/")); err != nil {
			missing = append(missing, s)
		}
	}
	for _, t := range append([]string{"ip"}, f.Tools...) {
		if _, err := tool(t); err != nil {
			missing = append(missing, t)
		}
	}
	return missing
}

// tool finds a program also where a PATH that sudo or su has passed on does not look.
func tool(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(dir + name)
	}
	if err != nil {
		return "", fmt.Errorf("%s is not installed", name)
	}
	return path, nil
}
