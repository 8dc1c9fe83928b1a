// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/report"
)

// newJudgeCmd makes the command that repeats the verdict from what was saved.
func newJudgeCmd(a *app) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "judge [flags] BUNDLE|CASE.json|-",
		Short: "the verdict again, from a bundle or what --json printed: on any machine, without root",
		Example: "  sudo pathtrace -o case.zip 10.0.0.5:80\n" +
			"  pathtrace judge case.zip",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badUse("judge takes one file, a bundle or what --json printed; - is standard input")
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
	results, err := a.judgeAll(name)
	if err != nil {
		return err
	}
	return a.printAll(results, o)
}

// judgeAll judges each case of a file anew.
func (a *app) judgeAll(name string) ([]result, error) {
	cases, err := a.openCases(name)
	if err != nil {
		return nil, err
	}
	results := make([]result, 0, len(cases))
	for _, c := range cases {
		results = append(results, result{c, a.judge(&c)})
	}
	return results, nil
}

// openCases reads the case of a bundle, or those of what --json printed; - is standard input.
func (a *app) openCases(name string) ([]evidence.Case, error) {
	if name == "-" {
		return readCases("standard input", a.stdin, nil)
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, noCase(err)
	}
	defer file.Close()
	return readCases(name, file, file)
}

// readCases reads from in; archive is the same where it can be read at any place.
func readCases(name string, in io.Reader, archive *os.File) (cases []evidence.Case, err error) {
	buffered := bufio.NewReader(in)
	head, _ := buffered.Peek(4) // an error shows again below
	switch {
	case report.IsBundle(head) && archive == nil:
		err = errors.New("a bundle cannot be read from a pipe: name the file")
	case report.IsBundle(head):
		var info fs.FileInfo
		if info, err = archive.Stat(); err == nil {
			cases = make([]evidence.Case, 1)
			cases[0], err = report.ReadBundle(archive, info.Size())
		}
	default:
		cases, err = report.ReadCases(buffered)
	}
	var path *fs.PathError
	switch {
	case errors.As(err, &path):
		return nil, noCase(err)
	case err != nil:
		return nil, noCase(fmt.Errorf("%s: %w", name, err))
	}
	return cases, nil
}

func noCase(err error) error { return &UsageError{Code: "case", Err: err} }
