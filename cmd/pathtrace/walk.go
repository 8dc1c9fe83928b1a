// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/probe"
	"github.com/pathtrace/pathtrace/verdict"
)

const (
	walkLimit = 2 * time.Second
	nameLimit = 500 * time.Millisecond
	mtuLimit  = 4 * time.Second
)

// walkBeyond follows the way beyond this host, where that may tell more than
// the verdict does. What fails is told, not fatal.
func (r request) walkBeyond(ctx context.Context, s *spaces, c *evidence.Case, v *verdict.Verdict) {
	protocols := verdict.Beyond(c, v)
	walks, errs := make([]evidence.Walk, len(protocols)), make([]error, len(protocols))
	var all sync.WaitGroup
	for i, protocol := range protocols {
		all.Go(func() {
			errs[i] = s.start.Do(func() (err error) {
				walks[i], err = probe.Walk(ctx, probe.WalkConfig{Config: r.likeProbe(protocol, walkLimit)})
				return err
			})
		})
	}
	all.Wait()
	for i, w := range walks {
		if errs[i] != nil {
			c.Unseen = append(c.Unseen, fmt.Sprintf("the way beyond this host: %v", errs[i]))
			continue
		}
		if !r.numeric {
			nameHops(ctx, w.Hops)
		}
		c.Walks = append(c.Walks, w)
	}
	if size, hops := verdict.Large(c, v); size > 0 {
		r.measureMTU(ctx, s, c, size, hops)
	}
}

// likeProbe is what the probe's packets have in common with those that follow its way.
func (r request) likeProbe(protocol string, limit time.Duration) probe.Config {
	return probe.Config{Protocol: protocol, Target: r.target, Source: r.source, Device: r.device, Mark: r.mark, Timeout: limit}
}

// measureMTU finds out how far packets of size bytes come.
func (r request) measureMTU(ctx context.Context, s *spaces, c *evidence.Case, size int, hops []evidence.Hop) {
	var m evidence.PathMTU
	err := s.start.Do(func() (err error) {
		m, err = probe.PathMTU(ctx, probe.MTUConfig{Config: r.likeProbe(c.Target.Protocol, mtuLimit), Size: size, Hops: hops})
		return err
	})
	if err != nil {
		c.Unseen = append(c.Unseen, fmt.Sprintf("the path MTU: %v", err))
	} else if len(m.Tests) > 0 {
		c.PathMTU = &m
	}
}

// nameHops looks the names of the hops up, as far as that goes in half a second.
func nameHops(ctx context.Context, hops []evidence.Hop) {
	ctx, stop := context.WithTimeout(ctx, nameLimit)
	defer stop()
	var all sync.WaitGroup
	for i := range hops {
		if hops[i].Address == "" {
			continue
		}
		all.Go(func() {
			names, err := net.DefaultResolver.LookupAddr(ctx, hops[i].Address)
			if err == nil && len(names) > 0 {
				hops[i].Name = strings.TrimSuffix(names[0], ".")
			}
		})
	}
	all.Wait()
}
