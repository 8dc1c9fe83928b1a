// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg"
	"github.com/pathtrace/pathtrace/verdict"
)

// A person is asked; anything but yes is no.
func TestRouteAsks(t *testing.T) {
	path := ownNetns(t)
	t.Setenv("PATHTRACE_STATE_DIR", t.TempDir())
	n, err := netcfg.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	call := func(answer string, args ...string) (*fake, int) {
		f := newFake(evidence.Case{}, verdict.Verdict{}, nil)
		f.tty, f.app.stdin = true, strings.NewReader(answer)
		return f, f.run(t.Context(), append([]string{"route"}, append(args, "--netns", path)...))
	}
	for answer, made := range map[string]bool{"y\n": true, "Yes\n": true, "n\n": false, "\n": false, "": false, "yep\n": false} {
		f, code := call(answer, "add", "blackhole", "10.20.0.0/16")
		list, err := n.RouteTable("", 4)
		if want := map[bool]int{true: 0, false: 2}[made]; err != nil || code != want || made != (len(list) == 1) ||
			!strings.Contains(f.stderr.String(), "Go on? [y/N] ") {
			t.Errorf("%q: exit %d: %+v %s", answer, code, list, f.stderr.String())
		}
		if !made {
			continue
		}
		if f, code := call("", "del", "10.20.0.0/16", "--yes"); code != 0 {
			t.Fatal(f.stderr.String())
		}
	}
}
