// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pathtrace/pathtrace/netcfg"
	"github.com/pathtrace/pathtrace/netcfg/guard"
	"github.com/pathtrace/pathtrace/report"
)

const routeGrammar = "The words are those of ip route:\n\n" +
	"  [unicast|local|broadcast|multicast|anycast|blackhole|unreachable|prohibit|throw] PREFIX|default\n" +
	"  [via [inet6] GATEWAY] [dev DEVICE] [onlink] [table TABLE] [metric N] [src ADDRESS] [proto PROTOCOL]\n" +
	"  [scope SCOPE] [tos TOS] [from PREFIX] [pref low|medium|high] [expires N] [realm REALM] [nhid ID]\n" +
	"  [mtu|advmss|window|rtt|rttvar|hoplimit|initcwnd|… [lock] N] [features ecn] [congctl NAME]\n" +
	"  [nexthop [via GATEWAY] [dev DEVICE] [weight N] [onlink]]…\n\n"

const ruleGrammar = "The words are those of ip rule:\n\n" +
	"  [not] [from PREFIX] [to PREFIX] [iif DEVICE] [oif DEVICE] [fwmark MARK[/MASK]] [uidrange N-M]\n" +
	"  [ipproto PROTOCOL] [sport N[-M]] [dport N[-M]] [tos TOS] [tun_id N] [priority N]\n" +
	"  lookup TABLE [suppress_prefixlength N] [suppress_ifgroup GROUP] | l3mdev | goto N | nop |\n" +
	"  blackhole | unreachable | prohibit   [realms REALMS] [protocol PROTOCOL]\n\n"

const changeHelp = "What will be done and how to take it back is printed first; on a terminal it asks. With --for it is taken back by\n" +
	"itself, also if this process, its terminal or the connection to it is gone by then. What would cut the ssh session\n" +
	"that this runs in is refused.\n\n" +
	"Exit codes: 0 done, 2 usage, or there is no such thing, 4 the kernel refuses; with 2 and 4 nothing was changed."

func newRouteChangeCmd(a *app, operation, short string) *cobra.Command {
	j := &routeJob{app: a}
	cmd := &cobra.Command{
		Use:     operation + " [flags] ROUTE",
		Short:   short,
		Long:    strings.ToUpper(short[:1]) + short[1:] + ".\n\n" + routeGrammar + changeHelp,
		Example: "  sudo pathtrace route " + map[string]string{"del": "del 10.9.0.0/16"}[operation] + map[bool]string{true: operation + " --for 60s 10.9.0.0/16 via 10.0.0.1 metric 5"}[operation != "del"],
		RunE: func(cmd *cobra.Command, args []string) error {
			return j.changeRoute(cmd.Context(), operation, args)
		},
	}
	if operation == "del" {
		cmd.Aliases = []string{"delete"}
	}
	j.changeFlags(cmd)
	return cmd
}

func newRouteDefaultCmd(a *app) *cobra.Command {
	j := &routeJob{app: a}
	cmd := &cobra.Command{
		Use:     "default [flags] GATEWAY [dev DEVICE] [metric N] [table TABLE] …",
		Short:   "set the default route, as replace default via GATEWAY does",
		Long:    "Puts a default route in the place of the one with the same metric, or adds it.\n\n" + changeHelp,
		Example: "  sudo pathtrace route default --for 60s 10.0.0.1",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return badUse("route default: by which gateway? route default ADDRESS")
			}
			if _, err := routeAddress(args[0]); err != nil {
				return err
			}
			return j.changeRoute(cmd.Context(), "replace", append([]string{"default", "via"}, args...))
		},
	}
	j.changeFlags(cmd)
	return cmd
}

func newRuleChangeCmd(a *app, operation, short string) *cobra.Command {
	j := &routeJob{app: a}
	cmd := &cobra.Command{
		Use:     operation + " [flags] RULE",
		Short:   short,
		Long:    strings.ToUpper(short[:1]) + short[1:] + ".\n\n" + ruleGrammar + changeHelp,
		Example: "  sudo pathtrace route rule " + operation + " priority 100 from 10.9.0.0/16 lookup 77",
		RunE: func(cmd *cobra.Command, args []string) error {
			return j.change(cmd.Context(), func(n *netcfg.Netns, family int) (*netcfg.Change, error) {
				w, err := n.ParseRule(family, args)
				if err != nil {
					return nil, err
				}
				return n.PlanRule(operation, w)
			})
		},
	}
	if operation == "del" {
		cmd.Aliases = []string{"delete"}
	}
	j.changeFlags(cmd)
	return cmd
}

func (j *routeJob) changeRoute(ctx context.Context, operation string, words []string) error {
	return j.change(ctx, func(n *netcfg.Netns, family int) (*netcfg.Change, error) {
		w, err := n.ParseRoute(family, words)
		if err != nil {
			return nil, err
		}
		return n.PlanRoute(operation, w)
	})
}

// change plans, asks, makes the change and says how to take it back.
func (j *routeJob) change(ctx context.Context, plan func(*netcfg.Netns, int) (*netcfg.Change, error)) error {
	hold, err := j.hold()
	if err != nil {
		return err
	}
	return j.in(func(n *netcfg.Netns, family int) error {
		j.app.replay() // what a killed run has left would be in the way of the undo
		c, err := plan(n, family)
		if err != nil {
			return err
		}
		if err := j.mayCut(n, c); err != nil {
			return err
		}
		if err := j.app.canAsk(j.yes); err != nil {
			return err
		}
		if !j.app.agreed(ctx, j.planText(n, c, hold), j.yes) {
			return badUse("nothing was changed: it was not confirmed")
		}
		done, err := j.make(n, c, hold)
		if err != nil {
			return err
		}
		if j.json {
			return j.printJSON(n, routeDocument{Change: &done})
		}
		j.printChange(n, done)
		return nil
	})
}

// mayCut refuses what takes the ssh session's packets another way.
func (j *routeJob) mayCut(n *netcfg.Netns, c *netcfg.Change) error {
	s, ok := currentSession()
	if !ok || j.force {
		return nil
	}
	if _, here, err := n.Connection(s.server, s.peer); err == nil && !here && s.netns != n.Inode {
		return nil
	}
	if why := c.Cuts(s.server, s.peer); why != "" {
		return &UsageError{Code: "session", Err: fmt.Errorf("nothing was changed: it would cut the ssh session that this runs in: %s; --force does it", why)}
	}
	return nil
}

func (j *routeJob) planText(n *netcfg.Netns, c *netcfg.Change, hold time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "in %s: %s\n", report.Clean(n.Name), report.Clean(c.What))
	if hold > 0 {
		fmt.Fprintf(&b, "  to be taken back after %s\n", hold)
	}
	for _, line := range undoLines(n, c) {
		fmt.Fprintf(&b, "  undo  %s\n", report.Clean(line))
	}
	return b.String()
}

// undoLines are the lines of the undo as they are to be typed where pathtrace was started.
func undoLines(n *netcfg.Netns, c *netcfg.Change) []string {
	var lines []string
	for _, line := range c.Undo {
		lines = append(lines, strings.Join(append(n.Enter(), line), " "))
	}
	return lines
}

// settling is how long a change that is to stay may take: until then its guard
// takes it back if this process is killed in the middle.
const settling = 30 * time.Second

// routeChange is what was done.
type routeChange struct {
	What  string     `json:"what"`
	Undo  []string   `json:"undo"`            // commands, to be run where pathtrace was started
	Until *time.Time `json:"until,omitempty"` // when it is taken back; absent: it stays
	ID    string     `json:"id,omitempty"`    // with until: pathtrace undo ID takes it back sooner
}

// make makes the change under a guard, which holds it to the deadline if it has one.
func (j *routeJob) make(n *netcfg.Netns, c *netcfg.Change, hold time.Duration) (routeChange, error) {
	done := routeChange{What: c.What, Undo: undoLines(n, c)}
	limit := hold
	if limit == 0 {
		limit = settling
	}
	g, err := guard.Arm(guard.Change{Netns: n, What: c.What, Undo: c.Undo, For: limit})
	if err != nil {
		return done, err
	}
	if err := c.Apply(); err != nil {
		return done, errors.Join(err, g.Drop())
	}
	if hold == 0 {
		return done, g.Keep()
	}
	until := g.Deadline()
	done.Until, done.ID = &until, g.ID()
	return done, g.Detach()
}

func (j *routeJob) printChange(n *netcfg.Netns, done routeChange) {
	w := &j.app.out
	fmt.Fprintf(w, "✓ in %s: %s\n", report.Clean(n.Name), report.Clean(done.What))
	for _, line := range done.Undo {
		fmt.Fprintf(w, "  undo   %s\n", report.Clean(line))
	}
	if done.Until != nil {
		fmt.Fprintf(w, "  until  %s; sooner: pathtrace undo %s\n", done.Until.Format(time.TimeOnly), done.ID)
	}
}
