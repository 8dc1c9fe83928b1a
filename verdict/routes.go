// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// failure is what the routing tables said instead of a route.
type failure struct {
	errno  string   // ENETUNREACH none, EINVAL blackhole, EHOSTUNREACH unreachable, EACCES prohibit
	table  string   // the one that answered so, or the last that was asked
	table6 []string // IPv6: tables that answered "unreachable", which an empty one does as well
	told   bool     // table answered so itself
	seen   bool     // told by the kernel about our packet, not by asking afterwards
	proof  []string
}

// routeCause is the cause id for a failure.
var routeCause = map[string]string{
	"ENETUNREACH": "no-route", "EINVAL": "route-blackhole", "EHOSTUNREACH": "route-unreachable", "EACCES": "route-prohibit",
}

// ruleErrno is what the kernel answers for an ip rule with that action.
var ruleErrno = map[string]string{"unreachable": "ENETUNREACH", "prohibit": "EACCES", "blackhole": "EINVAL"}

// noRoute says why the namespace of e had no way to dest for the packet of e;
// nil when it had one, or when that cannot be told. errno is what the drop
// itself says about the class; empty when it says nothing.
func noRoute(c *evidence.Case, e *evidence.Event, n *evidence.Namespace, dest netip.Addr, errno string) *failure {
	f := &failure{errno: errno, seen: errno != ""}
	asked := routesAsked(c, e, dest)
	for i, r := range asked {
		switch r.Route.Errno {
		case "":
			// a rule may suppress what a table found, and the next table is asked
			if r.Route.OIF != "" && errno == "" && !suppressed(n, asked[i+1:]) {
				return nil // a table had a way
			}
			f.table = r.Route.Table
		case "EINVAL", "EACCES", "EHOSTUNREACH":
			if r.Route.Errno == "EHOSTUNREACH" && dest.Is6() {
				f.table, f.table6 = r.Route.Table, append(f.table6, r.Route.Table)
				continue
			}
			f.errno, f.table, f.seen, f.told = r.Route.Errno, r.Route.Table, true, true
			f.proof = append(f.proof, "table "+r.Route.Table+" was asked for "+dest.String()+" and answered "+r.Route.Errno)
			return f
		default:
			f.table = r.Route.Table
		}
	}
	l := lookup(n, dest, inDevice(e))
	if l != nil && l.Errno != "" && (f.errno == "" || dest.Is6() && f.errno == "ENETUNREACH") && routeCause[l.Errno] != "" {
		f.errno = l.Errno
		f.seen = f.seen || len(asked) > 0
		f.proof = append(f.proof, "asked for the route to "+dest.String()+", the kernel answers "+l.Errno)
		if f.table == "" || l.Errno != "ENETUNREACH" && l.Table != "" {
			f.table = l.Table
		}
	}
	if f.errno == "" || l != nil && l.Errno == "" && errno == "" {
		return nil
	}
	if len(asked) > 0 && f.errno == "ENETUNREACH" {
		f.proof = append(f.proof, "tables asked for "+dest.String()+", without a route: "+tables(asked))
	}
	return f
}

// suppressed reports whether a way that was found was not taken: a rule with
// suppress_prefixlength or suppress_ifgroup is there, and another table, one without a way, was asked next.
func suppressed(n *evidence.Namespace, next []*evidence.Event) bool {
	return suppresses(n) && len(next) > 0 && next[0].Route.Errno != ""
}

func suppresses(n *evidence.Namespace) bool {
	return slices.ContainsFunc(n.Rules.Items, func(r evidence.IPRule) bool { return strings.Contains(r.Text, " suppress_") })
}

func tables(asked []*evidence.Event) string {
	var list []string
	for _, r := range asked {
		if !contains(list, r.Route.Table) {
			list = append(list, r.Route.Table)
		}
	}
	if n := len(list); n > 6 {
		return fmt.Sprintf("%d of them, %s … %s", n, strings.Join(list[:3], ", "), list[n-1])
	}
	return strings.Join(list, ", ")
}

// inDevice is where a forwarded packet came in; empty for one made by this host.
func inDevice(e *evidence.Event) string {
	if e.Kind == evidence.Drop && !e.InTask && at(e, "ip_error", "ip6_pkt_discard", "ip6_pkt_prohibit", "dst_discard") {
		return e.Device
	}
	return ""
}

// ipRule finds the rule that ended the search with f.errno. sure is false when
// that cannot be told from a search that merely found nothing.
func ipRule(c *evidence.Case, e *evidence.Event, n *evidence.Namespace, dest netip.Addr, f *failure) (found *evidence.IPRule, sure bool) {
	if !n.Rules.Read() {
		return nil, false
	}
	family := 4
	if dest.Is6() {
		family = 6
	}
	asked := map[string]bool{}
	for _, r := range routesAsked(c, e, dest) {
		asked[r.Route.Table] = true
	}
	last := -1
	var rules []*evidence.IPRule
	for i := range n.Rules.Items {
		r := &n.Rules.Items[i]
		if r.Family != family {
			continue
		}
		if r.Action == "lookup" && asked[r.Table] {
			last = len(rules)
		}
		rules = append(rules, r)
	}
	var candidates []*evidence.IPRule
	for _, r := range rules[last+1:] {
		if r.Action == "lookup" && everyone(r) && tableExists(n, r.Table, family) && len(asked) > 0 {
			return one(candidates), true // this table would have been asked had no rule decided before
		}
		if ruleErrno[r.Action] != f.errno {
			continue
		}
		candidates = append(candidates, r)
		if everyone(r) {
			return one(candidates), true
		}
	}
	return nil, len(candidates) == 0
}

func one(rules []*evidence.IPRule) *evidence.IPRule {
	if len(rules) == 1 {
		return rules[0]
	}
	return nil
}

// everyone reports whether the rule has no selector: "32766: from all lookup main".
func everyone(r *evidence.IPRule) bool {
	w := strings.Fields(r.Text)
	if len(w) < 4 || w[1] != "from" || w[2] != "all" {
		return false
	}
	return w[3] == r.Action || w[3] == "lookup" && len(w) == 5
}

func tableExists(n *evidence.Namespace, table string, family int) bool {
	for _, r := range n.Routes.Items {
		if r.Table == table && r.Family == family {
			return true
		}
	}
	return false
}

// refusing finds the entry that made the tables answer f.errno; nil when it was an ip rule, or was not read.
func refusing(n *evidence.Namespace, dest netip.Addr, kind string, f *failure) *evidence.RouteItem {
	if f.told {
		return entry(n, dest, kind, f.table)
	}
	for _, t := range f.table6 {
		if r := entry(n, dest, kind, t); r != nil {
			return r
		}
	}
	return nil
}

// entry finds the route of a type that matches dest most closely in a table.
func entry(n *evidence.Namespace, dest netip.Addr, kind, table string) *evidence.RouteItem {
	var best *evidence.RouteItem
	bits := -1
	for i := range n.Routes.Items {
		r := &n.Routes.Items[i]
		if r.Type != kind || r.Table != table {
			continue
		}
		p, ok := prefix(r)
		if ok && p.Contains(dest) && (p.Bits() > bits || p.Bits() == bits && r.Metric < best.Metric) {
			best, bits = r, p.Bits()
		}
	}
	return best
}

func prefix(r *evidence.RouteItem) (netip.Prefix, bool) {
	if r.Dest == "default" {
		if r.Family == 6 {
			return netip.PrefixFrom(netip.IPv6Unspecified(), 0), true
		}
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
	}
	if p, err := netip.ParsePrefix(r.Dest); err == nil {
		return p.Masked(), true
	}
	a, ok := parseAddr(r.Dest)
	if !ok {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}
