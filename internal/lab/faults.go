// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Fault is one way to break a lab, and what a trace must find.
type Fault struct {
	Name    string
	Cause   string // cause id of docs/causes.md
	Summary string // one line for people
	Family  int    // 4 or 6
	// Twin is the fault that a control looks like, without being it; empty for faults.
	Twin   string
	Tools  []string // programs that Setup runs, besides ip
	Needs  []string // sysctls that only newer kernels have
	Setup  func(*Lab) error
	Target func(*Lab) string // where the probe is sent to: an address and a port, also where the protocol has none
	// Protocol of the probe: tcp (when empty), udp or icmp.
	Protocol string
	Args     []string // more arguments of pathtrace
	// Sees are the errors of which a plain client sees one, nil for none, where they are not those of the cause.
	Sees []error
	// Busy is how many packets a second the set-up sends through the same chains, when not 0.
	Busy int
	Want Want
	Fix  bool // the first fix must mend it, and its undo restore the configuration
}

// Want is what a verdict must say. An empty field is not asked about, except within Rule.
type Want struct {
	Certainty string // either observed or inferred when empty
	Direction string
	Role      Role // of where.netns
	Hook      string
	Device    string
	Rule      *Rule
	Route     string // the beginning of where.route.text
	Table     string // where.route.table
	Priority  int    // where.ip_rule.priority
	Sysctl    [2]string
	Comm      string // where.process.comm
	Socket    string // where.socket.local
	Backlog   int    // where.socket.backlog
	Neighbor  string // where.neighbor.address
	NATTo     string // where.nat.to
	NATRule   *Rule  // where.nat.rule
	NoNAT     bool   // neither where.nat nor where.snat
	SNATTo    string // address of where.snat.to
	SNATRule  *Rule  // where.snat.rule
	Cgroup    Role   // whose where.cgroup.path is
	Program   string // where.program.name
	File      *File
	Proof     []string // each occurs in some line of the proof
}

// File is the line a verdict must name.
type File struct {
	Path string
	Line int
	Text string
}

// Rule is the firewall rule a verdict must name. Number is 0 for a policy.
type Rule struct {
	Backend, Family, Table, Chain string
	Path                          []string
	Number                        int
	Text                          string // occurs in the rule's text
}

// Faults returns every fault and control, in a fixed order.
func Faults() []Fault {
	all := slices.Concat(
		serviceFaults(), socketFaults(), appFaults(), programFaults(), stateFaults(), datagramFaults(),
		nftFaults(), nftReplyFaults(), iptablesFaults(), routeFaults(), linkFaults(), netFaults(), realFaults(), natFaults(), libwrapFaults(), endingFaults(), behindFaults(), tunnelFaults(), tproxyFaults(),
		controls(), netControls(),
	)
	for i := range all {
		f := &all[i]
		if f.Target == nil {
			family := f.Family
			f.Target = func(l *Lab) string { return at(l.Addr(Server, family)) }
		}
		if f.Setup == nil {
			f.Setup = func(*Lab) error { return nil }
		}
	}
	return all
}

// Arguments returns what pathtrace is to be called with, but for --netns.
func (f Fault) Arguments(l *Lab) []string {
	switch f.Protocol {
	case "udp":
		return slices.Concat([]string{"-u", "--send", "x"}, f.Args, []string{f.Target(l)})
	case "icmp":
		host := f.service(l).Addr().String()
		if f.Family == 6 {
			host = "[" + host + "]"
		}
		return append(slices.Clone(f.Args), "icmp://"+host)
	}
	return append(slices.Clone(f.Args), f.Target(l))
}

// service is the target as an address; what the target is made of is checked by a test.
func (f Fault) service(l *Lab) netip.AddrPort {
	target := f.Target(l)
	if _, rest, ok := strings.Cut(target, "://"); ok {
		target = rest
	}
	ap, _ := netip.ParseAddrPort(target)
	return ap
}

// Find returns the fault called name.
func Find(name string) (Fault, bool) {
	all := Faults()
	i := slices.IndexFunc(all, func(f Fault) bool { return f.Name == name })
	if i < 0 {
		return Fault{}, false
	}
	return all[i], true
}

// both makes a fault for each family; the one in IPv6 has "-v6" after its name.
func both(mk func(family int) Fault) []Fault {
	out := []Fault{mk(4), mk(6)}
	for i := range out {
		out[i].Family = 4 + 2*i
	}
	out[1].Name += "-v6"
	if out[1].Twin != "" {
		out[1].Twin += "-v6"
	}
	return out
}

func at(a netip.Addr) string { return netip.AddrPortFrom(a, Port).String() }

func fixed(target string) func(*Lab) string { return func(*Lab) string { return target } }

// pick returns the string for the family.
func pick(family int, v4, v6 string) string {
	if family == 6 {
		return v6
	}
	return v4
}

// steps runs the parts of a set-up in turn.
func steps(parts ...func(*Lab) error) func(*Lab) error {
	return func(l *Lab) error {
		for _, p := range parts {
			if err := p(l); err != nil {
				return err
			}
		}
		return nil
	}
}

// serve starts the lab's ordinary service on the server.
func serve(family int) func(*Lab) error {
	return func(l *Lab) error {
		return l.Serve(Server, Listen{Addr: netip.AddrPortFrom(addr(Server, family), Port)})
	}
}

// nft loads a script; %port, %client, %server and %net, the client's network, are replaced, and
// %ip by the word that nft uses for the family.
func nft(r Role, family int, script string) func(*Lab) error {
	return func(l *Lab) error { return l.Nft(r, expand(family, script)) }
}

func sysctl(r Role, name, value string) func(*Lab) error {
	return func(l *Lab) error { return l.Sysctl(r, name, value) }
}

func ip(r Role, family int, format string, args ...any) func(*Lab) error {
	return func(l *Lab) error { return l.IP(r, family, expand(family, fmt.Sprintf(format, args...))) }
}
