// SPDX-License-Identifier: Apache-2.0

// Command bench measures what pathtrace costs, beside what people would use
// instead, and writes docs/benchmarks.md. Every section makes its own networks of
// namespaces and removes them; what is compared is run in turn, so that a busy
// machine is busy for all.
//
//	bench [-n RUNS] [-only SECTION,…] [-o FILE] [-state FILE] PATHTRACE
//
// What was measured is kept in the state file: a section that is run alone
// replaces its own rows there, and the document is written from all of them. The
// document names the day of each section.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/internal/lab"
)

// section of the document; each can be run alone.
type section struct {
	name string
	run  func(context.Context, *bench) error
}

var sections = []section{
	{"size", size},
	{"cold", cold},
	{"programs", programs},
	{"others", others},
	{"rules", growRules},
	{"routes", growRoutes},
	{"namespaces", growNamespaces},
	{"sockets", growSockets},
	{"packets", growPackets},
	{"hops", hops},
	{"ssh", overSSH},
}

// bench is one run of the program.
type bench struct {
	pathtrace string
	runs      int
	now       *result // of the section that is run
}

func main() {
	lab.Helper()
	var only, out, state string
	b := &bench{}
	flag.IntVar(&b.runs, "n", 50, "`runs` of each command; a fifth of it where growth is measured, a tenth where ways are followed")
	flag.StringVar(&only, "only", "", "run these `sections` alone: "+strings.Join(names(), ","))
	flag.StringVar(&out, "o", "docs/benchmarks.md", "write the document to this `file`")
	flag.StringVar(&state, "state", "dist/bench.json", "keep what was measured in this `file`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	err := b.main(ctx, only, out, state)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func names() (all []string) {
	for _, s := range sections {
		all = append(all, s.name)
	}
	return all
}

func (b *bench) main(ctx context.Context, only, out, state string) error {
	if flag.NArg() != 1 || b.runs < 1 {
		return errors.New("usage: bench [-n RUNS] [-only SECTION,…] [-o FILE] [-state FILE] PATHTRACE")
	}
	var err error
	if b.pathtrace, err = filepath.Abs(flag.Arg(0)); err != nil {
		return err
	}
	if _, err := exec.LookPath(b.pathtrace); err != nil {
		return err
	}
	wanted := names()
	if only != "" {
		wanted = strings.Split(only, ",")
	}
	for _, name := range wanted {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("no section %q: there are %s", name, strings.Join(names(), ", "))
		}
	}
	results, err := readState(state)
	if err != nil {
		return err
	}
	var failed []error
	for _, s := range sections {
		if !slices.Contains(wanted, s.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", s.name)
		b.now = &result{Machine: machine(), Date: time.Now().UTC().Format(time.DateOnly), Load: load(), Runs: b.runs}
		if err := s.run(ctx, b); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", s.name, err))
			if ctx.Err() != nil {
				break
			}
			continue // the rows of an earlier run stay
		}
		results[s.name] = b.now
		if err := writeState(state, results); err != nil {
			return err
		}
	}
	if err := os.WriteFile(out, document(results), 0o644); err != nil {
		return err
	}
	return errors.Join(failed...)
}

func readState(name string) (map[string]*result, error) {
	results := map[string]*result{}
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return results, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &results); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return results, nil
}

func writeState(name string, results map[string]*result) error {
	text, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o644)
}
