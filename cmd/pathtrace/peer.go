// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/internal/peer"
	"github.com/pathtrace/pathtrace/report"
	"github.com/pathtrace/pathtrace/tracer"
)

// other checks --peer and --peer-cmd.
func (f *flags) other(o *Options) error {
	switch {
	case f.peer != "" && f.peerCmd != "":
		return badUse("--peer and --peer-cmd exclude each other")
	case f.peerCmd != "":
		w := peer.Shell(string(f.peerCmd))
		o.Way = &w
	case f.peer != "":
		w, err := peer.SSH(string(f.peer), max(5, int(o.Timeout/time.Second)))
		if err != nil {
			return badUse("--peer: %w", err)
		}
		o.Way = &w
	}
	return nil
}

// peerHost is the other end. Of a nil one nothing is asked, and nothing comes.
type peerHost struct {
	is      evidence.Peer
	session *peer.Session
	hangUp  context.CancelFunc
	dialed  chan struct{} // closed when there is a session, or err says why there is none
	err     error
	met     func() // says what came of it, once
	same    bool   // it is this very kernel
}

// openPeer comes to a shell on the other end, and returns while the agent is
// being started there. That it cannot is told, and no reason not to probe.
func (a *app) openPeer(ctx context.Context, o Options) *peerHost {
	if o.Way == nil {
		return nil
	}
	p := &peerHost{is: evidence.Peer{Reached: o.Way.Text, Host: evidence.Host{Name: peerName(o.Way.Host, peer.Hello{})}}, dialed: make(chan struct{})}
	p.met = sync.OnceFunc(func() { a.meet(p, o) })
	ctx, p.hangUp = context.WithCancel(ctx)
	way, up := *o.Way, make(chan struct{})
	way.Up = func() { close(up) }
	done := slowly(a.progress(o), "connecting to the other end")
	go func() {
		defer close(p.dialed)
		p.session, p.err = peer.Dial(ctx, way, peer.Limits{})
	}()
	select {
	case <-up:
	case <-p.dialed:
	}
	done()
	o.Clock.lap("connect to the other end")
	return p
}

// meet notes who the other end is, once its agent is there or is known not to come.
func (a *app) meet(p *peerHost, o Options) {
	if p.err != nil {
		p.is.Error = cutShort(p.err)
		a.warnPeer(p)
		return
	}
	s := p.session
	p.is.Name, p.is.Kernel = peerName(o.Way.Host, s.Hello), s.Hello.Kernel
	p.is.ClockOffsetNS, p.is.ClockBoundNS = s.Offset.Wall, int64(s.Bound)
	if boot := bootID(); boot != "" && boot == s.Hello.Boot && !o.OwnOnly {
		fmt.Fprintf(a.stderr, "pathtrace: --peer: %s runs on this very kernel, and all of that is watched already\n", report.Clean(p.is.Name))
		p.same = true
	}
}

// wait returns the other end once its agent is there, or is known not to come;
// nil where it has nothing to add.
func (p *peerHost) wait() *peerHost {
	if p == nil {
		return nil
	}
	<-p.dialed
	p.met()
	if p.same {
		return nil
	}
	return p
}

func (a *app) warnPeer(p *peerHost) {
	fmt.Fprintf(a.stderr, "pathtrace: the kernel of %s is not watched: %s\n", report.Clean(p.is.Name), report.Clean(p.is.Error))
}

// cutShort is an error in a line of bounded length: some are in the words of another host.
func cutShort(err error) string {
	s := oneLine(err)
	if r := []rune(s); len(r) > 300 {
		s = string(r[:300]) + "…"
	}
	return s
}

var notInNames = regexp.MustCompile(`[^A-Za-z0-9_.:-]+`)

// peerName is what the other end is called: as it calls itself, unless that is
// our own name; as the user calls it; or just that.
func peerName(user string, h peer.Hello) string {
	own, _ := os.Hostname()
	for _, name := range []string{h.Host, user} {
		name = strings.Trim(notInNames.ReplaceAllString(name, "-"), "-.:")
		if name != "" && name != own && len(name) <= 253 {
			return name
		}
	}
	return "peer"
}

// bootID tells one run of a kernel from all others.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

func (p *peerHost) watched() bool { return p != nil && p.is.Error == "" }

func (p *peerHost) close() {
	if p == nil {
		return
	}
	select {
	case <-p.dialed:
	default: // nobody waits for it any more
		p.hangUp()
		<-p.dialed
	}
	if p.session != nil {
		_ = p.session.Close() // its cases were read
	}
	p.hangUp()
}

func (p *peerHost) news() <-chan peer.News {
	if !p.watched() {
		return nil
	}
	return p.session.News()
}

// trace has the other end watch; the channel is closed when it does, or cannot.
func (p *peerHost) trace(ctx context.Context, o peer.Order) <-chan struct{} {
	armed := make(chan struct{})
	if !p.watched() {
		close(armed)
		return armed
	}
	go func() {
		defer close(armed)
		p.failed(p.session.Trace(ctx, o))
	}()
	return armed
}

func (p *peerHost) failed(err error) {
	switch {
	case err == nil:
	case errors.Is(err, context.Canceled):
		p.is.Error = "interrupted"
	default:
		p.is.Error = cutShort(err)
	}
}

// join adds what the other end has seen to c, whose events count from start.
// When ctx has ended that is worth reading all the same.
func (p *peerHost) join(ctx context.Context, c *evidence.Case, start int64) {
	var there peer.Case
	if p.watched() {
		var err error
		there, err = p.session.Read(context.WithoutCancel(ctx), c.Probe)
		p.failed(err)
	}
	is := p.is
	if p.watched() {
		is.Host = there.Host
		is.Name, is.Kernel = p.is.Name, p.is.Kernel
	}
	shift := int64(0)
	if p.watched() {
		shift = there.Start - p.session.Offset.Monotonic - start
	}
	c.Join(is, &there.Case, shift)
}

// order is what the other end is to watch for.
func (r request) order(s *spaces, key tracer.Key) peer.Order {
	o := peer.Order{
		Target: evidence.Target{Input: r.input, Address: r.target.Addr().WithZone("").String(), Port: int(r.target.Port()), Protocol: r.protocol},
		ISN:    key.ISN, Hooks: r.hooks, NoTouch: r.noTouch, Scheme: r.scheme, Awaits: r.wait || r.expect != nil || r.speech.Any(),
	}
	if r.ownOnly {
		o.Scope = evidence.OwnNamespace
	}
	if from := r.sourceAddr(s); r.peer != nil && from.IsValid() {
		o.Source = netip.AddrPortFrom(from, key.Port)
	}
	return o
}
