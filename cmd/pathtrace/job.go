// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// traceJob is the main job on a real kernel, for the first of the target's addresses.
func traceJob(ctx context.Context, o Options, t Target, progress io.Writer) (evidence.Case, verdict.Verdict, error) {
	r := newRequest(o, t)
	defer slowly(progress, fmt.Sprintf("probing %s, at most %s", r.target, o.Timeout))()
	return r.run(ctx, o.Clock)
}

func newRequest(o Options, t Target) request {
	return request{
		input: t.Input, lookup: t.Lookup, protocol: t.Protocol, target: netip.AddrPortFrom(t.Addresses[0], t.Port), netns: o.Netns,
		source: netip.AddrPortFrom(o.Source, o.SourcePort), device: o.Device, mark: o.Mark, timeout: o.Timeout,
		send: o.Send, expect: o.Expect, wait: o.Send != nil || o.Expect != nil, scheme: t.Scheme, speech: t.speech(), hooks: o.Hooks, noTouch: o.NoTouch, numeric: o.Numeric, ownOnly: o.OwnOnly,
	}
}
