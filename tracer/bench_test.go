// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"testing"

	"github.com/pathtrace/pathtrace/tracer"
)

// BenchmarkOpen is what every run pays before its probe leaves.
func BenchmarkOpen(b *testing.B) {
	for b.Loop() {
		t, err := tracer.Open(tracer.Options{NetnsName: func(uint32) string { return "" }, Take: func(tracer.Record) {}})
		if err != nil {
			b.Fatal(err)
		}
		t.Close()
	}
}
