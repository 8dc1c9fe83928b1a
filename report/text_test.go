// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pathtrace/pathtrace/verdict"
)

func text(t *testing.T, s *story, o Options) string {
	t.Helper()
	var b bytes.Buffer
	if err := Text(&b, &s.c, s.v, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestNothingHostileReachesTheTerminal(t *testing.T) {
	for _, o := range []Options{{}, {Verbose: 2}, {Quiet: true}, {Width: 60}} {
		s := text(t, hostile(), o)
		for _, r := range s {
			if r != '\n' && (r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x202e || r == utf8.RuneError) {
				t.Errorf("%+v: %q reaches the terminal", o, r)
				break
			}
		}
	}
}

// TestColour: the colours are ours alone, and without them the text is the same.
func TestColour(t *testing.T) {
	sgr := regexp.MustCompile("\x1b\\[[0-9]+m")
	for name, tell := range stories {
		plain, colour := text(t, tell(), Options{}), text(t, tell(), Options{Color: true})
		if !sgr.MatchString(colour) {
			t.Errorf("%s: no colour", name)
		}
		if got := sgr.ReplaceAllString(colour, ""); got != plain {
			t.Errorf("%s: colours change the text:\n%s", name, got)
		}
	}
	if s := text(t, nftDrop(), Options{Color: true}); !strings.Contains(s, "\x1b[31m✗ DROP\x1b[0m") {
		t.Errorf("a drop is not red:\n%s", s)
	}
	if s := text(t, reachable(), Options{Color: true}); !strings.Contains(s, "\x1b[32m✓") {
		t.Errorf("success is not green:\n%s", s)
	}
}

func TestWidth(t *testing.T) {
	const width = 72
	s := nftDrop()
	got := text(t, s, Options{Width: width})
	for _, cmd := range append(s.v.Fixes[0].Commands, s.v.Fixes[0].Undo...) {
		if !strings.Contains(got, cmd) {
			t.Errorf("a command was broken: %s", cmd)
		}
	}
	for _, l := range strings.Split(got, "\n")[1:] {
		if utf8.RuneCountInString(l) > width && !strings.Contains(l, "ip netns exec") {
			t.Errorf("wider than %d: %s", width, l)
		}
	}
	if words(got) != words(text(t, s, Options{})) {
		t.Errorf("wrapping changes the words:\n%s", got)
	}
}

func words(s string) string { return strings.Join(strings.Fields(s), " ") }

func TestShortEnough(t *testing.T) {
	for name, tell := range stories {
		if n := strings.Count(text(t, tell(), Options{}), "\n"); n > 30 {
			t.Errorf("%s: %d lines", name, n)
		}
	}
}

func TestQuiet(t *testing.T) {
	if got := text(t, nftDrop(), Options{Quiet: true}); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "✗ 10.77.2.2:80/tcp: ") {
		t.Errorf("got %q", got)
	}
}

func TestVerdictLine(t *testing.T) {
	for _, c := range []struct {
		v    verdict.Verdict
		want string
	}{
		{verdict.Verdict{Cause: "firewall-drop", Certainty: verdict.Observed, Summary: "10.77.2.2:80/tcp: dropped by x"}, "✗ DROPPED by x\n"},
		{verdict.Verdict{Cause: "firewall-drop", Certainty: verdict.Inferred, Summary: "the reply was dropped by x"}, "✗ the reply was DROPPED by x (inferred)\n"},
		{verdict.Verdict{Cause: "no-route", Certainty: verdict.Observed, Summary: "no route: the packet was dropped"}, "✗ no route: the packet was dropped\n"},
		{verdict.Verdict{Cause: "reachable", Certainty: verdict.Observed, Summary: "10.77.2.2:80/tcp: reachable: connected"}, "✓ reachable: connected\n"},
		{verdict.Verdict{Cause: "reachable", Certainty: verdict.Observed}, "✓ reachable\n"},
		{verdict.Verdict{Cause: "unexplained", Certainty: verdict.None, Summary: "10.77.2.2:80/tcp: not explained: a"}, "? not established: a\n"},
	} {
		s := newStory()
		s.v = c.v
		got := text(t, s, Options{})
		if _, line, _ := strings.Cut(got, "\n"); !strings.Contains(line, c.want) {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// TestNothingKnown: an empty case is printable, whatever made it.
func TestNothingKnown(t *testing.T) {
	if got := text(t, &story{v: verdict.Verdict{}}, Options{Verbose: 2}); !strings.Contains(got, "✗") {
		t.Errorf("got %q", got)
	}
}

type brokenPipe struct{}

var errPipe = errors.New("pipe")

func (brokenPipe) Write([]byte) (int, error) { return 0, errPipe }

func TestWriteErrors(t *testing.T) {
	s := reachable()
	if err := Text(brokenPipe{}, &s.c, s.v, Options{}); !errors.Is(err, errPipe) {
		t.Errorf("text: %v", err)
	}
	if err := JSON(brokenPipe{}, NewDocument(s.c, s.v)); !errors.Is(err, errPipe) {
		t.Errorf("json: %v", err)
	}
}
