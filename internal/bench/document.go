// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

const preface = `# What it costs

Made by ` + "`make bench`" + ` (` + "`make bench KERNEL=6.12`" + ` writes [benchmarks-6.12.md](benchmarks-6.12.md)): do not edit. Times go from the start of a
process to its end, as its parent sees it; what is compared was run in turn on the same target. p95 is the
95th percentile by nearest rank. Memory is the highest resident set of the process, of its children where that is more; – is unknown.
Where the load average was high others were working on the machine at the same time, and the figures are too high for it: ratios still hold.

`

const emulated = `This machine is emulated, instruction by instruction (QEMU TCG): each time is many times that of a real one, and differs from run to
run. What can be compared are the rows of one table. The targets are those of [benchmarks.md](benchmarks.md), and are not judged here.

`

// document is docs/benchmarks.md. Sections that were not run on a machine without targets are left out.
func document(results map[string]*result) []byte {
	var b bytes.Buffer
	b.WriteString(preface)
	hardware := true
	for _, r := range results {
		hardware = hardware && !strings.Contains(r.Machine, "QEMU TCG")
	}
	if !hardware {
		b.WriteString(emulated)
	}
	targets := table{Title: "Targets", Head: []string{"target", "limit", "measured", ""}}
	for _, s := range sections {
		r := results[s.name]
		if r == nil {
			continue
		}
		for _, t := range r.Targets {
			targets.Rows = append(targets.Rows, t.row())
		}
	}
	if hardware {
		targets.write(&b)
	}
	for _, s := range sections {
		r := results[s.name]
		if r == nil && !hardware {
			continue
		}
		if r == nil {
			fmt.Fprintf(&b, "## %s\n\nNot measured yet.\n\n", s.name)
			continue
		}
		for _, t := range r.Tables {
			t.write(&b)
		}
		fmt.Fprintf(&b, "%s; %s; load average %s before; %d runs.\n\n", r.Machine, r.Date, r.Load, r.Runs)
	}
	return append(bytes.TrimRight(b.Bytes(), "\n"), '\n')
}

func (t target) row() []string {
	sign, verdict := "≤ ", "met"
	if t.AtLeast {
		sign = "≥ "
	}
	if t.Untested != "" {
		verdict = "**not tested**: " + t.Untested
	} else if !t.met() {
		verdict = "**not met**"
		if t.Reason != "" {
			verdict += ": " + t.Reason
		}
	}
	number := func(v float64) string {
		return strconv.FormatFloat(v, 'f', map[bool]int{true: 0, false: 1}[v == float64(int(v))], 64)
	}
	return []string{t.What, sign + number(t.Limit) + " " + t.Unit, number(t.Measured) + " " + t.Unit, verdict}
}

func (t table) write(b *bytes.Buffer) {
	fmt.Fprintf(b, "## %s\n\n", t.Title)
	if t.Note != "" {
		fmt.Fprintf(b, "%s\n\n", t.Note)
	}
	line := func(cells []string) {
		for i := range cells {
			cells[i] = strings.ReplaceAll(cells[i], "|", "\\|")
		}
		fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
	}
	line(t.Head)
	b.WriteString(strings.Repeat("|---", len(t.Head)) + "|\n")
	for _, row := range t.Rows {
		line(row)
	}
	b.WriteString("\n")
}
