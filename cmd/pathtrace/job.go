// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// traceJob is the main job on a real kernel. Of a name's addresses it takes the
// first, as most programs do, and says which ones it left.
func traceJob(ctx context.Context, o Options, t Target, progress io.Writer) (evidence.Case, verdict.Verdict, error) {
	r := request{
		input: t.Input, protocol: t.Protocol, target: netip.AddrPortFrom(t.Addresses[0], t.Port), netns: o.Netns,
		source: netip.AddrPortFrom(o.Source, o.SourcePort), device: o.Device, mark: o.Mark, timeout: o.Timeout,
		send: o.Send, expect: o.Expect, wait: o.Send != nil || o.Expect != nil, noTouch: o.NoTouch, ownOnly: o.OwnOnly,
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
