// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg"
	"github.com/pathtrace/pathtrace/tracer"
)

// gatherer reads the configuration that the events point to, each part once
// and only where a packet of ours has been.
type gatherer struct {
	spaces *spaces
	tracer *tracer.Tracer
	tables map[tableKey]*netcfg.LegacyTable
	conns  map[string][]evidence.Socket // our connection, as the server's namespace has it
	chains map[chainKey]evidence.Chain
	// stateful rules of the chains that were looked at
	stateful map[chainKey]stateful
	// counted are the legacy counters that were replayed, by namespace
	counted map[string][]*tracer.Counters
	wraps   *wraps
	callers map[int]caller // of tcp wrappers, by process id
}

type tableKey struct {
	netns  string
	family int
	name   string
}

type chainKey struct{ netns, backend, family, table, chain string }

// legacy is the table of a chain of iptables-legacy.
func (k chainKey) legacy() tableKey {
	version := 4
	if k.family == "ip6" {
		version = 6
	}
	return tableKey{k.netns, version, k.table}
}

func newGatherer(s *spaces, t *tracer.Tracer, w *wraps) *gatherer {
	return &gatherer{
		spaces: s, tracer: t, wraps: w, callers: map[int]caller{}, tables: map[tableKey]*netcfg.LegacyTable{},
		conns: map[string][]evidence.Socket{}, chains: map[chainKey]evidence.Chain{}, counted: map[string][]*tracer.Counters{},
		stateful: map[chainKey]stateful{},
	}
}

// maxWaiting bounds the processes that are asked what they do: a server may have hundreds of workers.
const maxWaiting = 8

// waiting reads what the processes do that have not answered.
func waiting(sockets []evidence.Socket) {
	n := 0
	for i := range sockets {
		for j := range sockets[i].Process {
			if n++; n > maxWaiting {
				return
			}
			netcfg.Waiting(&sockets[i].Process[j])
		}
	}
}

func (g *gatherer) addConnection(netns string, s evidence.Socket) {
	if list := g.conns[netns]; len(list) == 0 || list[len(list)-1].Inode != s.Inode {
		g.conns[netns] = append(list, s)
	}
}

// events turns records into events; counters are replayed into the rules they belong to.
func (g *gatherer) events(records []tracer.Record) (events []evidence.Event, unseen []string) {
	clear(g.counted)
	events = []evidence.Event{}
	for _, r := range records {
		if r.Unseen != "" {
			if !slices.Contains(unseen, r.Unseen) {
				unseen = append(unseen, r.Unseen)
			}
			continue
		}
		if r.Counters == nil {
			events = append(events, r.Event)
			continue
		}
		steps, err := g.replay(r.Counters)
		if err != nil {
			why := fmt.Sprintf("%s: rules of iptables-legacy table %s in %s: %v", r.Counters.Event.Netns, r.Counters.Table, r.Counters.Event.Hook, err)
			if !slices.Contains(unseen, why) {
				unseen = append(unseen, why)
			}
			continue
		}
		for i := range steps {
			e := r.Counters.Event
			e.Rule = &steps[i]
			events = append(events, e)
		}
	}
	directRoutes(events)
	return events, unseen
}

// directRoutes tells which way the routing lookups were: a packet on its way
// has its source asked for too, and an answer is made while it is handled.
func directRoutes(events []evidence.Event) {
	ends := map[string]string{} // namespace and address: the direction of what goes there
	for _, e := range events {
		if e.Packet == nil || e.Direction != evidence.Forward || e.Packet.Protocol == "arp" {
			continue
		}
		ends[e.Netns+" "+e.Packet.Source] = evidence.Reply
	}
	for _, e := range events {
		if e.Packet != nil && e.Direction == evidence.Forward && e.Packet.Protocol != "arp" {
			ends[e.Netns+" "+e.Packet.Dest] = evidence.Forward
		}
	}
	for i := range events {
		if e := &events[i]; e.Route != nil {
			if d := ends[e.Netns+" "+e.Route.Dest]; d != "" {
				e.Direction = d
			}
		}
	}
}

func (g *gatherer) replay(c *tracer.Counters) ([]evidence.RuleStep, error) {
	if c.Trouble != "" {
		return nil, fmt.Errorf("%s", c.Trouble)
	}
	if c.Table == "nat" && len(c.Moved) == 0 {
		return nil, nil // asked for the first packet of a connection only, which at least its policy counts
	}
	key := tableKey{c.Event.Netns, c.Family, c.Table}
	t, err := g.table(key)
	if err != nil {
		return nil, err
	}
	g.counted[key.netns] = append(g.counted[key.netns], c)
	if g.tracer.TableChanged(c) {
		return nil, fmt.Errorf("the table was replaced before it was read")
	}
	steps, err := t.Replay(c.Event.Hook, func(i int) uint64 { return c.Moved[i] })
	if err != nil || c.Result == "" {
		return steps, err
	}
	switch last := &steps[len(steps)-1]; last.Verdict {
	case c.Result:
	case "":
		last.Verdict = c.Result
	default:
		return nil, fmt.Errorf("the rules that counted lead to %s, but the table said %s", last.Verdict, c.Result)
	}
	return steps, nil
}

// table reads a table of iptables-legacy, once.
func (g *gatherer) table(key tableKey) (*netcfg.LegacyTable, error) {
	if t, ok := g.tables[key]; ok {
		return t, nil
	}
	n := g.spaces.byName[key.netns]
	if n == nil {
		return nil, fmt.Errorf("the namespace cannot be entered")
	}
	t, err := n.LegacyTable(key.family, key.name)
	if err == nil {
		g.tables[key] = t
	}
	return t, err
}

// namespaces reads the configuration of every namespace that the events name.
func (g *gatherer) namespaces(c *evidence.Case) []evidence.Namespace {
	if err := g.tracer.Reading(true); err != nil {
		c.Unseen = append(c.Unseen, "routes: our own questions may stand among the probe's: "+err.Error())
	}
	defer g.tracer.Reading(false)
	var names []string
	if c.Probe.Netns != "" { // else the probe comes from another host
		names = append(names, c.Probe.Netns)
	}
	for _, e := range c.Events {
		if e.Netns != "" && !slices.Contains(names, e.Netns) {
			names = append(names, e.Netns)
		}
	}
	out := make([]evidence.Namespace, 0, len(names))
	for _, name := range names {
		out = append(out, g.namespace(name, c))
	}
	return out
}

func (g *gatherer) namespace(name string, c *evidence.Case) evidence.Namespace {
	s := evidence.Namespace{Name: name}
	n := g.spaces.byName[name]
	if n == nil {
		return s // every section is unread
	}
	here := packetsIn(c, name)
	s.Inode, s.Enter = n.Inode, n.Enter()
	if hooks, err := g.tracer.Hooks(uint32(n.Inode)); err == nil {
		s.Hooks = evidence.Have(withoutOurs(hooks))
	} else {
		s.Hooks = evidence.Missing[evidence.Hook](err.Error())
	}
	s.Traced = g.spaces.traced[name]
	s.Links, s.Addresses, s.Neighbors, s.Rules = n.Links(), n.Addresses(), n.Neighbors(), n.IPRules()
	if here.unrouted || name == c.Probe.Netns && len(c.Events) == here.routes {
		s.Routes = n.RoutesAbout(addressesIn(c, name))
	}
	s.Lookups = g.lookups(n, asked(c, name), here)
	s.Sockets = g.sockets(n, name, here, c)
	s.Programs = cgroupPrograms(name, s.Sockets.Items, c)
	s.Wraps = g.wrapDecisions(name, c)
	s.Sysctls = n.Sysctls(sysctls(s.Links.Items)...)
	s.Chains = g.ruleChains(n, name, c, s.Hooks.Items)
	if armed, ok := g.spaces.nft[name]; ok && len(s.Chains.Items) > 0 {
		now, err := n.NFTGeneration()
		s.Generation, s.Changed = now, err != nil || now != armed
	}
	s.Changed = s.Changed || slices.ContainsFunc(g.counted[name], g.tracer.TableChanged)
	if before := g.spaces.counters[name]; before != nil {
		if after, err := n.Counters(); err == nil {
			s.Counters = netcfg.CounterDelta(before, after)
		} else {
			s.Counters = evidence.Missing[evidence.Counter](err.Error())
		}
	}
	return s
}

// withoutOurs leaves the trace table and the observers of this run out.
func withoutOurs(hooks []evidence.Hook) []evidence.Hook {
	out := make([]evidence.Hook, 0, len(hooks))
	for _, h := range hooks {
		if h.Type != "nft" || !ourTable(h.Table) {
			out = append(out, h)
		}
	}
	return out
}

// sockets reads who has the ports that our packets were sent to.
func (g *gatherer) sockets(n *netcfg.Netns, name string, here present, c *evidence.Case) evidence.Section[evidence.Socket] {
	var all evidence.Section[evidence.Socket]
	items := slices.Clone(g.conns[name])
	if old := g.oldConnections(n, name, c); old.Items != nil {
		if len(here.ports) == 0 || !old.Read() {
			return old
		}
		items = append(items, old.Items...)
	}
	if len(here.ports) == 0 {
		return all
	}
	for _, p := range here.ports {
		s := n.Sockets(p.protocol, p.number)
		items = append(items, s.Items...)
		if !s.Read() {
			return evidence.Section[evidence.Socket]{Items: items, Unread: s.Why()}
		}
	}
	if o := c.Probe.Outcome; o == evidence.Silent || o == evidence.Timeout {
		waiting(items)
	}
	return evidence.Have(items)
}

// cgroupPrograms reads which programs decide about packets of the sockets' cgroups, where one may have dropped a packet.
func cgroupPrograms(netns string, sockets []evidence.Socket, c *evidence.Case) evidence.Section[evidence.CgroupProgram] {
	var all evidence.Section[evidence.CgroupProgram]
	var seen []string
	for _, e := range c.Events {
		if e.Netns != netns || e.Kind != evidence.Drop {
			continue
		}
		attach := map[string]string{"SOCKET_FILTER": "ingress", "BPF_CGROUP_EGRESS": "egress"}[e.Reason]
		if attach == "" {
			continue
		}
		cgroups := []string{}
		if ours := netns == c.Probe.Netns && (attach == "egress") == (e.Direction == evidence.Forward); ours {
			cgroups = append(cgroups, c.Probe.Cgroup)
		} else {
			for _, s := range sockets {
				for _, p := range s.Process {
					cgroups = append(cgroups, p.Cgroup)
				}
			}
		}
		for _, cg := range cgroups {
			if key := attach + " " + cg; cg == "" || slices.Contains(seen, key) {
				continue
			} else {
				seen = append(seen, key)
			}
			found := netcfg.CgroupPrograms(cg, attach)
			if !found.Read() {
				return found
			}
			all = evidence.Have(append(all.Items, found.Items...))
		}
	}
	return all
}

// oldConnections finds who holds the probe's own addresses already, where the kernel said that they are taken.
func (g *gatherer) oldConnections(n *netcfg.Netns, name string, c *evidence.Case) (none evidence.Section[evidence.Socket]) {
	if local, remote, ok := answeredByOld(c, name); ok {
		return n.Connections(netcfg.ConnectionFilter{Local: local, Remote: remote})
	}
	if name != c.Probe.Netns || c.Target.Protocol != "tcp" || c.Probe.Errno != "EADDRNOTAVAIL" && c.Probe.Errno != "EADDRINUSE" {
		return none
	}
	local, err1 := netip.ParseAddrPort(c.Probe.Local)
	remote, err2 := netip.ParseAddr(c.Target.Address)
	if err1 != nil || err2 != nil {
		return none
	}
	if local.Addr().IsUnspecified() { // no source was asked for, and none was chosen
		local = netip.AddrPortFrom(netip.Addr{}, local.Port())
	}
	return n.Connections(netcfg.ConnectionFilter{Local: local, Remote: netip.AddrPortFrom(remote, uint16(c.Target.Port))})
}

// answeredByOld reports whether a SYN of ours was answered by a bare ACK in a namespace, as a socket that
// already has these two ends answers it (RFC 9293, 3.10.7.4), and returns the ends as that socket names them.
func answeredByOld(c *evidence.Case, name string) (local, remote netip.AddrPort, ok bool) {
	if c.Target.Protocol != "tcp" {
		return local, remote, false
	}
	for _, e := range c.Events {
		if e.Netns != name || e.Packet == nil || e.Packet.Protocol != "tcp" {
			continue
		}
		switch {
		case e.Kind == evidence.Receive && e.Direction == evidence.Forward && e.Packet.Flags == "S":
			local, _ = netip.ParseAddrPort(net.JoinHostPort(e.Packet.Dest, strconv.Itoa(e.Packet.DPort)))
			remote, _ = netip.ParseAddrPort(net.JoinHostPort(e.Packet.Source, strconv.Itoa(e.Packet.SPort)))
		case e.Kind == evidence.Transmit && e.Direction == evidence.Reply && e.Packet.Flags == "." && local.IsValid() && remote.IsValid():
			return local, remote, true
		case e.Direction == evidence.Reply && e.Packet.Flags == "S.":
			return local, remote, false
		}
	}
	return local, remote, false
}

// sysctls that decide whether a packet may go on.
func sysctls(links []evidence.Link) []string {
	names := []string{
		"net.ipv4.ip_forward", "net.ipv4.ip_default_ttl", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_max_syn_backlog",
		"net.ipv4.icmp_echo_ignore_all", "net.ipv6.icmp.echo_ignore_all", "net.core.somaxconn", netcfg.ConntrackCount, netcfg.ConntrackMax,
	}
	devices := []string{"all", "default"}
	for _, l := range links {
		if l.Up && l.Name != "lo" && len(devices) < 64 {
			devices = append(devices, l.Name)
		}
	}
	for _, d := range devices {
		for _, leaf := range []string{"rp_filter", "forwarding", "accept_local", "route_localnet", "src_valid_mark"} {
			names = append(names, netcfg.SysctlName("net.ipv4.conf", d, leaf))
		}
		for _, leaf := range []string{"forwarding", "force_forwarding", "disable_ipv6"} {
			names = append(names, netcfg.SysctlName("net.ipv6.conf", d, leaf))
		}
	}
	return names
}
