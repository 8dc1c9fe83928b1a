// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pathtrace/pathtrace/report"
)

var reportFormats = []string{"text", "md", "html", "json", "otlp"}

// newReportCmd makes the command that prints what was saved in another form.
func newReportCmd(a *app) *cobra.Command {
	var f flags
	format := "text"
	cmd := &cobra.Command{
		Use:   "report [flags] BUNDLE|CASE.json|-",
		Short: "what was saved as text, md, html, json or otlp: on any machine, without root",
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
	cmd.Flags().StringVar(&format, "format", format, "text, md, html, json or otlp (OpenTelemetry)")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(reportFormats, cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that is not there
	cmd.Flags().AddFlagSet(f.output().FlagSet)
	return cmd
}

// report prints a saved case. It ends well when it could: the verdict is not about this run.
func (a *app) report(o Options, name, format string) error {
	s, err := a.openCase(name)
	if err != nil {
		return err
	}
	d := s.Document(a.judge, thisTool())
	switch format {
	case "md":
		return report.Markdown(&a.out, &d)
	case "html":
		return report.HTML(&a.out, &d)
	case "otlp":
		all := []report.Document{d}
		for _, other := range s.Others {
			all = append(all, report.NewDocument(other, a.judge(&other)))
		}
		return report.OTLP(&a.out, all)
	case "json":
		o.JSON = true
	}
	return a.printSaved(&s, d, o)
}
