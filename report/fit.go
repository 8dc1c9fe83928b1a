// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"slices"
)

// enough is how many stations fit on a screen together with the verdict.
const enough = 20

// merge tells once what happened more than once. Of drops it keeps the number.
func merge(lines []line) []line {
	var out []line
	first := map[line]int{}
	times := map[int]int{}
	for _, l := range lines {
		same := l
		same.at = 0
		if i, ok := first[same]; ok {
			times[i]++
			continue
		}
		first[same] = len(out)
		out = append(out, l)
	}
	for i, n := range times {
		if out[i].mark != "" {
			out[i].mark += fmt.Sprintf(" (%d times)", n+1)
		}
	}
	return out
}

// fit leaves out the least telling stations where there are too many, and says
// so. Of equals those in the middle go first: how the way began and where it
// ended tell most. What is vital stays.
func fit(lines []line) []line {
	cut := len(lines) - enough
	if cut <= 0 {
		return lines
	}
	var spare []int
	for i, l := range lines {
		if l.rank != vital {
			spare = append(spare, i)
		}
	}
	margin := func(i int) int { return min(i, len(lines)-1-i) }
	slices.SortStableFunc(spare, func(a, b int) int {
		return cmp.Or(cmp.Compare(lines[b].rank, lines[a].rank), cmp.Compare(margin(b), margin(a)))
	})
	spare = spare[:min(cut, len(spare))]
	gone := map[int]bool{}
	for _, i := range spare {
		gone[i] = true
	}
	var out []line
	for i, l := range lines {
		if !gone[i] {
			out = append(out, l)
		}
	}
	if len(gone) > 0 {
		out = append(out, line{at: untimed, station: "…", text: fmt.Sprintf("%d more with -v", len(gone))})
	}
	return out
}
