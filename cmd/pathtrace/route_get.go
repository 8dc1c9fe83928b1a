// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg"
	"github.com/pathtrace/pathtrace/report"
)

func newRouteGetCmd(a *app) *cobra.Command {
	j := &routeJob{app: a}
	cmd := &cobra.Command{
		Use:   "get [flags] DST [from SRC] [iif DEV] [oif DEV] [mark N] [uid N] [tos N] [ipproto P] [sport N] [dport N]",
		Short: "which rule, table, route and neighbour a packet to DST gets, and what stands behind them",
		Long: "Asks the kernel which route a packet would take, as ip route get does. The kernel does not say which rule\n" +
			"led there: that is found by following the rules as the kernel does, and told where they lead to the\n" +
			"kernel's answer. What would decide if that route were gone is computed the same way.\n\n" +
			"Exit codes: 0 there is a way, 1 there is none, or a route or rule refuses, 2 usage, 4 it could not be asked.",
		Example: "  pathtrace route get 10.0.0.5\n  pathtrace route get 2001:db8::5 from 2001:db8::1 mark 7 --netns web",
		RunE: func(_ *cobra.Command, args []string) error {
			q, err := parseRouteQuery(args)
			if err != nil {
				return err
			}
			return j.in(func(n *netcfg.Netns, family int) error {
				if family == 4 && !q.Dest.Is4() || family == 6 && !q.Dest.Is6() {
					return badUse("%s is not an IPv%d address (-%d)", q.Dest, family, family)
				}
				return j.get(n, q)
			})
		},
	}
	j.flags(cmd)
	return cmd
}

// parseRouteQuery reads the words of ip route get. Names are not looked up.
func parseRouteQuery(args []string) (q netcfg.RouteQuery, err error) {
	if len(args) > 0 && args[0] == "to" {
		args = args[1:]
	}
	if len(args) == 0 {
		return q, badUse("route get: which destination? route get ADDRESS")
	}
	if q.Dest, err = routeAddress(args[0]); err != nil {
		return q, err
	}
	for rest := args[1:]; len(rest) > 0; rest = rest[2:] {
		if len(rest) == 1 {
			return q, badUse("route get: a value must follow %s", rest[0])
		}
		if err := routeWord(&q, rest[0], rest[1]); err != nil {
			return q, err
		}
	}
	switch {
	case q.Source.IsValid() && q.Source.Is4() != q.Dest.Is4():
		return q, badUse("%s and %s are not of one family", q.Dest, q.Source)
	case q.IIF != "" && q.OIF != "":
		return q, badUse("iif and oif exclude each other")
	case q.IIF != "" && !q.Source.IsValid():
		return q, badUse("a packet that comes in has a source: from ADDRESS iif %s", q.IIF)
	}
	return q, nil
}

func routeWord(q *netcfg.RouteQuery, word, value string) (err error) {
	number := func(bits, base int) (n uint64) {
		if n, err = strconv.ParseUint(strings.TrimPrefix(value, map[int]string{16: "0x"}[base]), base, bits); err != nil {
			err = badUse("%s %s: not a number of %d bits", word, value, bits)
		}
		return n
	}
	switch word {
	case "from":
		q.Source, err = routeAddress(value)
	case "iif":
		q.IIF = value
	case "oif", "dev":
		q.OIF = value
	case "mark":
		q.Mark = uint32(number(32, 0))
	case "uid":
		uid := uint32(number(32, 0))
		q.UID = &uid
	case "tos", "dsfield":
		q.TOS = uint8(number(8, 16))
	case "sport":
		q.SPort = uint16(number(16, 0))
	case "dport":
		q.DPort = uint16(number(16, 0))
	case "ipproto":
		known := map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "icmp": unix.IPPROTO_ICMP, "ipv6-icmp": unix.IPPROTO_ICMPV6}
		if p, ok := known[value]; ok {
			q.Protocol = p
		} else {
			q.Protocol = uint8(number(8, 0))
		}
	default:
		return badUse("route get: %s is not one of from, iif, oif, mark, uid, tos, ipproto, sport, dport", word)
	}
	return err
}

func routeAddress(word string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(word, "["), "]"))
	if err != nil || addr.Zone() != "" {
		return addr, badUse("%s is not an address", word)
	}
	return addr.Unmap(), nil
}

// routeAnswer is what route get prints as JSON.
type routeAnswer struct {
	Answer   evidence.Lookup     `json:"answer"`             // the kernel's
	Rule     *evidence.IPRule    `json:"rule,omitempty"`     // that decided, or led to the table; absent: none, or see open
	Route    *evidence.RouteItem `json:"route,omitempty"`    // that decided; absent: the rule itself, none, or see open
	Neighbor *evidence.Neighbor  `json:"neighbor,omitempty"` // whose link address is needed
	Next     *netcfg.RouteNext   `json:"next,omitempty"`     // what would decide if that were gone
	Open     []string            `json:"open"`               // what is not established
}

func (j *routeJob) get(n *netcfg.Netns, q netcfg.RouteQuery) error {
	e, err := n.Explain(q)
	if err != nil {
		return err
	}
	if e.Answer.Errno != "" {
		j.app.code = exitCause
	}
	x := routeAnswer{Answer: e.Answer, Rule: e.Rule, Route: e.Route, Neighbor: e.Neighbor, Next: e.Next, Open: append([]string{}, e.Open...)}
	if j.json {
		return j.printJSON(n, routeDocument{Get: &x})
	}
	printRouteAnswer(&j.app.out, n.Name, x)
	return nil
}

func printRouteAnswer(w io.Writer, netns string, x routeAnswer) {
	say := func(label, format string, args ...any) {
		fmt.Fprintf(w, "  %-9s %s\n", label, report.Clean(fmt.Sprintf(format, args...)))
	}
	a := x.Answer
	head := "✓ " + a.Dest + wayOut(a)
	if a.Errno != "" {
		head = "✗ " + a.Dest + ": " + refusal(a.Errno, x.Rule, x.Route)
	}
	fmt.Fprintln(w, report.Clean(head+" in "+netns))
	if x.Rule != nil {
		say("rule", "%s", x.Rule.Text)
	}
	if x.Route != nil {
		say("table", "%s", x.Route.Table)
		say("route", "%s", x.Route.Text)
	} else if a.Text != "" {
		say("table", "%s", a.Table)
		say("route", "%s", a.Text)
	}
	if nb := x.Neighbor; nb != nil {
		say("neighbor", "%s", neighborText(*nb))
	}
	if x.Next != nil {
		say("without", "%s", nextText(*x.Next))
	}
	for _, s := range x.Open {
		say("open", "%s", s)
	}
}

// wayOut says where the packet goes.
func wayOut(a evidence.Lookup) string {
	var b strings.Builder
	if a.Type != "unicast" && a.Type != "" {
		b.WriteString(" is " + a.Type)
	}
	if a.Gateway != "" {
		b.WriteString(" via " + a.Gateway)
	}
	if a.OIF != "" {
		b.WriteString(" dev " + a.OIF)
	}
	if src := a.PrefSrc; src != "" {
		b.WriteString(" from " + src)
	} else if a.Source != "" {
		b.WriteString(" from " + a.Source)
	}
	return b.String()
}

// refusal names what refuses, or what is missing.
func refusal(errno string, rule *evidence.IPRule, route *evidence.RouteItem) string {
	switch {
	case route != nil:
		return "a route of type " + route.Type + " refuses it (" + errno + ")"
	case rule != nil:
		return "an ip rule refuses it (" + errno + ")"
	case errno == "EADDRNOTAVAIL":
		return "the source is not an address of this namespace (" + errno + ")"
	case errno == "ENETUNREACH":
		return "no route (" + errno + ")"
	}
	return "refused (" + errno + ")"
}

func neighborText(n evidence.Neighbor) string {
	switch n.State {
	case "NONE":
		return n.Address + " dev " + n.Device + ": not asked for yet"
	case "NOARP":
		return n.Address + " dev " + n.Device + ": the device needs none"
	}
	text := n.Address + " dev " + n.Device
	if n.MAC != "" {
		text += " lladdr " + n.MAC
	}
	return text + " " + n.State
}

// nextText says what would decide instead.
func nextText(next netcfg.RouteNext) string {
	switch {
	case next.Route != nil && next.Rule != nil:
		return fmt.Sprintf("%s, table %s, by ip rule %d", next.Route.Text, next.Route.Table, next.Rule.Priority)
	case next.Route != nil:
		return fmt.Sprintf("%s, table %s", next.Route.Text, next.Route.Table)
	case next.Rule != nil:
		return fmt.Sprintf("ip rule %s would refuse it (%s)", next.Rule.Text, next.Errno)
	}
	return "no route (" + next.Errno + ")"
}
