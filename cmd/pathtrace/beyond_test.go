// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/internal/lab"
)

// Hosts in a row, of which only the client's namespace is watched: where on the
// way the fault lies is found by walking it, or said not to be known.
func TestBeyondThisHost(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	bin := build(t)
	for i, p := range lab.Placements() {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			l, err := lab.StartPlacement(fmt.Sprintf("ptb%x-%d", os.Getpid(), i), p)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
			var both sync.WaitGroup
			for _, family := range []int{4, 6} {
				both.Go(func() { tellPlace(t, bin, l, p, family) })
			}
			both.Wait()
		})
	}
}

// tellPlace traces the target of p, and compares where the fault is said to be with where it is.
func tellPlace(t *testing.T, bin string, l *lab.Lab, p lab.Placement, family int) {
	type hop struct {
		TTL     int
		Address string
	}
	type found struct {
		Cause string
		Hop   hop
	}
	args := []string{"--json", "-n", "--scope", "netns", "--netns", l.Netns(lab.Client), "-w", "1s", lab.LineTarget(family).String()}
	if p.Talk {
		args = append(args, lab.LineTalk...)
	}
	out, _ := exec.Command(bin, args...).Output() // the exit code says that there is a fault
	var a struct {
		Verdict struct {
			Cause string
			Where struct{ Hop hop }
		}
	}
	if err := json.Unmarshal(out, &a); err != nil {
		t.Error(err)
	}
	want := found{p.Cause, hop{TTL: p.TTL}}
	if p.Hop != 0 {
		want.Hop.Address = p.Address(family).String()
	}
	if diff := cmp.Diff(want, found{a.Verdict.Cause, a.Verdict.Where.Hop}); diff != "" {
		t.Errorf("IPv%d (-want +got):\n%s\n%s", family, diff, out)
	}
}
