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
	s, err := a.openCase(name)
	if err != nil {
		return err
	}
	d := s.Document(a.judge, thisTool())
	a.code = exitCode(d.Verdict)
	for _, r := range d.Results {
		a.code = max(a.code, exitCode(r.Verdict))
	}
	return a.printSaved(&s, d, o)
}

// printSaved prints what was saved and judged anew. That it was judged otherwise
// when it was recorded is said beside it.
func (a *app) printSaved(s *report.Saved, d report.Document, o Options) error {
	if was := d.Recorded; was != nil {
		fmt.Fprintf(a.stderr, "pathtrace: judged anew by %s; %s, which recorded it, said %s (%s): %s\n", d.JudgedBy.Version,
			report.Clean(d.Tool.Version), report.Clean(was.Cause), report.Clean(string(was.Certainty)), report.Clean(was.Summary))
	}
	if !o.JSON {
		for _, other := range s.Others {
			if err := a.print(report.NewDocument(other, a.judge(&other)), o); err != nil {
				return err
			}
			if !o.Quiet {
				a.out.WriteByte('\n')
			}
		}
	}
	return a.print(d, o)
}

// openCase reads a bundle, or what --json printed; - is standard input.
func (a *app) openCase(name string) (report.Saved, error) {
	if name == "-" {
		return readCase("standard input", a.stdin, nil)
	}
	file, err := os.Open(name)
	if err != nil {
		return report.Saved{}, noCase(err)
	}
	defer file.Close()
	return readCase(name, file, file)
}

// readCase reads from in; archive is the same where it can be read at any place.
func readCase(name string, in io.Reader, archive *os.File) (report.Saved, error) {
	buffered := bufio.NewReader(in)
	head, _ := buffered.Peek(4) // an error shows again below
	var s report.Saved
	var err error
	switch {
	case report.IsBundle(head) && archive == nil:
		err = errors.New("a bundle cannot be read from a pipe: name the file")
	case report.IsBundle(head):
		var info fs.FileInfo
		if info, err = archive.Stat(); err == nil {
			s, err = report.ReadBundle(archive, info.Size())
		}
	default:
		s, err = report.ReadCase(buffered)
	}
	var path *fs.PathError
	switch {
	case errors.As(err, &path):
		return s, noCase(err)
	case err != nil:
		return s, noCase(fmt.Errorf("%s: %w", name, err))
	}
	return s, nil
}

func noCase(err error) error { return &UsageError{Code: "case", Err: err} }
