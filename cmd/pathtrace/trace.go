// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg"
	"github.com/pathtrace/pathtrace/probe"
	"github.com/pathtrace/pathtrace/tracer"
	"github.com/pathtrace/pathtrace/verdict"
)

// request is one address to probe, and how.
type request struct {
	input    string // as the user typed it
	lookup   []string
	protocol string // tcp, udp or icmp
	target   netip.AddrPort
	netns    string // NAME, PATH or PID; empty: our own
	source   netip.AddrPort
	device   string
	mark     uint32
	timeout  time.Duration
	send     []byte
	expect   *regexp.Regexp
	wait     bool   // for a byte, a close or a reset
	scheme   string // of a URL
	speech   probe.Speech
	hooks    string // auto, fentry, kprobe or tracepoint
	uprobes  error  // what attaching one is answered with; nil: it is tried
	noTouch  bool
	numeric  bool // look no names up
	ownOnly  bool // watch only the probe's own namespace
	unseen   []string
	peer     *peerHost // nil: none
}

// run traces one address: arm, probe, watch, read, judge.
func (r request) run(ctx context.Context, clock *stopwatch) (evidence.Case, verdict.Verdict, error) {
	h, err := r.openHost(clock)
	if err != nil {
		return evidence.Case{}, verdict.Verdict{}, err
	}
	defer func() { h.close(); clock.lap("detach") }()
	if r.peer != nil {
		r.peer = r.peer.wait()
		clock.lap("wait for the other end")
	}
	p, err := r.openProbe(h.spaces, h.tracer)
	if err != nil {
		return evidence.Case{}, verdict.Verdict{}, err
	}
	defer p.Close()
	key := tracer.Key{Protocol: r.number(), ISN: p.ISN(), Port: p.Local().Port(), Target: r.target}
	armed := r.peer.trace(ctx, r.order(h.spaces, key))
	c, err := h.arm(r, key)
	if err != nil {
		return evidence.Case{}, verdict.Verdict{}, err
	}
	<-armed
	clock.lap("arm")
	h.spaces.readCounters()
	h.watch.peer = r.peer
	c, v, err := h.watch.follow(ctx, c, h.tracer, p)
	clock.lap("probe, read and judge")
	if err != nil {
		return c, v, cannotTrace(err)
	}
	if r.walkBeyond(ctx, h.spaces, &c, &v); len(c.Walks) > 0 {
		v = verdict.Judge(&c)
		clock.lap("the way beyond this host")
	}
	return c, v, ctx.Err()
}

// noTier says that the hooks that were asked for do not work, and why, in one line.
func noTier(hooks string, err error) error {
	why, _, _ := strings.Cut(err.Error(), "\n")
	return &TraceError{Code: "hooks", Message: fmt.Sprintf("--hooks %s: %s", hooks, why), Help: "--hooks auto takes the best that works"}
}

// number is the protocol's, as in an IP header.
func (r request) number() uint8 {
	switch {
	case r.protocol == "udp":
		return unix.IPPROTO_UDP
	case r.protocol == "icmp" && r.target.Addr().Is6():
		return unix.IPPROTO_ICMPV6
	case r.protocol == "icmp":
		return unix.IPPROTO_ICMP
	}
	return unix.IPPROTO_TCP
}

// followTuple has a TCP probe from a port that was asked for known by its
// addresses too: where that port is in TIME_WAIT the kernel continues the old
// sequence numbers instead of ours (tcp_twsk_unique).
func (r request) followTuple(t *tracer.Tracer, s *spaces) error {
	from := r.sourceAddr(s)
	if r.protocol != "tcp" || r.source.Port() == 0 || !from.IsValid() { // no route: no packet either
		return nil
	}
	return t.Follow(r.number(), netip.AddrPortFrom(from, r.source.Port()), r.target)
}

// sourceAddr is the address that the probe will bear; invalid where there is no route.
func (r request) sourceAddr(s *spaces) netip.Addr {
	if from := r.source.Addr(); from.IsValid() || s.start == nil {
		return from
	}
	from, _ := netip.ParseAddr(s.start.Lookup(netcfg.RouteQuery{Dest: r.target.Addr(), Mark: r.mark}).PrefSrc)
	return from
}

func (r request) openProbe(s *spaces, t *tracer.Tracer) (probe.Sender, error) {
	cfg := probe.Config{
		Protocol: r.protocol, Ready: func(local, remote netip.AddrPort) error { return t.Follow(r.number(), local, remote) },
		Target: r.target, Source: r.source, Device: r.device, Mark: r.mark, Timeout: r.timeout,
		Send: r.send, Expect: r.expect, Wait: r.wait, Speech: r.speech,
	}
	var p probe.Sender
	err := s.start.Do(func() (err error) {
		p, err = probe.Open(cfg)
		return err
	})
	switch {
	case err == nil:
		return p, nil
	case errors.Is(err, unix.EPERM):
		return nil, cannotTrace(err)
	}
	return nil, badUse("%w", err)
}

// arm has the rules and the netfilter functions of every namespace that has any
// and that the probe can come to tell what they do with its packets.
func (r request) arm(t *tracer.Tracer, s *spaces, key tracer.Key) (unseen []string, err error) {
	hooked, initial, err := t.Hooked()
	if err != nil {
		return nil, err
	}
	s.nameInitial(initial) // before anything is seen that bears the name
	if err := t.Watch(key); err != nil {
		return nil, err
	}
	version := 4
	if key.Target.Addr().Is6() {
		version = 6
	}
	unseen = s.unseen
	for _, n := range s.connected {
		if !slices.Contains(hooked, uint32(n.Inode)) {
			continue
		}
		traced, why, err := armOne(t, n, key, version, r.noTouch)
		if err != nil {
			return unseen, fmt.Errorf("%s: %w", n.Name, err)
		}
		s.traced[n.Name] = traced
		for _, w := range why {
			unseen = append(unseen, n.Name+": "+w)
		}
		if gen, err := n.NFTGeneration(); err == nil {
			s.nft[n.Name] = gen
		}
	}
	return unseen, nil
}

// armOne arms one namespace; what fails there is told, not fatal.
func armOne(t *tracer.Tracer, n *netcfg.Netns, key tracer.Key, version int, noTouch bool) (traced bool, unseen []string, err error) {
	inode := uint32(n.Inode)
	err = n.Do(func() error {
		switch {
		case t.SeesRules():
		case noTouch:
			unseen = append(unseen, "nftables rules: not traced (--no-touch)")
		default:
			if err := t.TraceRules(inode, key); err != nil {
				unseen = append(unseen, fmt.Sprintf("nftables rules: not traced: %v", err))
			} else {
				traced = true
			}
		}
		if t.SeesTables(version) {
			why, err := t.WatchTables(inode, version)
			unseen = append(unseen, why...)
			if err != nil {
				unseen = append(unseen, fmt.Sprintf("rules of iptables-legacy: not read: %v", err))
			}
			return nil
		}
		why, err := t.Observe(inode, version)
		unseen = append(unseen, why...)
		if err != nil && !errors.Is(err, tracer.ErrNoObservers) { // that is said once, of the host
			unseen = append(unseen, fmt.Sprintf("netfilter functions: not observed: %v", err))
		}
		return nil
	})
	return traced, unseen, err
}

func newCase(r request, s *spaces, t *tracer.Tracer) evidence.Case {
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	c := evidence.Case{
		FormatVersion: evidence.FormatVersion, ID: hex.EncodeToString(id[:]),
		Tool:   thisTool(),
		Host:   evidence.Host{Hooks: t.Family(), Missing: t.Missing, Facts: t.Facts()},
		Target: evidence.Target{Input: r.input, Address: r.target.Addr().String(), Port: int(r.target.Port()), Protocol: r.protocol, Lookup: r.lookup},
		Events: []evidence.Event{}, Unseen: []string{},
	}
	c.Host.Name, _ = os.Hostname()
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		c.Host.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if c.Host.Missing == nil {
		c.Host.Missing = []string{} // read, and nothing is missing
	}
	c.Probe.Netns = s.start.Name
	if r.ownOnly {
		c.Scope = evidence.OwnNamespace
	}
	return c
}

// stopwatch notes where our own time went.
type stopwatch struct {
	last time.Time
	laps []lap
}

type lap struct {
	what string
	took time.Duration
}

func (s *stopwatch) lap(what string) {
	now := time.Now()
	if !s.last.IsZero() {
		s.laps = append(s.laps, lap{what, now.Sub(s.last)})
	}
	s.last = now
}
