// SPDX-License-Identifier: Apache-2.0

// Command gen writes the table of docs/requirements.md, kernel by hooks by
// fact, from what the tests saw on each kernel: tracer/testdata/*.facts.json.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	begin = "<!-- The table is written by go generate ./tracer. -->\n"
	end   = "<!-- end of the table -->\n"
)

// column is one kernel with one family of hooks.
type column struct {
	kernel, hooks string
	by            map[string]string // by fact; "" for what is not told
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: gen TESTDATA FILE")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "writing the requirements:", err)
		os.Exit(1)
	}
}

func write(testdata, file string) error {
	facts, columns, err := read(testdata)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return fmt.Errorf("%s has no place for the table", file)
	}
	return os.WriteFile(file, []byte(before+begin+"\n"+table(facts, columns)+"\n"+end+after), 0o644)
}

// read returns the facts in the order of the tests, and who told them, the oldest kernel first.
func read(testdata string) (facts []string, columns []column, err error) {
	files, err := filepath.Glob(filepath.Join(testdata, "*.facts.json"))
	if err != nil {
		return nil, nil, err
	}
	if len(files) == 0 {
		return nil, nil, errors.New("no results in " + testdata)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, nil, err
		}
		var told []struct{ Fact, By string }
		if err := json.Unmarshal(text, &told); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", f, err)
		}
		c := column{by: map[string]string{}}
		c.kernel, c.hooks, _ = strings.Cut(strings.TrimSuffix(filepath.Base(f), ".facts.json"), "-")
		for _, x := range told {
			c.by[x.Fact] = x.By
			if !slices.Contains(facts, x.Fact) {
				facts = append(facts, x.Fact)
			}
		}
		columns = append(columns, c)
	}
	slices.SortFunc(columns, func(a, b column) int {
		return cmp.Or(slices.Compare(version(a.kernel), version(b.kernel)), strings.Compare(a.hooks, b.hooks))
	})
	return facts, columns, nil
}

func version(kernel string) (parts []int) {
	for p := range strings.SplitSeq(kernel, ".") {
		n, _ := strconv.Atoi(p)
		parts = append(parts, n)
	}
	return parts
}

func table(facts []string, columns []column) string {
	var b strings.Builder
	b.WriteString("| fact |")
	for _, c := range columns {
		fmt.Fprintf(&b, " %s %s |", c.kernel, c.hooks)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	for _, f := range facts {
		fmt.Fprintf(&b, "| %s |", f)
		for _, c := range columns {
			fmt.Fprintf(&b, " %s |", cmp.Or(c.by[f], "–"))
		}
		b.WriteString("\n")
	}
	return b.String()
}
