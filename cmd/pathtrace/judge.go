// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/pathtrace/pathtrace/report"
)

// newJudgeCmd makes the command that repeats the verdict from what was saved.
func newJudgeCmd(a *app) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "judge [flags] CASE.json|-",
		Short: "the verdict again, from what --json printed: on any machine, without root",
		Example: "  sudo pathtrace --json 10.0.0.5:80 >case.json\n" +
			"  pathtrace judge case.json",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badUse("judge takes one file, as --json printed it; - is standard input")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			o, err := f.options(a)
			if err != nil {
				return err
			}
			return a.judgeFile(o, args[0])
		},
	}
	cmd.Flags().AddFlagSet(f.output().FlagSet)
	return cmd
}

func (a *app) judgeFile(o Options, name string) error {
	in := a.stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return noCase(err)
		}
		defer file.Close()
		in = file
	}
	return a.judgeFrom(o, name, in)
}

func (a *app) judgeFrom(o Options, name string, in io.Reader) error {
	if name == "-" {
		name = "standard input"
	}
	c, err := report.ReadCase(in)
	var path *fs.PathError
	switch {
	case errors.As(err, &path):
		return noCase(err)
	case err != nil:
		return noCase(fmt.Errorf("%s: %w", name, err))
	}
	v := a.judge(&c)
	a.code = exitCode(v)
	return a.print(c, v, o, nil)
}

func noCase(err error) error { return &UsageError{Code: "case", Err: err} }
