// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pathtrace/pathtrace/netcfg/guard"
	"github.com/pathtrace/pathtrace/report"
)

// newUndoCmd makes the command that takes back what is left of changes.
func newUndoCmd(a *app) *cobra.Command {
	var list bool
	cmd := &cobra.Command{
		Use:   "undo [--list] [ID ...]",
		Short: "take back what a killed run has changed, or a change that waits for its deadline",
		Long: "Takes back the changes of runs that were killed together with their guard; every other run of\n" +
			"pathtrace as root does that as well. A change that is still being watched over is taken back before\n" +
			"its deadline where its ID is given.",
		Example: "  sudo pathtrace undo --list\n  sudo pathtrace undo\n  sudo pathtrace undo 5d1f0a3c",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if list && len(args) > 0 {
				return badUse("undo --list shows all, and takes no ID")
			}
			if list {
				return a.listChanges()
			}
			return a.undo(cmd.Context(), args)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			pending, _ := guard.List() // what can be read is offered
			var ids []string
			for _, p := range pending {
				ids = append(ids, p.Record.ID+"\t"+report.Clean(p.Record.What))
			}
			return ids, cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.Flags().BoolVar(&list, "list", false, "show the changes that were not taken back yet")
	return cmd
}

func (a *app) listChanges() error {
	pending, err := guard.List()
	if err != nil && len(pending) == 0 {
		return cannotUndo(err)
	}
	if len(pending) > 0 {
		w := tabwriter.NewWriter(&a.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "ID\tMADE\tNAMESPACE\tSTATE\tCHANGE")
		for _, p := range pending {
			r := p.Record
			state := "left behind"
			if !p.Left {
				state = fmt.Sprintf("pid %d, until %s", r.Who.PID, r.Deadline.Format(time.TimeOnly))
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.ID, r.Made.Format(time.DateTime), report.Clean(r.Namespace.Name), state, report.Clean(r.What))
		}
		w.Flush()
	}
	if err != nil {
		return cannotUndo(err)
	}
	return nil
}

// undo takes back what was left behind, and what is asked for by its ID.
func (a *app) undo(ctx context.Context, ids []string) error {
	pending, err := guard.List()
	if err != nil && len(pending) == 0 {
		return cannotUndo(err)
	}
	known := map[string]guard.Pending{}
	for _, p := range pending {
		known[p.Record.ID] = p
	}
	for _, id := range ids {
		p, ok := known[id]
		if !ok {
			return badUse("undo %s: there is no such change; `pathtrace undo --list` shows them", id)
		}
		if !p.Left {
			if err := p.Record.End(ctx); err != nil {
				return cannotUndo(err)
			}
			fmt.Fprintf(&a.out, "%s: taken back in %s: %s\n", id, report.Clean(p.Record.Namespace.Name), report.Clean(p.Record.What))
		}
	}
	done, err := guard.Replay()
	for _, r := range done {
		fmt.Fprintln(&a.out, undoneLine(r))
	}
	if err != nil {
		return cannotUndo(err)
	}
	return nil
}

func undoneLine(r guard.Result) string {
	s := fmt.Sprintf("%s: ", r.Record.ID)
	switch {
	case r.Error != "":
		s += "not taken back in "
	case r.Note != "":
		s += "nothing to take back (" + r.Note + ") in "
	default:
		s += "taken back in "
	}
	return report.Clean(s + r.Record.Namespace.Name + ": " + r.Record.What)
}

// cannotUndo ends the program as one that could not do what it should.
func cannotUndo(err error) error {
	return &TraceError{Code: "undo", Message: strings.ReplaceAll(err.Error(), "\n", "; "), Err: err}
}

// replay takes back what killed runs have left, before this one looks at anything, and tells of
// the changes that are being tried. What fails is told, and does not keep anybody from his trace.
func (a *app) replay() {
	if os.Geteuid() != 0 {
		return
	}
	done, err := guard.Replay()
	for _, r := range done {
		fmt.Fprintln(a.stderr, "pathtrace: of a run that was killed: "+undoneLine(r))
	}
	if err != nil {
		fmt.Fprintln(a.stderr, "pathtrace: of a run that was killed: "+report.Clean(strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	pending, _ := guard.List() // what cannot be read was told just now
	for _, p := range pending {
		if r := p.Record; !p.Left {
			fmt.Fprintln(a.stderr, report.Clean(fmt.Sprintf("pathtrace: a change is in force until %s, which this run may see: %s: %s", r.Deadline.Format(time.TimeOnly), r.Namespace.Name, r.What)))
		}
	}
}
