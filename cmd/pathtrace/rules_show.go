// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg"
	"github.com/pathtrace/pathtrace/tracer"
)

// rulesView is a ruleset as `rules show` prints it.
type rulesView struct {
	FormatVersion string        `json:"format_version"`
	Tool          evidence.Tool `json:"tool"`
	Netns         string        `json:"netns"`
	Packet        *rulesPacket  `json:"packet,omitempty"` // whose chains are marked
	Hooks         []hookView    `json:"hooks"`            // in the order in which the kernel asks them
	Chains        []chainView   `json:"chains"`
	Unseen        []string      `json:"unseen"`
}

// rulesPacket is the one that is asked about: the first of a connection that nobody expects, sent from here.
type rulesPacket struct {
	Protocol string   `json:"protocol"`
	Source   string   `json:"source,omitempty"`
	Dest     string   `json:"destination"`
	Port     int      `json:"port,omitempty"`
	Route    string   `json:"route"`
	Path     []string `json:"path"` // the hooks that it comes to, in order
}

type hookView struct {
	evidence.Hook
	Met string `json:"met,omitempty"` // yes, may or no
}

type chainView struct {
	evidence.Chain
	Packets *uint64    `json:"policy_packets,omitempty"` // that came to the policy
	Bytes   *uint64    `json:"policy_bytes,omitempty"`
	Met     string     `json:"met,omitempty"`
	Rules   []ruleView `json:"rules"`
}

type ruleView struct {
	evidence.FirewallRule
	Met string `json:"met,omitempty"`
}

func newRulesShowCmd(a *app) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "show [flags] [TARGET]",
		Short: "every firewall rule in the order in which the kernel asks them, with its counters",
		Long: "Shows the chains of nftables, iptables-nft and iptables-legacy, of ip, ip6, arp, bridge and netdev, at each\n" +
			"hook in the order in which the kernel asks them, and what of the kernel's own stands between them. With a TARGET\n" +
			"the chains and rules are marked that a packet sent there from here meets (>) or may meet (?): the first of a\n" +
			"connection that nobody expects. A rule whose text says more than addresses, ports, protocol, devices and\n" +
			"conntrack's state may match. No packet is sent, and nothing is changed.",
		Example: "  sudo pathtrace rules show\n  sudo pathtrace rules show -v --netns web 10.0.0.5:443",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := f.options(a)
			if err != nil {
				return err
			}
			return a.showRules(cmd.Context(), o, args)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	groups := f.groups()
	cmd.Flags().AddFlagSet(groups[0].FlagSet)
	groups[len(groups)-1].VisitAll(func(flag *pflag.Flag) {
		if slices.Contains([]string{"json", "verbose", "color", "help"}, flag.Name) {
			cmd.Flags().AddFlag(flag)
		}
	})
	cmd.Flags().Lookup("verbose").Usage = "``handles, empty chains, and chains that no hook leads to"
	return cmd
}

// showRules reads the rules of one namespace and prints them.
func (a *app) showRules(ctx context.Context, o Options, args []string) error {
	var t *Target
	if len(args) > 0 {
		parsed, err := ParseTarget(args, o)
		if err == nil {
			err = parsed.Resolve(ctx, o, a.lookup(o))
		}
		if err != nil {
			return err
		}
		t = &parsed
	}
	n, err := openNetns(o.Netns)
	if err != nil {
		return err
	}
	defer n.Close()
	v, err := readRules(ctx, n, o, t)
	if err != nil {
		return err
	}
	if !o.JSON {
		v.print(&a.out, o)
		return nil
	}
	e := json.NewEncoder(&a.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// openNetns opens the namespace of --netns, or our own.
func openNetns(spec string) (*netcfg.Netns, error) {
	open := netcfg.Current
	if spec != "" {
		open = func() (*netcfg.Netns, error) { return netcfg.Open(spec) }
	}
	n, err := open()
	if errors.Is(err, netcfg.ErrNoNetns) {
		return nil, badUse("%w", err)
	}
	return n, cannotTrace(err)
}

// readRules reads the ruleset, the order of the hooks, and what the packet meets.
func readRules(ctx context.Context, n *netcfg.Netns, o Options, t *Target) (*rulesView, error) {
	v := &rulesView{FormatVersion: evidence.FormatVersion, Tool: thisTool(), Netns: n.Name, Hooks: []hookView{}, Chains: []chainView{}, Unseen: []string{}}
	type inventory struct {
		hooks []evidence.Hook
		err   error
	}
	order := make(chan inventory, 1)
	go func() { // a program for the kernel is loaded meanwhile
		hooks, err := tracer.Registered(uint32(n.Inode))
		order <- inventory{hooks, err}
	}()
	rules := n.Firewall(ctx)
	v.Unseen = append(v.Unseen, rules.Unread...)
	found := <-order
	if found.err != nil {
		v.Unseen = append(v.Unseen, "what else is registered with netfilter, as conntrack and NAT: "+oneLine(found.err))
		found.hooks = deducedHooks(rules.Chains)
	}
	if len(rules.Chains) == 0 && len(rules.Unread) > 0 && found.err != nil {
		return nil, cannotTrace(errors.Join(found.err, errors.New(rules.Unread[0])))
	}
	found.hooks = withoutOurs(found.hooks)
	slices.SortStableFunc(found.hooks, func(a, b evidence.Hook) int { return hookRank(a) - hookRank(b) })
	w := newWalker(rules.Chains, packet{})
	var hooksMet []met
	if t != nil {
		v.Packet, hooksMet = w.send(n, o, t, found.hooks)
	}
	for i, h := range found.hooks {
		view := hookView{Hook: h}
		if t != nil {
			view.Met = hooksMet[i].String()
		}
		v.Hooks = append(v.Hooks, view)
	}
	for i := range rules.Chains {
		v.Chains = append(v.Chains, w.view(&rules.Chains[i], t != nil))
	}
	return v, nil
}

// hookRank orders hooks as a packet comes to them: what a device gets, what this host does with it, what it sends.
func hookRank(h evidence.Hook) int {
	families := []string{"netdev", "bridge", "arp", "ip", "ip6"}
	hooks := []string{evidence.Ingress, evidence.Prerouting, evidence.Input, evidence.ForwardHook, evidence.Output, evidence.Postrouting, evidence.Egress}
	return slices.Index(families, h.Family)*len(hooks) + slices.Index(hooks, h.Hook)
}

// deducedHooks makes the hooks of what is known of chains, where the kernel's own list cannot be read.
func deducedHooks(chains []netcfg.FirewallChain) []evidence.Hook {
	var hooks []evidence.Hook
	for _, c := range chains {
		if !c.Base {
			continue
		}
		h := evidence.Hook{Family: c.Family, Hook: c.Hook, Device: c.Device, Priority: c.Priority, Type: "nft", Table: c.Table, Chain: c.Name, NFFamily: c.Family, NAT: c.Type == "nat"}
		if c.Backend == "iptables-legacy" {
			h.Type, h.NFFamily = c.Backend, ""
		}
		if c.Family != "inet" {
			hooks = append(hooks, h)
			continue
		}
		for _, family := range []string{"ip", "ip6"} {
			h.Family = family
			hooks = append(hooks, h)
		}
	}
	slices.SortStableFunc(hooks, func(a, b evidence.Hook) int { return a.Priority - b.Priority })
	return hooks
}

func (w *walker) view(c *netcfg.FirewallChain, marked bool) chainView {
	v := chainView{Chain: c.Chain, Rules: make([]ruleView, 0, len(c.Rules))}
	if c.Counts {
		v.Packets, v.Bytes = &c.Packets, &c.Bytes
	}
	name := nameOf(&c.Chain)
	for i, r := range c.Rules {
		rule := ruleView{FirewallRule: r}
		if marked {
			rule.Met = notMet.String()
			if marks := w.rules[name]; marks != nil {
				rule.Met = marks[i].String()
			}
		}
		v.Rules = append(v.Rules, rule)
	}
	if marked {
		v.Met = w.met[name].String()
	}
	return v
}

// send walks the packet from this namespace on its way, and returns what it is and which hooks it meets.
func (w *walker) send(n *netcfg.Netns, o Options, t *Target, hooks []evidence.Hook) (*rulesPacket, []met) {
	dest := t.Addresses[0]
	l := n.Lookup(netcfg.RouteQuery{Dest: dest, Source: o.Source, Mark: o.Mark})
	p := packet{protocol: t.Protocol, source: o.Source, dest: dest, sport: int(o.SourcePort), dport: int(t.Port), inKnown: true}
	if p.protocol == "icmp" && dest.Is6() {
		p.protocol = "ipv6-icmp"
	}
	if !p.source.IsValid() {
		p.source, _ = netip.ParseAddr(l.PrefSrc) // else not known
	}
	told := &rulesPacket{Protocol: t.Protocol, Dest: dest.String(), Port: int(t.Port), Route: l.Text, Path: []string{}}
	if p.source.IsValid() {
		told.Source = p.source.String()
	}
	marks := make([]met, len(hooks))
	if l.Errno != "" {
		told.Route = "none (" + l.Errno + "): it is not sent"
		return told, marks
	}
	family := "ip"
	if dest.Is6() {
		family = "ip6"
	}
	on := isMet
	for i, at := range stations(n, family, l) {
		looped := i > 2 // what is sent to oneself has been translated, or not, when it was sent
		told.Path = append(told.Path, at.name())
		p.iif, p.oif = at.iif, at.oif
		p.stateUnknown, p.sourceUnknown, p.destUnknown = w.packet.stateUnknown, w.packet.sourceUnknown, w.packet.destUnknown
		w.packet = p
		for i, h := range hooks {
			if h.Family == at.family && h.Hook == at.hook && (h.Device == "" || h.Device == at.device) && !(looped && h.NAT) {
				marks[i] = on
				on = w.base(h, on)
			}
		}
	}
	return told, marks
}

// station is a hook that the packet comes to.
type station struct{ family, hook, device, iif, oif string }

func (s station) name() string {
	name := s.family + " " + s.hook
	if s.device != "" {
		name += " " + s.device
	}
	return name
}

// stations are the hooks of a packet that is sent from here, in order.
func stations(n *netcfg.Netns, family string, l evidence.Lookup) []station {
	dev := l.OIF
	out := []station{{family, evidence.Output, "", "", dev}, {family, evidence.Postrouting, "", "", dev}}
	if l.Type == "local" {
		return append(out, station{"netdev", evidence.Egress, "lo", "", "lo"}, station{"netdev", evidence.Ingress, "lo", "lo", ""},
			station{family, evidence.Prerouting, "", "lo", ""}, station{family, evidence.Input, "", "lo", ""})
	}
	out = append(out, station{"netdev", evidence.Egress, dev, "", dev})
	for _, link := range n.Links().Items {
		if link.Name == dev && link.Kind == "bridge" { // then the frame leaves by one of its ports
			out = append(out, station{family: "bridge", hook: evidence.Output}, station{family: "bridge", hook: evidence.Postrouting})
		}
	}
	return out
}
