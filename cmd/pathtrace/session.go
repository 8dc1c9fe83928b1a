// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/pathtrace/pathtrace/netcfg"
)

// session is the ssh connection that this program was started over.
type session struct {
	peer, server netip.AddrPort
	netns        uint64 // inode of the namespace that the server's end is in
}

// currentSession finds the ssh connection that this program was started over:
// SSH_CONNECTION (sshd(8)) in its own environment, or in that of a process above it, since sudo drops it.
func currentSession() (s session, ok bool) {
	for pid, depth := os.Getpid(), 0; pid > 1 && depth < 64; pid, depth = parent(pid), depth+1 {
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			continue
		}
		for word := range bytes.SplitSeq(environ, []byte{0}) {
			value, found := strings.CutPrefix(string(word), "SSH_CONNECTION=")
			if !found {
				continue
			}
			if s, ok = parseSession(value); ok {
				s.netns = inodeOf(fmt.Sprintf("/proc/%d/ns/net", pid))
				return s, true
			}
		}
	}
	return s, false
}

// parseSession reads "CLIENT PORT SERVER PORT".
func parseSession(value string) (s session, ok bool) {
	words := strings.Fields(value)
	if len(words) != 4 {
		return s, false
	}
	peer, err1 := endpointOf(words[0], words[1])
	server, err2 := endpointOf(words[2], words[3])
	return session{peer: peer, server: server}, err1 == nil && err2 == nil
}

func endpointOf(addr, port string) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	p, err := parsePort(port)
	return netip.AddrPortFrom(a.Unmap().WithZone(""), p), err
}

// parent is the process above pid, or 0.
func parent(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // the name before it may hold anything
	if len(fields) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(string(fields[1])) // 0 if it is none
	return ppid
}

func inodeOf(path string) uint64 {
	n, err := netcfg.Open(path)
	if err != nil {
		return 0
	}
	defer n.Close()
	return n.Inode
}

// refused says why the fix is not to be tried here, unless forced.
func (e *experiment) refused() string {
	if e.netns == nil || e.o.Trial.Force {
		return ""
	}
	if routers := advertised(e.netns); routers && e.turnsForwardingOn() {
		return "IPv6 forwarding makes the kernel forget the routers that advertise themselves, which no undo brings back; --force tries it"
	}
	s, ok := currentSession()
	if !ok || s.netns != e.netns.Inode {
		return ""
	}
	for _, c := range e.fix.Commands {
		if mayCut(c, s) {
			return fmt.Sprintf("it may cut the ssh session from %s that this runs in; --force tries it", s.peer.Addr())
		}
	}
	return ""
}

func (e *experiment) turnsForwardingOn() bool {
	for _, c := range e.fix.Commands {
		if strings.Contains(c, "net.ipv6.conf.") && strings.Contains(c, "forwarding=1") {
			return true
		}
	}
	return false
}

// advertised reports whether n has a default route from a router advertisement.
func advertised(n *netcfg.Netns) bool {
	for _, r := range n.Routes().Items {
		if r.Family == 6 && r.Dest == "default" && r.Protocol == "ra" {
			return true
		}
	}
	return false
}

// mayCut reports whether a command of a fix may take another way than now to
// the session's peer. Rules that let one exchange pass and settings that let more pass do not.
func mayCut(command string, s session) bool {
	words := strings.Fields(command)
	for i, w := range words {
		switch w {
		case "route":
			for _, p := range words[i+1:] {
				if prefix, err := netip.ParsePrefix(p); err == nil {
					return prefix.Contains(s.peer.Addr())
				}
				if a, err := netip.ParseAddr(p); err == nil {
					return a == s.peer.Addr()
				}
			}
			return true // a default route, or what we cannot read
		case "rule", "link", "neigh":
			return i > 0 && (words[i-1] == "ip" || words[i-1] == "bridge" || words[i-1] == "-6" || words[i-1] == "-4")
		}
	}
	return false
}
