// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/internal/lab"
)

// Hosts in a row, of which only the client's namespace is watched: who ends the
// way is found by walking it.
func TestBeyondThisHost(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	bin := build(t)
	const routers, port = 4, 8080
	forward := func(rule string) string {
		return "table inet way { chain f { type filter hook forward priority filter; policy accept; " + rule + "; }; }"
	}
	type found struct {
		Cause string
		TTL   int
		Last  bool // the hop is the router of that TTL
	}
	for i, c := range []struct {
		name  string
		hop   int
		rules string
		want  found
	}{
		{"dropped", 3, forward("tcp dport 8080 drop"), found{"remote-silent", 3, true}},
		{"reset", 2, forward("tcp dport 8080 reject with tcp reset"), found{"remote-reset", 2, true}},
		{"refused", 3, forward("tcp dport 8080 reject with icmpx admin-prohibited"), found{"remote-unreachable", 3, true}},
		{"closed", 4, forward("tcp dport 8081 drop"), found{"remote-reset", 5, false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l, err := lab.NewLine(fmt.Sprintf("ptb%x-%d", os.Getpid(), i), routers)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
			if err := l.Nft(lab.Hop(c.hop), c.rules); err != nil {
				t.Fatal(err)
			}
			for _, family := range []int{4, 6} {
				server := netip.AddrPortFrom(lab.LineAddr(routers, family, true), port)
				out, _ := exec.Command(bin, "--json", "-n", "--scope", "netns", "--netns", l.Netns(lab.Client), "-w", "1500ms", server.String()).Output()
				var a struct {
					Verdict struct {
						Cause string
						Where struct {
							Hop struct {
								TTL     int
								Address string
							}
						}
					}
				}
				if err := json.Unmarshal(out, &a); err != nil {
					t.Fatal(err)
				}
				hop := a.Verdict.Where.Hop
				last := hop.TTL > 0 && hop.TTL <= routers && hop.Address == lab.LineAddr(hop.TTL-1, family, true).String()
				if diff := cmp.Diff(c.want, found{a.Verdict.Cause, hop.TTL, last}); diff != "" {
					t.Errorf("IPv%d (-want +got):\n%s\n%s", family, diff, out)
				}
			}
		})
	}
}
