// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// result of a section.
type result struct {
	Machine string
	Date    string
	Load    string // of the last minute, when the section began
	Runs    int
	Tables  []table
	Targets []target
}

// table of the document. Cells are text; those that carry figures come from [figures].
type table struct {
	Title, Note string
	Head        []string
	Rows        [][]string
}

// target is what was set as a goal, and what came of it.
type target struct {
	What     string
	Limit    float64
	Unit     string
	AtLeast  bool // Limit is the least, not the most
	Measured float64
	Reason   string // why it is not met, where it is known
	Untested string // why it was not put to the test
}

func (t target) met() bool {
	return t.AtLeast && t.Measured >= t.Limit || !t.AtLeast && t.Measured <= t.Limit
}

func (r *result) target(t target) { r.Targets = append(r.Targets, t) }

// figures are measurements of one thing.
type figures []float64

// quantile is the nearest-rank q of the figures, 0 when there are none.
func (f figures) quantile(q float64) float64 {
	if len(f) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(f))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

func (f figures) median() float64 { return f.quantile(0.5) }
func (f figures) p95() float64    { return f.quantile(0.95) }

// ratios are those of figures that were taken in pairs.
func ratios(on, off figures) (f figures) {
	for i := range min(len(on), len(off)) {
		if off[i] != 0 {
			f = append(f, on[i]/off[i])
		}
	}
	return f
}

func ms(v float64) string {
	if v == 0 {
		return "–"
	}
	return fmt.Sprintf("%.*f", map[bool]int{true: 1, false: 0}[v < 10], v)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func machine() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	model := ""
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = ", " + strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d CPUs%s, Linux %s", runtime.NumCPU(), model, unix.ByteSliceToString(u.Release[:]))
}

func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(text), " ")
	return one
}
