// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/pathtrace/pathtrace/internal/lab"
)

// demoDefaults are tried in this order: the first whose tools are installed is shown.
var demoDefaults = []string{"legacy-input", "iptables-nft-input", "nft-input"}

// Exit codes of the demo's own; the others are those of the main job.
const (
	demoUsage  = 2
	demoFailed = 4
)

// newDemoCmd makes the command `demo`. The main job is injected as run, which takes its
// arguments as a user would type them and returns its exit code; exit is told the code of the demo.
// The command's context must end at a signal, so that the lab is removed then too.
func newDemoCmd(run func(ctx context.Context, args []string) int, exit func(code int)) *cobra.Command {
	var list bool
	cmd := &cobra.Command{
		Use:   "demo [FAULT] [-- FLAGS]",
		Short: "build a throw-away lab of namespaces, break it, trace it, tear it down",
		Long: `Builds a client, a router and a server of network namespaces, breaks the path between them
in one way, traces a connection through it, and removes the lab again.
Nothing outside those namespaces is touched. Flags after -- go to the trace.`,
		Example: "  sudo pathtrace demo\n  sudo pathtrace demo rp-filter\n  sudo pathtrace demo nft-jumps -- --json",
		Args: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); n > 1 || n < 0 && len(args) > 1 {
				return fmt.Errorf("one fault at a time; `pathtrace demo --list` shows them")
			}
			return nil
		},
		ValidArgsFunction: completeFault,
		Run: func(cmd *cobra.Command, args []string) {
			if list {
				listFaults(cmd.OutOrStdout())
				exit(0)
				return
			}
			name := ""
			if len(args) > 0 && cmd.ArgsLenAtDash() != 0 {
				name, args = args[0], args[1:]
			}
			exit(demo(cmd.Context(), cmd.ErrOrStderr(), name, args, run))
		},
	}
	cmd.Flags().BoolVar(&list, "list", false, "show what can be broken")
	return cmd
}

func completeFault(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if len(args) == 0 {
		for _, f := range lab.Faults() {
			names = append(names, f.Name+"\t"+f.Summary)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func listFaults(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FAULT\tCAUSE\tWHAT IS WRONG")
	for _, f := range lab.Faults() {
		fmt.Fprintf(table, "%s\t%s\t%s\n", f.Name, f.Cause, f.Summary)
	}
	table.Flush()
}

// demo builds, breaks, traces and removes a lab; it returns the exit code.
func demo(ctx context.Context, stderr io.Writer, name string, flags []string, run func(context.Context, []string) int) int {
	fail := func(code int, format string, args ...any) int {
		fmt.Fprintf(stderr, "pathtrace demo: "+format+"\n", args...)
		return code
	}
	f, err := chooseFault(name)
	if err != nil {
		return fail(demoUsage, "%v", err)
	}
	if os.Geteuid() != 0 {
		return fail(demoFailed, "a lab of network namespaces needs root: sudo pathtrace demo")
	}
	if missing := lab.Missing(f); missing != nil {
		return fail(demoFailed, "%s needs %s, which is not installed", f.Name, strings.Join(missing, ", "))
	}
	if err := lab.Sweep(); err != nil {
		fail(0, "%v", err) // what an earlier demo left does not hinder this one
	}
	l, err := lab.Start(fmt.Sprintf("ptdemo%d", os.Getpid()), f)
	if err != nil {
		return fail(demoFailed, "%v", err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			fail(0, "%v", err)
		}
	}()
	leave, err := l.Join()
	if err != nil {
		return fail(demoFailed, "%v", err)
	}
	defer leave() // before the lab is closed: a cgroup with a process in it cannot be removed
	fmt.Fprintf(stderr, "lab: namespaces %s - %s - %s; broken (%s): %s\n",
		l.Netns(lab.Client), l.Netns(lab.Router), l.Netns(lab.Server), f.Name, f.Summary)
	return run(ctx, slices.Concat([]string{"--netns", l.Netns(lab.Client)}, f.Arguments(l), flags))
}

func chooseFault(name string) (lab.Fault, error) {
	if name != "" {
		f, ok := lab.Find(name)
		if !ok {
			return f, fmt.Errorf("no fault is called %q; `pathtrace demo --list` shows them", name)
		}
		return f, nil
	}
	for _, name := range demoDefaults {
		if f, ok := lab.Find(name); ok && lab.Missing(f) == nil {
			return f, nil
		}
	}
	return lab.Fault{}, fmt.Errorf("neither iptables nor nft is installed: apt-get install iptables nftables")
}
