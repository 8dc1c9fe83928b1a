// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pathtrace/pathtrace/report"
)

var reportFormats = []string{"text", "md", "html", "json"}

// newReportCmd makes the command that prints what was saved in another form.
func newReportCmd(a *app) *cobra.Command {
	var f flags
	format := "text"
	cmd := &cobra.Command{
		Use:   "report [flags] BUNDLE|CASE.json|-",
		Short: "what was saved as text, md, html or json: on any machine, without root",
		Example: "  sudo pathtrace -o case.zip 10.0.0.5:80\n" +
			"  pathtrace report case.zip --format html >case.html",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badUse("report takes one file, a bundle or what --json printed; - is standard input")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if !slices.Contains(reportFormats, format) {
				return badUse("--format %s: it takes %s", format, strings.Join(reportFormats, ", "))
			}
			o, err := f.options(a)
			if err != nil {
				return err
			}
			return a.report(o, args[0], format)
		},
	}
	cmd.Flags().StringVar(&format, "format", format, "text, md, html or json")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(reportFormats, cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that is not there
	cmd.Flags().AddFlagSet(f.output().FlagSet)
	return cmd
}

// report prints a saved case; of several addresses md and html show the worst. It
// ends well when it could: the verdict is not about this run.
func (a *app) report(o Options, name, format string) error {
	results, err := a.judgeAll(name)
	if err != nil {
		return err
	}
	r := results[worst(results)]
	switch format {
	case "md":
		return report.Markdown(&a.out, &r.c, r.v)
	case "html":
		return report.HTML(&a.out, &r.c, r.v)
	case "json":
		o.JSON = true
	}
	err = a.printAll(results, o)
	a.code = 0
	return err
}
