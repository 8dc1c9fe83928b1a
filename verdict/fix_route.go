// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

func ipTool(family int) []string {
	if family == 6 {
		return []string{"ip", "-6"}
	}
	return []string{"ip"}
}

// removeRoute takes an entry away, where another route then serves dest, and
// puts it back exactly. Nil when its text has more than is known how to restore.
func removeRoute(n *evidence.Namespace, r *evidence.RouteItem, dest netip.Addr) []Fix {
	words := strings.Fields(r.Text)
	if len(words) < 2 || words[0] != r.Type {
		return nil
	}
	for i := 2; i < len(words); i += 2 {
		if !slices.Contains([]string{"proto", "metric", "scope", "dev", "pref", "error", "table"}, words[i]) || i+1 == len(words) {
			return nil
		}
	}
	served := slices.ContainsFunc(n.Routes.Items, func(o evidence.RouteItem) bool {
		p, ok := prefix(&o)
		return ok && o.Family == r.Family && (o.Type == "unicast" || o.Type == "local") && p.Contains(dest)
	})
	if !served {
		return nil
	}
	spec := []string{r.Type, words[1], "table", r.Table}
	if r.Protocol != "" && r.Protocol != "boot" {
		spec = append(spec, "proto", r.Protocol)
	}
	if r.Metric != 0 {
		spec = append(spec, "metric", strconv.Itoa(r.Metric))
	}
	return []Fix{{
		Netns:    n.Name,
		Summary:  "delete the route " + strings.Join(words, " ") + " of table " + r.Table,
		Commands: []string{shell(n, append(append(ipTool(r.Family), "route", "del"), spec...)...)},
		Undo:     []string{shell(n, append(append(ipTool(r.Family), "route", "add"), spec...)...)},
	}}
}

// removeRule takes an ip rule away and puts it back. Nil when another rule has
// the same priority: their order could not be restored.
func removeRule(n *evidence.Namespace, r *evidence.IPRule) []Fix {
	same := 0
	for _, o := range n.Rules.Items {
		if o.Family == r.Family && o.Priority == r.Priority {
			same++
		}
	}
	_, text, ok := strings.Cut(r.Text, ":")
	words := strings.Fields(text)
	if same != 1 || !ok || len(words) == 0 || slices.Contains(words, "[detached]") || slices.Contains(words, "not") {
		return nil
	}
	spec := append([]string{"priority", strconv.Itoa(r.Priority)}, words...)
	return []Fix{{
		Netns:    n.Name,
		Summary:  "delete the ip rule " + strings.TrimSpace(r.Text),
		Commands: []string{shell(n, append(append(ipTool(r.Family), "rule", "del"), spec...)...)},
		Undo:     []string{shell(n, append(append(ipTool(r.Family), "rule", "add"), spec...)...)},
	}}
}
