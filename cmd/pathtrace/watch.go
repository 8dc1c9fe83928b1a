// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/internal/peer"
	"github.com/pathtrace/pathtrace/netcfg"
	"github.com/pathtrace/pathtrace/probe"
	"github.com/pathtrace/pathtrace/tracer"
	"github.com/pathtrace/pathtrace/verdict"
)

// watch follows one probe: it collects what the tracer says while the probe
// runs, and ends it as soon as the verdict stands.
type watch struct {
	base   evidence.Case
	tracer *tracer.Tracer
	spaces *spaces
	scheme string
	awaits bool // an answer, a close or a reset: that a process has accepted is not the end
	probe  sent
	gather *gatherer
	wraps  *wraps
	peer   *peerHost // the other end; nil: not watched

	mu      sync.Mutex
	records []tracer.Record
	news    chan struct{} // something was seen that may decide
}

// sent is a probe, our own or one that comes from another host.
type sent interface {
	ISN() uint32
	Local() netip.AddrPort // invalid: not known here
	Start() int64          // when Event.At is 0, in nanoseconds of CLOCK_MONOTONIC
}

func newWatch(s *spaces, awaits bool) *watch {
	return &watch{spaces: s, awaits: awaits, news: make(chan struct{}, 1)}
}

// begin has what the tracer says from now on be about p, and go into c.
func (w *watch) begin(c evidence.Case, t *tracer.Tracer, p sent) {
	w.base, w.tracer, w.probe, w.gather = c, t, p, newGatherer(w.spaces, t, w.wraps)
}

// follow runs the probe and returns the case and its verdict.
func (w *watch) follow(ctx context.Context, c evidence.Case, t *tracer.Tracer, p probe.Sender) (evidence.Case, verdict.Verdict, error) {
	w.begin(c, t, p)
	pctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ended := make(chan evidence.Probe, 1)
	go func() {
		// on a thread of that namespace: the kernel tells where a route was asked for by the task that asks
		if err := w.spaces.start.Do(func() error { ended <- p.Run(pctx); return nil }); err != nil {
			ended <- evidence.Probe{Outcome: evidence.Denied, Errno: err.Error()} // the namespace could not be entered again
		}
	}()

	var outcome evidence.Probe
	for running := true; running; {
		select {
		case outcome = <-ended:
			running = false
		case <-w.news:
			if err := w.explained(); err != nil {
				stop(err)
			}
		case n := <-w.peer.news():
			if err := w.explainedThere(ctx, n); err != nil {
				stop(err)
			}
		}
	}
	if outcome.Outcome == evidence.Answered {
		w.awaitWrap(ctx)
	}
	if err := w.tracer.Flush(); err != nil {
		return w.base, verdict.Verdict{}, err
	}
	if outcome.Outcome == evidence.Silent || outcome.Outcome == evidence.Answered {
		w.noteConnection()
	}
	c, v := w.finish(ctx, outcome)
	if w.peer != nil {
		w.peer.join(ctx, &c, w.probe.Start())
		v = verdict.Judge(&c)
	}
	return c, v, w.tracer.Err()
}

// finish makes the case of a probe that has ended with p, and reads what only its verdict asks for.
func (w *watch) finish(ctx context.Context, p evidence.Probe) (evidence.Case, verdict.Verdict) {
	c := w.assemble(p)
	v := verdict.Judge(&c)
	if w.readServices(ctx, &c, v) {
		v = verdict.Judge(&c)
	}
	w.readLogs(ctx, &c, v)
	return c, v
}

// readLogs reads what the program that is to blame wrote meanwhile.
func (w *watch) readLogs(ctx context.Context, c *evidence.Case, v verdict.Verdict) {
	if v.Cause == "reachable" || v.Where.Process == nil || v.Where.Process.PID == 0 {
		return
	}
	q := netcfg.LogQuery{PID: v.Where.Process.PID, From: c.Probe.Started, To: time.Now()}
	for _, e := range c.Events {
		if p := e.Packet; p != nil && e.Netns == v.Where.Netns && e.Direction == evidence.Forward && p.Source != "" && !slices.Contains(q.Clients, p.Source) {
			q.Clients = append(q.Clients, p.Source)
		}
	}
	c.Logs = netcfg.Logs(ctx, q)
}

// readServices looks what has become of the program that would listen, where nothing does.
func (w *watch) readServices(ctx context.Context, c *evidence.Case, v verdict.Verdict) bool {
	n, s := w.spaces.byName[v.Where.Netns], c.Namespace(v.Where.Netns)
	if v.Cause != "no-listener" || n == nil || s == nil {
		return false
	}
	port := c.Target.Port
	if v.Where.NAT != nil { // the one that it was translated to
		if to, err := netip.ParseAddrPort(v.Where.NAT.To); err == nil {
			port = int(to.Port())
		}
	}
	list := n.Services(ctx, c.Target.Protocol, uint16(port), w.scheme, func(inode uint64) string { return w.spaces.name(uint32(inode)) })
	s.Services = &list
	return true
}

// take keeps a record, and wakes whoever waits for one that may decide.
func (w *watch) take(r tracer.Record) {
	if w.spaces.foreign(r) {
		return
	}
	w.mu.Lock()
	w.records = append(w.records, r)
	w.mu.Unlock()
	if decisive(r) {
		select {
		case w.news <- struct{}{}:
		default:
		}
	}
}

// seen is what was recorded so far.
func (w *watch) seen() []tracer.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.records)
}

// decisive reports whether a record may settle the matter while the probe still waits.
func decisive(r tracer.Record) bool {
	switch e := r.Event; e.Kind {
	case evidence.Drop:
		return e.Reason != "QUEUE_PURGE"
	case evidence.Consume:
		return e.Direction == evidence.Forward && e.Packet != nil && e.Packet.Flags == "S"
	case evidence.State:
		return e.State.New == "ESTABLISHED"
	case evidence.WrapCall, evidence.RulesOpened:
		return true
	}
	return false
}

// explained judges what is known so far, as if the probe had timed out. It
// returns with which word to end the probe, or nil to let it go on.
func (w *watch) explained() error {
	if w.tracer.Flush() != nil {
		return nil
	}
	records := w.seen()
	w.gather.noteCallers(records)
	if conn, ok := w.established(); ok {
		if holders, ok := w.accepted(conn); !ok || w.awaits {
			return nil
		} else if granted, asked := wrapAnswer(records); !asked && w.wraps.may(holders) || asked && !granted {
			return nil // the answer of tcp wrappers, or the close that follows it, may come yet
		}
		return probe.ErrAccepted
	}
	c := w.assemble(w.sofar())
	return w.settled(&c)
}

// sofar is what is known of a probe that has not ended, taken for one that got no answer.
func (w *watch) sofar() evidence.Probe {
	p := evidence.Probe{Outcome: evidence.Timeout, ISN: w.probe.ISN()}
	if l := w.probe.Local(); l.IsValid() {
		p.Local = l.String()
	}
	return p
}

// settled judges c, and returns [probe.ErrExplained] when there is nothing left to wait for.
func (w *watch) settled(c *evidence.Case) error {
	v := verdict.Judge(c)
	switch {
	case v.Certainty == verdict.None || v.Cause == "reachable":
		return nil
	case !v.Transient && (v.Certainty == verdict.Observed || v.Where.Reason != ""): // the packet itself was seen to die
		return probe.ErrExplained
	case w.again(v, c), v.Transient && !v.Copied && c.Target.Protocol != "tcp": // nobody sends a datagram again
		return probe.ErrExplained
	}
	return nil
}

// explainedThere is explained for what the other end's kernel has seen.
func (w *watch) explainedThere(ctx context.Context, n peer.News) error {
	if w.tracer.Flush() != nil {
		return nil
	}
	if n == peer.Accepted {
		if w.connected() && !w.awaits {
			return probe.ErrAccepted
		}
		return nil
	}
	c := w.assemble(w.sofar())
	w.peer.join(ctx, &c, w.probe.Start())
	return w.settled(&c)
}

// connected reports whether our own end of the connection is established.
func (w *watch) connected() bool {
	return slices.ContainsFunc(w.seen(), func(r tracer.Record) bool {
		e := r.Event
		return e.Kind == evidence.State && e.State.New == "ESTABLISHED" && e.Direction == evidence.Forward && e.Netns == w.spaces.start.Name
	})
}

// again reports whether a retransmission met the same end as the packet before
// it: what may pass by itself has then had its chance.
func (w *watch) again(v verdict.Verdict, c *evidence.Case) bool {
	ends, sent := 0, true
	for _, e := range c.Events {
		switch {
		case e.Kind == evidence.Retransmit:
			sent = true
		case e.Netns != v.Where.At(c) || e.Direction != v.Direction || e.Packet == nil || e.Packet.Flags != "S" && e.Packet.Flags != "S.":
		case e.Kind == evidence.Drop, e.Kind == evidence.Consume && strings.HasPrefix(e.Function, "tcp_"):
			if sent || !v.Copied { // copies of one sending have one end
				ends++
			}
			sent = false
		}
	}
	return ends > 1
}

// connection is the server's end of the handshake.
type connection struct {
	netns         string
	local, remote netip.AddrPort
}

// established finds the server's side of our connection among the state changes.
func (w *watch) established() (connection, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.records {
		e := r.Event
		if e.Kind != evidence.State || e.State.New != "ESTABLISHED" || e.Direction != evidence.Reply || e.Socket == nil {
			continue
		}
		local, err := netip.ParseAddrPort(e.Socket.Local)
		if err != nil {
			continue
		}
		for _, o := range w.records { // the packet that came to that address tells the other end
			p := o.Event.Packet
			if p == nil || o.Event.Netns != e.Netns || p.DPort != int(local.Port()) || o.Event.Direction != evidence.Forward {
				continue
			}
			if a, err := netip.ParseAddr(p.Source); err == nil {
				return connection{e.Netns, local, netip.AddrPortFrom(a, uint16(p.SPort))}, true
			}
		}
	}
	return connection{}, false
}

// accepted waits until a process has taken the connection out of the queue and
// waits for what comes next, at most as long as the probe waits for that: one that
// still runs may be about to close. No hook of this tier tells of accept():
// sock_diag shows an accepted connection by its inode number.
func (w *watch) accepted(conn connection) (holders []evidence.Process, ok bool) {
	n := w.spaces.byName[conn.netns]
	if n == nil {
		return nil, false
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(probe.AcceptWait); ; {
		sock, found, err := n.Connection(conn.local, conn.remote)
		if err != nil || !found || holders != nil && sock.Inode == 0 {
			return nil, false
		}
		if sock.Inode != 0 {
			if holders == nil {
				sock.Accepted = w.sinceStart()
				w.gather.addConnection(conn.netns, sock)
			}
			if holders = sock.Process; !slices.ContainsFunc(holders, func(p evidence.Process) bool { return !netcfg.Idle(p.PID) }) {
				return holders, true
			}
		}
		select {
		case <-tick.C:
		case <-end:
			return holders, holders != nil
		}
	}
}

// sinceStart is the time since connect(), in nanoseconds.
func (w *watch) sinceStart() int64 {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil || w.probe.Start() == 0 {
		return 0
	}
	return now.Nano() - w.probe.Start()
}

// noteConnection looks a connection up that no process was seen to accept: none has until the end, or one after a while.
func (w *watch) noteConnection() {
	conn, ok := w.established()
	if !ok || len(w.gather.conns[conn.netns]) > 0 {
		return
	}
	if n := w.spaces.byName[conn.netns]; n != nil {
		if sock, found, err := n.Connection(conn.local, conn.remote); err == nil && found && sock.Remote != "" {
			w.gather.addConnection(conn.netns, sock)
		}
	}
}

// assemble makes a case of what was seen so far.
func (w *watch) assemble(p evidence.Probe) evidence.Case {
	records := w.seen()
	w.gather.noteCallers(records)
	c := w.base
	p.Netns, p.Cgroup = c.Probe.Netns, netcfg.OwnCgroup()
	if p.Outcome == evidence.Denied && p.Netns != "" {
		version := 4
		if w.probe.Local().Addr().Is6() {
			version = 6
		}
		programs := netcfg.ConnectPrograms(version)
		p.Programs = &programs
	}
	c.Probe, c.Listeners = p, w.wraps.listeners
	var replayed []string
	c.Events, replayed = w.gather.events(records)
	c.Unseen = append(slices.Clone(c.Unseen), replayed...)
	align(c.Events, c.Target.Protocol, w.probe.Start())
	c.Namespaces = w.gather.namespaces(&c)
	c.Lost = w.tracer.Lost()
	return c
}
