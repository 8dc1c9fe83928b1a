// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
)

// timing is where our own time went, as the JSON has it.
func timing(s *stopwatch) map[string]int64 {
	m := map[string]int64{}
	for _, l := range s.laps {
		key := strings.Map(func(r rune) rune {
			if unicode.IsLetter(r) || unicode.IsDigit(r) {
				return r
			}
			return '_'
		}, l.what)
		m[strings.ReplaceAll(key, "__", "_")+"_ns"] += int64(l.took)
	}
	return m
}

func printTiming(w io.Writer, s *stopwatch) {
	for _, l := range s.laps {
		fmt.Fprintf(w, "timing  %9.2f ms  %s\n", float64(l.took)/float64(time.Millisecond), l.what)
	}
}
