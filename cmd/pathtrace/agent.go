// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/internal/peer"
	"github.com/pathtrace/pathtrace/probe"
	"github.com/pathtrace/pathtrace/tracer"
)

// newAgentCmd makes the command that --peer runs on the other host.
func newAgentCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "agent",
		Short: "what --peer runs on the other host: it watches for a pathtrace that speaks with it on standard input and output",
		// Nobody types it.
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, typed := a.terminal(a.stdin); typed {
				return badUse("agent is started by --peer: a pathtrace on another host speaks with it on standard input")
			}
			return serveAgent(cmd.Context(), a.stdin, a.stdout)
		},
	}
}

func serveAgent(ctx context.Context, in io.Reader, out io.Writer) error {
	hello := peer.Hello{Tool: thisTool(), Boot: bootID(), PID: os.Getpid()}
	hello.Host, _ = os.Hostname()
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		hello.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return cannotTrace(peer.Serve(ctx, in, out, hello, &agent{}))
}

// agent watches this host for a probe of another.
type agent struct {
	mu    sync.Mutex // guards what follows, and that the tracer is asked by one at a time
	host  *host
	start int64
	stop  chan struct{} // closed when it shall say no more news
	ended chan struct{} // no more are said
}

// elsewhere is a probe that another host sends.
type elsewhere struct {
	isn   uint32
	start int64
}

func (e elsewhere) ISN() uint32           { return e.isn }
func (e elsewhere) Start() int64          { return e.start }
func (e elsewhere) Local() netip.AddrPort { return netip.AddrPort{} } // as that host knows it; a translation may have changed it

func (a *agent) Trace(_ context.Context, o peer.Order, news func(peer.News)) error {
	if err := a.Close(); err != nil {
		return err
	}
	r, err := ordered(o)
	if err != nil {
		return err
	}
	h, err := r.openHost(&stopwatch{})
	if err != nil {
		return err
	}
	key := tracer.Key{Protocol: r.number(), ISN: o.ISN, Port: o.Source.Port(), Target: r.target}
	c, err := h.arm(r, key)
	if err == nil && o.Source.IsValid() {
		to := r.target
		if r.protocol == "icmp" { // the identifier stands for both ports
			to = netip.AddrPortFrom(to.Addr(), o.Source.Port())
		}
		err = h.tracer.Follow(r.number(), o.Source, to)
	}
	if err != nil {
		h.close()
		return cannotTrace(err)
	}
	h.spaces.readCounters()
	c.Probe.Netns = ""
	a.mu.Lock()
	defer a.mu.Unlock()
	a.host, a.start, a.stop, a.ended = h, monotonic(), make(chan struct{}), make(chan struct{})
	h.watch.begin(c, h.tracer, elsewhere{o.ISN, a.start})
	go a.tell(h, news, a.stop, a.ended)
	return nil
}

// ordered checks what the other side wants to be watched.
func ordered(o peer.Order) (request, error) {
	addr, err := netip.ParseAddr(o.Target.Address)
	switch {
	case err != nil:
		return request{}, errors.New("an order without an address")
	case o.Target.Protocol != "tcp" && o.Target.Protocol != "udp" && o.Target.Protocol != "icmp":
		return request{}, fmt.Errorf("an order for protocol %.20q", o.Target.Protocol)
	case o.Target.Port < 0 || o.Target.Port > 0xffff:
		return request{}, fmt.Errorf("an order for port %d", o.Target.Port)
	case o.Source.IsValid() && o.Source.Addr().Is4() != addr.Is4():
		return request{}, errors.New("an order from and to addresses of different families")
	}
	return request{
		input: o.Target.Input, protocol: o.Target.Protocol, target: netip.AddrPortFrom(addr, uint16(o.Target.Port)), scheme: o.Scheme,
		hooks: o.Hooks, noTouch: o.NoTouch, numeric: true, ownOnly: o.Scope == evidence.OwnNamespace, wait: o.Awaits,
	}, choose("hooks", o.Hooks)
}

// maxNews bounds what is said unasked about one probe.
const maxNews = 100

// tell says whenever what was seen may end the probe.
func (a *agent) tell(h *host, news func(peer.News), stop, ended chan struct{}) {
	defer close(ended)
	for range maxNews {
		select {
		case <-stop:
			return
		case <-h.watch.news:
		}
		a.mu.Lock()
		err := h.watch.explained()
		a.mu.Unlock()
		switch {
		case errors.Is(err, probe.ErrAccepted):
			news(peer.Accepted)
		case errors.Is(err, probe.ErrExplained):
			news(peer.Explained)
		}
	}
}

func (a *agent) Read(ctx context.Context, p evidence.Probe) (peer.Case, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.host == nil {
		return peer.Case{}, errors.New("nothing is being watched")
	}
	w := a.host.watch
	if err := a.host.tracer.Flush(); err != nil {
		return peer.Case{}, err
	}
	_ = w.explained() // who has accepted the connection is seen by it
	if p.Outcome == evidence.Silent || p.Outcome == evidence.Answered {
		w.noteConnection()
	}
	c, _ := w.finish(ctx, p)
	return peer.Case{Case: c, Start: a.start}, a.host.tracer.Err()
}

func (a *agent) Close() error {
	a.mu.Lock()
	h, stop, ended := a.host, a.stop, a.ended
	a.host = nil
	a.mu.Unlock()
	if h == nil {
		return nil
	}
	close(stop)
	<-ended
	h.close()
	return nil
}

// monotonic is CLOCK_MONOTONIC in nanoseconds.
func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // fails for bad arguments only
	return ts.Nano()
}
