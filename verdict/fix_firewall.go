// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// flow is one direction of the exchange, as a firewall rule matches it.
type flow struct {
	from, to netip.Addr
	protocol string
	sport    int // matched when not 0
	dport    int
	tunnel   bool // it carries the exchange, and has the same destination port both ways
}

func (f flow) reversed() flow {
	if f.tunnel {
		f.from, f.to = f.to, f.from
		return f
	}
	return flow{from: f.to, to: f.from, protocol: f.protocol, sport: f.dport, dport: f.sport}
}

// flowOf narrows a rule to the packet of e: addresses, protocol and the service's port.
func flowOf(c *evidence.Case, e *evidence.Event) (flow, bool) {
	f := flow{protocol: c.Target.Protocol}
	if e.Packet != nil {
		f.protocol, f.tunnel = e.Packet.Protocol, e.Packet.Carries != nil
	}
	var ok, ok2 bool
	var sport, dport int
	f.from, sport, ok = source(c, e)
	f.to, dport, ok2 = destination(c, e)
	if !ok || !ok2 || f.from.Is4() != f.to.Is4() {
		return f, false
	}
	switch {
	case f.protocol != "tcp" && f.protocol != "udp":
		return f, f.protocol == "icmp" || f.protocol == "icmpv6" || f.tunnel
	case direction(c, e) == evidence.Reply && !f.tunnel:
		f.sport = sport
	default:
		f.dport = dport
	}
	return f, f.sport+f.dport != 0
}

// nft is the match of f in nft's words.
func (f flow) nft() []string {
	ip := "ip"
	if f.from.Is6() {
		ip = "ip6"
	}
	w := []string{ip, "saddr", f.from.String(), ip, "daddr", f.to.String()}
	switch {
	case f.sport != 0:
		return append(w, f.protocol, "sport", strconv.Itoa(f.sport))
	case f.dport != 0:
		return append(w, f.protocol, "dport", strconv.Itoa(f.dport))
	case f.protocol == "icmpv6":
		return append(w, "meta", "l4proto", "ipv6-icmp")
	}
	return append(w, "meta", "l4proto", f.protocol)
}

// iptables is the match of f in the words of iptables.
func (f flow) iptables() []string {
	w := []string{"-s", f.from.String(), "-d", f.to.String(), "-p", f.protocol}
	switch {
	case f.sport != 0:
		return append(w, "--sport", strconv.Itoa(f.sport))
	case f.dport != 0:
		return append(w, "--dport", strconv.Itoa(f.dport))
	}
	return w
}

// nftName is what nft's grammar takes as a name.
var nftName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_./-]*$`)

// allow lets this one exchange pass the rule or policy that stopped it.
func allow(c *evidence.Case, e *evidence.Event, n *evidence.Namespace, v *Verdict, d *decision) []Fix {
	r := v.Where.Rule
	f, ok := flowOf(c, e)
	if n == nil || r == nil || !ok || mark(c) == "" || r.Backend == "nft" && !(nftName.MatchString(r.Table) && nftName.MatchString(r.Chain)) {
		return nil
	}
	flows := []flow{f}
	if meetsReplies(c, e, n, r, d, f) && repliesToo(e, n, r, d) {
		flows = append(flows, f.reversed())
	}
	fix := Fix{
		Summary: fmt.Sprintf("let %s from %s to %s pass in chain %s of %s", f.service(), f.from, f.to, r.Chain, name(n.Name)),
		Netns:   n.Name, Mark: mark(c),
	}
	if len(flows) > 1 {
		fix.Summary += ", with its replies"
	}
	for _, f := range flows {
		if r.Backend == "nft" {
			fix.Commands = append(fix.Commands, nftInsert(c, n, r, d, f))
		} else {
			do, undo := iptablesInsert(c, n, r, d, f)
			fix.Commands, fix.Undo = append(fix.Commands, do), append(fix.Undo, undo)
		}
	}
	if r.Backend == "nft" {
		fix.Undo = []string{nftUndo(c, n, r)}
	}
	if slices.Contains(fix.Commands, "") {
		return nil
	}
	return []Fix{fix}
}

// answerTo is a packet of the other way, as far as rules look at it; nil where p is nil. A tunnel's
// goes to the same port, from one that each end chooses (RFC 7348, 5; RFC 8926, 3.3).
func answerTo(p *evidence.Packet) *evidence.Packet {
	if p == nil {
		return nil
	}
	back := &evidence.Packet{Family: p.Family, Protocol: p.Protocol, Source: p.Dest, Dest: p.Source, SPort: p.DPort, DPort: p.SPort, Carries: p.Carries}
	if p.Carries != nil {
		back.SPort, back.DPort = p.SPort, p.DPort
	}
	return back
}

func (f flow) service() string {
	if p := f.sport + f.dport; p != 0 {
		return fmt.Sprintf("%d/%s", p, f.protocol)
	}
	return f.protocol
}

func nftInsert(c *evidence.Case, n *evidence.Namespace, r *Rule, d *decision, f flow) string {
	var w []string
	switch {
	case r.Handle != 0:
		w = []string{"nft", "insert", "rule", r.Family, r.Table, r.Chain, "position", strconv.FormatUint(r.Handle, 10)}
	case d.gone:
		w = []string{"nft", "insert", "rule", r.Family, r.Table, r.Chain}
	case d.step.Rule.Policy:
		w = []string{"nft", "add", "rule", r.Family, r.Table, r.Chain}
	default:
		return ""
	}
	w = append(append(w, f.nft()...), "accept", "comment", `"`+mark(c)+`"`)
	return shell(n, w...)
}

// nftUndo deletes the rules that bear our mark, whatever their handles are by then.
func nftUndo(c *evidence.Case, n *evidence.Namespace, r *Rule) string {
	list := shell(n, "nft", "-a", "list", "chain", r.Family, r.Table, r.Chain)
	del := shell(n, "nft", "delete", "rule", r.Family, r.Table, r.Chain, "handle")
	return list + ` | sed -n 's/.*comment "` + mark(c) + `".* # handle \([0-9][0-9]*\)$/\1/p' | while read -r h; do ` + del + ` "$h"; done`
}

func iptablesInsert(c *evidence.Case, n *evidence.Namespace, r *Rule, d *decision, f flow) (do, undo string) {
	tool := r.Backend // iptables-nft or iptables-legacy
	if r.Family == "ip6" {
		tool = strings.Replace(tool, "iptables", "ip6tables", 1)
	}
	spec := append(f.iptables(), "-m", "comment", "--comment", mark(c), "-j", "ACCEPT")
	var how []string
	switch {
	case r.Number != 0:
		how = []string{"-I", r.Chain, strconv.Itoa(r.Number)}
	case d.gone:
		how = []string{"-I", r.Chain, "1"}
	case d.step.Rule.Policy:
		how = []string{"-A", r.Chain}
	default:
		return "", ""
	}
	do = shell(n, append(append([]string{tool, "-t", r.Table}, how...), spec...)...)
	undo = shell(n, append([]string{tool, "-t", r.Table, "-D", r.Chain}, spec...)...)
	return do, undo
}

// meetsReplies reports whether the replies to the packet of e pass the chain of
// r as well: when the packet is on its way through this host, or meets both ends of it.
func meetsReplies(c *evidence.Case, e *evidence.Event, n *evidence.Namespace, r *Rule, d *decision, f flow) bool {
	if direction(c, e) != evidence.Forward {
		return false
	}
	if e.Device == "lo" || f.from == f.to || f.to.IsLoopback() {
		return true
	}
	hook := e.Hook
	if hook == "" {
		hook = d.step.Hook
	}
	switch hook {
	case evidence.ForwardHook:
		return true
	case evidence.Prerouting:
		here, known := localAddress(n, f.to)
		return known && !here
	case evidence.Postrouting:
		return visitOf(c, e).arrived() != nil
	case evidence.Ingress, evidence.Egress: // of one device, unless the chain has several
		k := baseOf(n, r)
		return k != nil && strings.Contains(k.Device, ",")
	}
	return false
}

func baseOf(n *evidence.Namespace, r *Rule) *evidence.Chain {
	for i := range n.Chains.Items {
		if k := &n.Chains.Items[i]; k.Family == r.Family && k.Table == r.Table && len(r.Path) > 0 && k.Name == r.Path[0] {
			return k
		}
	}
	return nil
}

// repliesToo reports whether the rule or policy would stop replies that pass the
// same chain as well: no rule before it lets established connections through,
// and the rule does not look at what tells one way from the other.
func repliesToo(e *evidence.Event, n *evidence.Namespace, r *Rule, d *decision) bool {
	if readRule(r.Backend, r.Text).oneWay(answerTo(e.Packet)) && !d.step.Rule.Policy {
		return false
	}
	if e.Packet != nil && e.Packet.Carries != nil { // to conntrack each way is a flow of its own
		return true
	}
	for i, chain := range r.Path {
		for _, k := range n.Chains.Items {
			if k.Family != r.Family || k.Table != r.Table || k.Name != chain {
				continue
			}
			for _, f := range k.Rules {
				t := readRule(k.Backend, f.Text)
				if i+1 < len(r.Path) && t.leadsTo() == r.Path[i+1] || i+1 == len(r.Path) && r.Number != 0 && f.Number >= r.Number {
					break
				}
				if t.letsReplies() {
					return false
				}
			}
		}
	}
	return true
}
