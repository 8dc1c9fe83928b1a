// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"
)

// newRulesCmd makes the command about firewall rules.
func newRulesCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rules show|try …",
		Short: "the firewall as it stands, with counters; a guarded trial of a rule",
		RunE: func(*cobra.Command, []string) error {
			return badUse("rules can show and try: pathtrace rules show [TARGET], pathtrace rules try TARGET")
		},
		Args: cobra.ArbitraryArgs,
	}
	cmd.AddCommand(newRulesShowCmd(a), newRulesTryCmd(a))
	return cmd
}

// newRulesTryCmd makes the main job with --verify-fix, for firewall rules alone.
func newRulesTryCmd(a *app) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "try [flags] TARGET",
		Short: "trace, let the packet pass the rule that stopped it, trace again, and take that back",
		Long: "Traces TARGET as the main job does. Where a firewall rule or policy stops the packet, it inserts the\n" +
			"smallest rule that lets this exchange pass, traces again, and takes the rule back: then it is known whether that\n" +
			"was the only thing in the way. A guard process takes it back when this one is killed, loses its\n" +
			"terminal, or takes longer than --for. The exit code is that of the first trace.",
		Example: "  sudo pathtrace rules try 10.0.0.5:80\n  sudo pathtrace rules try --yes --for 10s --netns web 10.0.0.5 443",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.verifyFix = true
			o, err := f.options(a)
			if err != nil {
				return err
			}
			o.Trial.RulesOnly = true
			return a.main(cmd.Context(), o, args)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	for _, g := range f.groups() {
		cmd.Flags().AddFlagSet(g.FlagSet)
	}
	_ = cmd.Flags().MarkHidden("verify-fix") // fails only for a flag that is not there
	_ = cmd.Flags().MarkHidden("version")
	return cmd
}
