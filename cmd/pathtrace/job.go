// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// greetings are what a server says first, by the scheme of a URL: FTP and SMTP
// a reply code (RFC 959, RFC 5321), SSH its version (RFC 4253). Whoever names the
// scheme demands the greeting.
var greetings = map[string]*regexp.Regexp{
	"ftp":  regexp.MustCompile(`^[12][0-9][0-9][ -]`),
	"smtp": regexp.MustCompile(`^2[0-9][0-9][ -]`),
	"ssh":  regexp.MustCompile(`(?m)^SSH-`), // other lines may stand before it
}

// traceJob is the main job on a real kernel. Of a name's addresses it takes the
// first, as most programs do, and says which ones it left.
func traceJob(ctx context.Context, o Options, t Target, progress io.Writer) (evidence.Case, verdict.Verdict, error) {
	r := request{
		input: t.Input, protocol: t.Protocol, target: netip.AddrPortFrom(t.Addresses[0], t.Port), netns: o.Netns,
		source: netip.AddrPortFrom(o.Source, o.SourcePort), device: o.Device, mark: o.Mark, timeout: o.Timeout,
		send: o.Send, expect: o.Expect, wait: o.Send != nil || o.Expect != nil, noTouch: o.NoTouch, numeric: o.Numeric, ownOnly: o.OwnOnly,
	}
	if r.expect == nil && r.send == nil {
		r.expect = greetings[t.Scheme]
	}
	fmt.Fprintf(progress, "pathtrace: probing %s, at most %s\n", r.target, o.Timeout)
	if len(t.Addresses) > 1 {
		var left []string
		for _, a := range t.Addresses[1:] {
			left = append(left, a.String())
		}
		r.unseen = append(r.unseen, fmt.Sprintf("%s has other addresses, which were not probed: %s", t.Host, strings.Join(left, ", ")))
	}
	return r.run(ctx, o.Clock)
}
