// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg"
	"github.com/pathtrace/pathtrace/report"
)

// routeJob is what every command about routes and ip rules is told by its flags.
type routeJob struct {
	app        *app
	ipv4, ipv6 bool
	netns      string
	json       bool

	// Of the commands that change something.
	limit      string // as it was typed
	yes, force bool
}

// newRouteCmd makes the commands about routes and ip rules.
func newRouteCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "route show|get|add|replace|del|default|rule …",
		Short: "routes and ip rules: see them, see which decides, change them without locking yourself out",
		Args:  cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badUse("route %s: route can show, get, add, replace, del, default and rule", args[0])
			}
			return badUse("route can show, get, add, replace, del, default and rule: pathtrace route show")
		},
	}
	cmd.AddCommand(newRouteShowCmd(a), newRouteGetCmd(a), newRouteDefaultCmd(a), newRuleCmd(a))
	for operation, short := range map[string]string{"add": "add a route", "replace": "put a route in another's place, or add it", "del": "delete a route"} {
		cmd.AddCommand(newRouteChangeCmd(a, operation, short))
	}
	return cmd
}

// newRuleCmd makes the commands about ip rules.
func newRuleCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rule show|add|del …",
		Short: "the rules that say which table is asked for which packet",
		Args:  cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badUse("route rule %s: route rule can show, add and del", args[0])
			}
			return badUse("route rule can show, add and del: pathtrace route rule show")
		},
	}
	cmd.AddCommand(newRuleShowCmd(a), newRuleChangeCmd(a, "add", "add an ip rule"), newRuleChangeCmd(a, "del", "delete an ip rule"))
	return cmd
}

// flags declares the flags of a command that only reads.
func (j *routeJob) flags(cmd *cobra.Command) {
	cmd.Flags().SortFlags = false
	cmd.Flags().BoolVarP(&j.ipv4, "ipv4", "4", false, "IPv4 only")
	cmd.Flags().BoolVarP(&j.ipv6, "ipv6", "6", false, "IPv6 only")
	cmd.Flags().StringVar(&j.netns, "netns", "", "in this network namespace, `NAME|PATH|PID`")
	cmd.Flags().BoolVar(&j.json, "json", false, "one JSON document on stdout")
	cmd.ValidArgsFunction = j.complete
}

// changeFlags declares those of a command that changes something.
func (j *routeJob) changeFlags(cmd *cobra.Command) {
	j.flags(cmd)
	cmd.Flags().StringVar(&j.limit, "for", "", "take it back after so long, `DUR`: 60, 500ms, 10m")
	cmd.Flags().BoolVar(&j.yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&j.force, "force", false, "also what would cut the ssh session that this runs in")
}

func (j *routeJob) family() (int, error) {
	switch {
	case j.ipv4 && j.ipv6:
		return 0, badUse("-4 and -6 exclude each other")
	case j.ipv4:
		return 4, nil
	case j.ipv6:
		return 6, nil
	}
	return 0, nil
}

// hold returns how long a change is to stay; 0: for good.
func (j *routeJob) hold() (time.Duration, error) {
	if j.limit == "" {
		return 0, nil
	}
	return duration("--for", j.limit)
}

// in runs f with the namespace that was asked for. What its error means for the exit code is decided here.
func (j *routeJob) in(f func(n *netcfg.Netns, family int) error) error {
	family, err := j.family()
	if err != nil {
		return err
	}
	n, err := openStart(j.netns)
	if err != nil {
		return err
	}
	defer n.Close()
	return routeError(f(n, family))
}

// routeError makes a [UsageError] of what was typed wrong or names what is not there, a [TraceError] of all else.
func routeError(err error) error {
	var word *netcfg.WordError
	switch {
	case errors.As(err, &word), errors.Is(err, netcfg.ErrNoChange):
		return badUse("%w", err)
	case errors.Is(err, netcfg.ErrIsThere):
		return &UsageError{Code: "exists", Err: err}
	case errors.Is(err, netcfg.ErrNotThere):
		return &UsageError{Code: "not-found", Err: err}
	case errors.Is(err, netcfg.ErrNoUndo):
		return &UsageError{Code: "no-undo", Err: err}
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		return &TraceError{Code: "privilege", Message: oneLine(err), Help: "that needs root: sudo pathtrace route …", Err: err}
	}
	return cannotTrace(err)
}

// routeDocument is what every one of the commands prints with --json, with what is its own.
type routeDocument struct {
	FormatVersion string        `json:"format_version"`
	Tool          evidence.Tool `json:"tool"`
	Netns         string        `json:"netns"`

	Routes *[]netcfg.RouteLine `json:"routes,omitempty"` // route show
	Rules  *[]evidence.IPRule  `json:"rules,omitempty"`  // route rule show
	Get    *routeAnswer        `json:"get,omitempty"`    // route get
	Change *routeChange        `json:"change,omitempty"` // all others
}

func (j *routeJob) printJSON(n *netcfg.Netns, d routeDocument) error {
	d.FormatVersion, d.Tool, d.Netns = evidence.FormatVersion, thisTool(), n.Name
	e := json.NewEncoder(&j.app.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(d)
}

// printLines prints what another tool would print, with its tabs and line ends.
func (j *routeJob) printLines(lines []string) {
	for _, line := range lines {
		parts := strings.Split(line, "\t")
		for i, part := range parts {
			cut, broken := strings.CutSuffix(part, "\n")
			if parts[i] = report.Clean(cut); broken {
				parts[i] += "\n"
			}
		}
		j.app.out.WriteString(strings.Join(parts, "\t") + "\n")
	}
}

func newRouteShowCmd(a *app) *cobra.Command {
	j := &routeJob{app: a}
	cmd := &cobra.Command{
		Use:     "show [flags] [table NAME|NUMBER|all]",
		Aliases: []string{"list", "ls"},
		Short:   "the routes of a table, main unless it is named, as ip route prints them",
		Example: "  pathtrace route show\n  pathtrace route show -6 table all --netns web",
		RunE: func(_ *cobra.Command, args []string) error {
			table := ""
			switch {
			case len(args) == 2 && (args[0] == "table" || args[0] == "t"):
				table = args[1]
			case len(args) != 0:
				return badUse("route show takes a table: route show table NAME|NUMBER|all")
			}
			return j.in(func(n *netcfg.Netns, family int) error {
				list, err := n.RouteTable(table, family)
				if err != nil {
					return err
				}
				if j.json {
					return j.printJSON(n, routeDocument{Routes: &list})
				}
				var lines []string
				for _, r := range list {
					lines = append(lines, r.Line)
				}
				j.printLines(lines)
				return nil
			})
		},
	}
	j.flags(cmd)
	return cmd
}

func newRuleShowCmd(a *app) *cobra.Command {
	j := &routeJob{app: a}
	cmd := &cobra.Command{
		Use:     "show [flags]",
		Aliases: []string{"list", "ls"},
		Short:   "the ip rules in the order in which they are asked, as ip rule prints them",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badUse("route rule show takes no words")
			}
			return j.in(func(n *netcfg.Netns, family int) error {
				s := n.IPRules()
				if s.Why() != "" {
					return errors.New(s.Why())
				}
				list := slices.DeleteFunc(s.Items, func(r evidence.IPRule) bool { return family != 0 && r.Family != family })
				if j.json {
					return j.printJSON(n, routeDocument{Rules: &list})
				}
				var lines []string
				for _, r := range list {
					lines = append(lines, strings.Replace(r.Text, ": ", ":\t", 1))
				}
				j.printLines(lines)
				return nil
			})
		},
	}
	j.flags(cmd)
	return cmd
}
