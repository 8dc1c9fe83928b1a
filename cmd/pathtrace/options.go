// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pathtrace/pathtrace/internal/peer"
	"github.com/pathtrace/pathtrace/netcfg"
	"github.com/pathtrace/pathtrace/report"
	"github.com/pathtrace/pathtrace/tracer"
)

// Options are the flags of the main job, checked.
type Options struct {
	Family     int        // 4 or 6 where only that may be used, else 0
	UDP        bool       // a datagram, not a connection
	Numeric    bool       // no name lookups of any kind
	Source     netip.Addr // invalid: the kernel chooses
	SourcePort uint16     // 0: any free one
	Device     string
	Mark       uint32
	Netns      string // where the probe starts: NAME, PATH or PID; empty: here

	Timeout time.Duration
	Send    []byte         // nil: say nothing
	Expect  *regexp.Regexp // nil: nothing need be heard

	Hooks   string // auto, fentry, kprobe or tracepoint
	OwnOnly bool   // watch only the probe's own namespace
	NoTouch bool   // add no trace rule

	Way  *peer.Way // to the other end; nil: it is not watched
	Peer *peerHost // the other end, once it was come to

	Bundle string // where to write the evidence; empty: nowhere
	Redact bool
	Attach func(ctx context.Context, bundle []byte) error            // to the ticket; nil: there is none
	Export func(ctx context.Context, probes []report.Document) error // to a collector; nil: there is none

	Trial *Trial // of the fix; nil: none

	JSON    bool
	Quiet   bool
	Verbose int
	Color   bool
	Width   int // of the terminal; 0: not one
	Timing  bool
	Clock   *stopwatch // never nil
}

// maxSend bounds what --send takes from a file: the probe says it in one go.
const maxSend = 1 << 20

// options checks the flags as they were typed.
func (f *flags) options(a *app) (Options, error) {
	o := Options{
		UDP: f.udp, Numeric: f.numeric, OwnOnly: f.scope == "netns", NoTouch: f.noTouch, Hooks: string(f.hooks),
		Bundle: string(f.bundle), Redact: f.redact, JSON: f.json, Quiet: f.quiet, Verbose: f.verbose, Timing: f.timing, Clock: &stopwatch{},
	}
	for _, check := range []func(*Options) error{f.where, f.wait, f.kernel, f.other, f.save, f.tryOut} {
		if err := check(&o); err != nil {
			return o, err
		}
	}
	if err := f.say(&o, a.stdin); err != nil {
		return o, err
	}
	var err error
	if f.ticket != "" {
		if o.Attach, err = a.ticketFlag(string(f.ticket)); err != nil {
			return o, err
		}
	}
	if f.otlp != "" {
		if o.Export, err = a.otlpFlag(string(f.otlp)); err != nil {
			return o, err
		}
	}
	o.Color, o.Width, err = f.paint(a)
	return o, err
}

func (f *flags) where(o *Options) (err error) {
	switch {
	case f.ipv4 && f.ipv6:
		return badUse("-4 and -6 exclude each other")
	case f.ipv4:
		o.Family = 4
	case f.ipv6:
		o.Family = 6
	}
	if f.source != "" {
		if o.Source, err = netip.ParseAddr(string(f.source)); err != nil {
			return badUse("-s %s: not an address", f.source)
		}
		o.Source = o.Source.Unmap()
		if o.Family != 0 && o.Family != family(o.Source) {
			return badUse("-s %s is not an IPv%d address", f.source, o.Family)
		}
		o.Family = family(o.Source)
	}
	if f.port != "" {
		if o.SourcePort, err = parsePort(string(f.port)); err != nil {
			return badUse("-p: %w", err)
		}
	}
	o.Device = string(f.device)
	// The kernel's own rule for names (dev_valid_name).
	if len(o.Device) > 15 || strings.ContainsAny(o.Device, "/ \t\n") {
		return badUse("-i %s: not a device name", f.device)
	}
	if f.mark != "" {
		m, err := strconv.ParseUint(string(f.mark), 0, 32)
		if err != nil {
			return badUse("--mark %s: not a number of 32 bits", f.mark)
		}
		o.Mark = uint32(m)
	}
	return f.start(o)
}

func (f *flags) start(o *Options) error {
	switch {
	case f.netns != "" && f.pid != "", f.container != "" && (f.netns != "" || f.pid != ""):
		return badUse("--netns, --pid and --container exclude each other")
	case f.container != "":
		pid, err := netcfg.Container(string(f.container))
		if err != nil {
			return badUse("--%w", err)
		}
		o.Netns = fmt.Sprintf("/proc/%d/ns/net", pid)
	case f.netns != "":
		o.Netns = string(f.netns)
	case f.pid != "":
		n, err := strconv.ParseUint(string(f.pid), 10, 31)
		if err != nil || n == 0 {
			return badUse("--pid %s: not a process id", f.pid)
		}
		o.Netns = fmt.Sprintf("/proc/%d/ns/net", n)
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", n)); err != nil {
			return badUse("--pid %d: no such process", n)
		}
	}
	return nil
}

func (f *flags) wait(o *Options) error {
	var err error
	o.Timeout, err = duration("-w", string(f.timeout))
	return err
}

// duration reads a time longer than nothing: 3 and 0.5 are seconds, 500ms says its unit.
func duration(flag, s string) (d time.Duration, err error) {
	if n, err := strconv.ParseFloat(s, 64); err == nil && n > 0 && n < 1e6 {
		d = time.Duration(n * float64(time.Second))
	} else if d, err = time.ParseDuration(s); err != nil {
		return 0, badUse("%s %s: not a duration such as 3, 0.5 or 500ms", flag, s)
	}
	if d <= 0 {
		return 0, badUse("%s %s: a wait is longer than nothing", flag, s)
	}
	return d, nil
}

// choices are the words that flags take.
var choices = map[string][]string{
	"hooks": {tracer.Auto, tracer.Fentry, tracer.Kprobe, tracer.Tracepoint},
	"scope": {"host", "netns"},
	"color": {"auto", "always", "never"},
}

func choose(flag, s string) error {
	if !slices.Contains(choices[flag], s) {
		return badUse("--%s %s: it takes %s", flag, s, strings.Join(choices[flag], ", "))
	}
	return nil
}

func (f *flags) kernel(*Options) error {
	if err := choose("hooks", string(f.hooks)); err != nil {
		return err
	}
	return choose("scope", string(f.scope))
}

func (f *flags) say(o *Options, stdin io.Reader) (err error) {
	if f.expect != "" {
		if o.Expect, err = regexp.Compile(string(f.expect)); err != nil {
			return badUse("--expect: %w", err)
		}
	}
	name, isFile := strings.CutPrefix(string(f.send), "@")
	if !isFile {
		if f.send != "" {
			o.Send = []byte(f.send)
		}
		return nil
	}
	in := stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return badUse("--send: %w", err)
		}
		defer file.Close()
		in = file
	}
	o.Send, err = io.ReadAll(io.LimitReader(in, maxSend+1))
	switch {
	case err != nil:
		return badUse("--send: %w", err)
	case len(o.Send) > maxSend:
		return badUse("--send @%s: larger than %d KiB", name, maxSend>>10)
	}
	return nil
}

// paint decides on colour: the flag, then NO_COLOR and TERM, then whether somebody looks.
func (f *flags) paint(a *app) (color bool, width int, err error) {
	if err := choose("color", string(f.color)); err != nil {
		return false, 0, err
	}
	width, tty := a.terminal(a.stdout)
	switch f.color {
	case "always":
		return true, width, nil
	case "never":
		return false, width, nil
	}
	return tty && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb", width, nil
}

func family(a netip.Addr) int {
	if a.Unmap().Is4() {
		return 4
	}
	return 6
}
