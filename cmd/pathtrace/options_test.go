// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"
)

// typed parses flags as the main job does.
func typed(t *testing.T, a *app, args ...string) (Options, error) {
	t.Helper()
	var f flags
	s := pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, g := range f.groups() {
		s.AddFlagSet(g.FlagSet)
	}
	if err := s.Parse(args); err != nil {
		return Options{}, err
	}
	return f.options(a)
}

func quietApp(env map[string]string, tty bool) *app {
	return &app{
		stdin:    strings.NewReader("from stdin"),
		getenv:   func(k string) string { return env[k] },
		terminal: func(any) (int, bool) { return 80, tty },
	}
}

func TestOptions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "say")
	if err := os.WriteFile(file, []byte("HELO\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]Options{
		"":                            {},
		"-4":                          {Family: 4},
		"-6n":                         {Family: 6, Numeric: true},
		"-s 10.0.0.1 -p 1024":         {Family: 4, Source: netip.MustParseAddr("10.0.0.1"), SourcePort: 1024},
		"-6 --source fe80::1%eth0":    {Family: 6, Source: netip.MustParseAddr("fe80::1%eth0")},
		"-i eth0 --mark 0x7":          {Device: "eth0", Mark: 7},
		"--mark 4294967295":           {Mark: 1<<32 - 1},
		"--netns web":                 {Netns: "web"},
		"--pid 1":                     {Netns: "/proc/1/ns/net"},
		"-w 1":                        {Timeout: time.Second},
		"-w0.5":                       {Timeout: 500 * time.Millisecond},
		"--timeout=1m30s":             {Timeout: 90 * time.Second},
		"--send x":                    {Send: []byte("x")},
		"--send @" + file:             {Send: []byte("HELO\r\n")},
		"--send @-":                   {Send: []byte("from stdin")},
		"--hooks tracepoint":          {Hooks: "tracepoint"},
		"--hooks fentry":              {Hooks: "fentry"},
		"--hooks kprobe":              {Hooks: "kprobe"},
		"--scope netns --no-touch":    {OwnOnly: true, NoTouch: true},
		"--json -q -vv --timing":      {JSON: true, Quiet: true, Verbose: 2, Timing: true},
		"--verbose --color=always":    {Verbose: 1, Color: true},
		"--color never --scope=host ": {},
	} {
		got, err := typed(t, quietApp(nil, false), strings.Fields(line)...)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if want.Timeout == 0 {
			want.Timeout = 3 * time.Second
		}
		if want.Hooks == "" {
			want.Hooks = "auto"
		}
		want.Width = 80
		if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}), cmpopts.IgnoreFields(Options{}, "Clock", "Expect")); d != "" {
			t.Errorf("%s (-want +got):\n%s", line, d)
		}
	}
	if o, err := typed(t, quietApp(nil, false), "--expect", "^220 "); err != nil || !o.Expect.MatchString("220 hello") {
		t.Errorf("--expect: %v, %v", o.Expect, err)
	}
}

func TestOptionErrors(t *testing.T) {
	for line, want := range map[string]string{
		"-4 -6":                                  "-4 and -6 exclude each other",
		"-s here":                                "-s here: not an address",
		"-6 -s 10.0.0.1":                         "-s 10.0.0.1 is not an IPv6 address",
		"-p 0":                                   "-p: port 0 is not one of 1 to 65535",
		"-p 70000":                               "-p: port 70000",
		"-i a/b":                                 "-i a/b: not a device name",
		"-i sixteen-letters0":                    "not a device name",
		"--mark -1":                              "--mark -1: not a number of 32 bits",
		"--mark 0x1ffffffff":                     "not a number of 32 bits",
		"--netns a --pid 1":                      "--netns, --pid and --container exclude each other",
		"--pid me":                               "--pid me: not a process id",
		"--pid 0":                                "not a process id",
		"--pid 2147483647":                       "no such process",
		"-w 0":                                   "-w 0",
		"-w -1s":                                 "longer than nothing",
		"-w soon":                                "-w soon: not a duration such as 3, 0.5 or 500ms",
		"-w NaN":                                 "not a duration",
		"-w Inf":                                 "not a duration",
		"--send @/no/such/file":                  "--send: open /no/such/file: no such file or directory",
		"--send @/dev/zero":                      "larger than 1024 KiB",
		"--expect (":                             "--expect: error parsing regexp",
		"--hooks telepathy":                      "--hooks telepathy: it takes auto, fentry, kprobe, tracepoint",
		"--scope world":                          "--scope world: it takes host, netns",
		"--color red":                            "--color red: it takes auto, always, never",
		"--raw":                                  "unknown flag: --raw",
		"--container web":                        "--container \"web\": an identifier has",
		"--container " + strings.Repeat("0", 64): "no process of such a container",
		"--container 3f2a --pid 1":               "exclude each other",
	} {
		_, err := typed(t, quietApp(nil, false), strings.Fields(line)...)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %q", line, err, want)
			continue
		}
		exit, _, _ := failure(err)
		wantExit := exitUsage
		if strings.Contains(want, "not available") {
			wantExit = exitNoTrace
		}
		if exit != wantExit {
			t.Errorf("%s: exit %d, want %d", line, exit, wantExit)
		}
	}
}

func TestColour(t *testing.T) {
	for _, c := range []struct {
		flag string
		env  map[string]string
		tty  bool
		want bool
	}{
		{"auto", nil, true, true},
		{"auto", nil, false, false},
		{"auto", map[string]string{"NO_COLOR": "1"}, true, false},
		{"auto", map[string]string{"NO_COLOR": ""}, true, true},
		{"auto", map[string]string{"TERM": "dumb"}, true, false},
		{"never", nil, true, false},
		{"always", map[string]string{"NO_COLOR": "1", "TERM": "dumb"}, false, true},
	} {
		o, err := typed(t, quietApp(c.env, c.tty), "--color", c.flag)
		if err != nil || o.Color != c.want {
			t.Errorf("%+v: %v, %v", c, o.Color, err)
		}
	}
}
