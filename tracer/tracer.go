// SPDX-License-Identifier: Apache-2.0

// Package tracer watches one probe in the kernel: it loads the programs of
// package bpf, attaches them, and turns what they say into evidence.
package tracer

//go:generate go run ./gen testdata ../docs/requirements.md

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/bpf"
	"github.com/pathtrace/pathtrace/evidence"
)

// Key is what tells the probe's packets from all others.
type Key struct {
	Protocol uint8  // IPPROTO_TCP, UDP, ICMP or ICMPV6
	ISN      uint32 // TCP: its SYN's sequence number
	Port     uint16 // others: the probe's own port, or its echo identifier; 0 until it is known
	Target   netip.AddrPort
}

// Counters are the rules of an x_tables table that counted a packet of ours.
type Counters struct {
	Event   evidence.Event // when, where, which way
	Family  int            // 4 or 6
	Table   string
	Moved   map[int]uint64 // by index of the entry in the table's blob
	Result  string         // what the table's function made of the packet: accept, drop, queue …; empty when that was not seen
	Trouble string         // why the counters cannot be trusted; empty when they can

	slot uint32
}

// Record is one thing that was seen: an event, or counters to be replayed into rules.
type Record struct {
	Event    evidence.Event
	Counters *Counters
	Unseen   string // what of the packet could not be told; the rest is empty then
}

// Options of [Open].
type Options struct {
	// NetnsName names a namespace by inode number; "" when it is unknown.
	NetnsName func(inode uint32) string
	// Ring is the size of the ring buffer in bytes, a power of two and a multiple of the page size; 0: 1 MiB.
	Ring uint32
	// Hooks is how functions are hooked: auto (the best that works, also ""), fentry, kprobe, or tracepoint for not at all.
	Hooks string
	// NoUprobes is what an attempt to attach one is answered with, as a kernel without them does; nil: they are tried.
	NoUprobes error
	// Take is given what is seen, as it comes, from goroutines of the tracer. It must not block.
	Take func(Record)

	raw func([]byte) // given each record of the ring buffer before it is decoded
}

// Tracer is a set of attached programs. Its methods may be called from one goroutine at a time.
type Tracer struct {
	Missing []string // hooks this kernel lacks, each with the reason and what is lost

	coll        *ebpf.Collection
	tier        tier
	types       *btf.Cache
	wraps       *ebpf.CollectionSpec // programs for libwrap
	manyUprobes bool
	noUprobes   error
	links       []link.Link
	reader      *ringbuf.Reader
	dec         decoder
	take        func(Record)
	raw         func([]byte)  // nil but for those who record
	flushed     chan struct{} // the reader has emptied the ring buffer
	stopped     chan struct{} // the reader has ended

	mu        sync.Mutex // guards what follows
	failed    error
	inventory []nfHook // filled while an inventory runs
	ranks     map[rankKey][]int
	slots     []*xtSlot

	traces    []*ruleTrace
	traceLost atomic.Uint64 // trace messages that found no room in a socket
	wg        sync.WaitGroup
}

// ErrNoObservers says that the kernel has no BPF netfilter programs (since Linux 6.4).
var ErrNoObservers = errors.New("this kernel has no BPF netfilter programs (they came with Linux 6.4)")

// Open loads and attaches the programs: those of tracepoints, and on top those of functions as far as Options.Hooks asks.
// The error wraps [ErrTier] when the family of hooks that was asked for does not work. The caller needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
func Open(o Options) (*Tracer, error) {
	var types *btf.Cache
	var kernel *btf.Spec
	var unread error
	var reading sync.WaitGroup
	reading.Go(func() {
		types = btf.NewCache()
		kernel, unread = types.Kernel()
	})
	spec, err := bpf.LoadTracepoint()
	reading.Wait()
	if unread != nil {
		return nil, fmt.Errorf("read the kernel's type information: %w", unread)
	}
	if err != nil {
		return nil, fmt.Errorf("parse the programs: %w", err)
	}
	missing, gaps, err := fit(spec, types)
	if err != nil {
		return nil, err
	}
	if err := setRegisters(spec); err != nil {
		return nil, err
	}
	wraps := wrapPrograms(spec)
	inFunctions := *spec
	inFunctions.Programs = functionPrograms(spec)
	if o.Ring != 0 {
		spec.Maps["events"].MaxEntries = o.Ring
	}
	t := &Tracer{types: types, wraps: wraps, noUprobes: o.NoUprobes, take: o.Take, raw: o.raw, flushed: make(chan struct{}), stopped: make(chan struct{}), ranks: map[rankKey][]int{}}
	for _, m := range missing {
		t.Missing = append(t.Missing, m.String())
	}
	if t.coll, err = load(spec, types); err != nil {
		return nil, fmt.Errorf("load the programs: %w", err)
	}
	t.tier = tier{name: Tracepoint, spec: &inFunctions, types: types}
	t.dec = decoder{
		drops:   loadReasons(kernel, "skb_drop_reason", "SKB_DROP_REASON_", "SKB_"),
		resets:  loadReasons(kernel, "sk_rst_reason", "SK_RST_REASON_"),
		symbols: newSymbols(t.coll.Programs[progSymbolize], t.coll.Maps["symbols"]),
		netns:   o.NetnsName,
	}
	if err := t.attach(); err != nil {
		t.Close()
		return nil, err
	}
	if o.Hooks != Tracepoint {
		if err := t.hookFunctions(o.Hooks, gaps); err != nil {
			t.Close()
			return nil, err
		}
	}
	t.Missing = append(t.Missing, t.tier.told...)
	if t.coll.Programs[progObserve] == nil && !(t.SeesTables(4) && t.SeesTables(6)) {
		t.Missing = append(t.Missing, "netfilter observers: "+ErrNoObservers.Error()+": not seen: legacy iptables rules, drops by netfilter functions that are no rules")
	}
	return t, nil
}

// listen starts to read the ring buffer.
func (t *Tracer) listen() (err error) {
	if t.reader, err = ringbuf.NewReader(t.coll.Maps["events"]); err != nil {
		return fmt.Errorf("open the ring buffer: %w", err)
	}
	t.wg.Add(1)
	go t.read()
	return nil
}

func (t *Tracer) attach() error {
	if err := t.listen(); err != nil {
		return err
	}
	for name, prog := range t.coll.Programs {
		h, ok := hookNamed(name)
		if !ok {
			continue
		}
		l, err := link.AttachTracing(link.TracingOptions{Program: prog})
		switch {
		case err == nil:
			t.links = append(t.links, l)
		case h.Needed:
			return fmt.Errorf("attach to the tracepoint %s: %w", name, err)
		default:
			t.Missing = append(t.Missing, missingHook{h, err.Error()}.String())
		}
	}
	return nil
}

// Watch starts to report the packets that key describes, and forgets those of an earlier key.
func (t *Tracer) Watch(key Key) error {
	k := bpf.TracepointProbeKey{
		On: 1, Isn: key.ISN, Tgid: uint32(os.Getpid()), Proto: key.Protocol, Target: key.Target.Addr().As16(),
	}
	k.Port = binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, key.Target.Port()))
	err := errors.Join(t.coll.Variables["probe"].Set(bpf.TracepointProbeKey{}), t.forget(), t.coll.Variables["probe"].Set(k))
	if err != nil {
		return fmt.Errorf("tell the programs what to watch: %w", err)
	}
	t.tier.before = t.tier.skipped()
	return nil
}

// forget empties the map of flows: it is small, and what it has is the last probe's.
func (t *Tracer) forget() error {
	flows := t.coll.Maps["flows"]
	var flow bpf.TracepointTuple
	var known []bpf.TracepointTuple
	var direction uint8
	for all := flows.Iterate(); all.Next(&flow, &direction); {
		known = append(known, flow)
	}
	if len(known) == 0 {
		return nil
	}
	for _, f := range known {
		if err := flows.Delete(f); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return t.coll.Variables["ports_seen"].Set([8192]byte{})
}

// Follow reports the packets between two addresses, for a probe that is known
// by its tuple. ICMP has the echo identifier for both ports. What comes to the
// local port of UDP from the remote one is an answer whatever its address.
func (t *Tracer) Follow(protocol uint8, local, remote netip.AddrPort) error {
	network := func(p uint16) uint16 { return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, p)) }
	there := bpf.TracepointTuple{
		Saddr: local.Addr().As16(), Daddr: remote.Addr().As16(), Sport: network(local.Port()), Dport: network(remote.Port()), Proto: protocol,
	}
	back := bpf.TracepointTuple{Saddr: there.Daddr, Daddr: there.Saddr, Sport: there.Dport, Dport: there.Sport, Proto: protocol}
	var seen [8192]byte
	x := there.Sport ^ there.Dport
	if err := t.coll.Variables["ports_seen"].Get(&seen); err != nil {
		return fmt.Errorf("tell the programs what to follow: %w", err)
	}
	seen[x>>3] |= 1 << (x & 7)
	err := errors.Join(
		t.coll.Variables["ports_seen"].Set(seen),
		t.coll.Maps["flows"].Put(there, uint8(1)), // DIR_FORWARD
		t.coll.Maps["flows"].Put(back, uint8(2)),  // DIR_REPLY
	)
	if protocol == unix.IPPROTO_UDP {
		back.Saddr = [16]byte{}
		err = errors.Join(err, t.coll.Maps["flows"].Put(back, uint8(2)))
	}
	if err != nil {
		return fmt.Errorf("tell the programs what to follow: %w", err)
	}
	return nil
}

// Reading is told before and after this process asks the kernel for routes, so
// that its questions are not taken for the probe's.
func (t *Tracer) Reading(on bool) error {
	var v uint32
	if on {
		v = 1
	}
	return t.coll.Variables["reading"].Set(v)
}

// Lost counts the events that the kernel could not hand over since [Open], and
// the runs of programs on functions that it left out since [Tracer.Watch].
func (t *Tracer) Lost() uint64 {
	var n uint64
	if err := t.coll.Variables["lost"].Get(&n); err != nil {
		return 1 // not knowing is not zero
	}
	return n + t.traceLost.Load() + t.tier.skipped() - t.tier.before
}

// Flush waits until all that the kernel has handed over so far went to Options.Take.
func (t *Tracer) Flush() error {
	if err := t.reader.Flush(); err != nil {
		return fmt.Errorf("flush the ring buffer: %w", err)
	}
	select {
	case <-t.flushed:
	case <-t.stopped:
	}
	for _, r := range t.traces {
		r.flush()
	}
	return nil
}

// Err returns why reading ended early, or nil.
func (t *Tracer) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

func (t *Tracer) read() {
	defer t.wg.Done()
	defer close(t.stopped)
	var rec ringbuf.Record
	for {
		err := t.reader.ReadInto(&rec)
		switch {
		case errors.Is(err, ringbuf.ErrFlushed):
			t.flushed <- struct{}{} // Flush waits for it
		case errors.Is(err, ringbuf.ErrClosed):
			return
		case err != nil:
			t.fail(err)
			return
		default:
			if t.raw != nil {
				t.raw(rec.RawSample)
			}
			if err := t.record(rec.RawSample); err != nil {
				t.fail(err)
			}
		}
	}
}

func (t *Tracer) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = errors.Join(t.failed, err)
}

// record handles one ring buffer record.
func (t *Tracer) record(raw []byte) error {
	s, err := parseSample(raw)
	if err != nil {
		return err
	}
	switch s.Kind {
	case kindNFHook:
		t.mu.Lock()
		t.inventory = append(t.inventory, newNFHook(&s))
		t.mu.Unlock()
		return nil
	case kindNFT:
		r, err := t.dec.rule(&s, raw)
		if err == nil {
			t.take(r)
		}
		return err
	case kindXTables:
		t.take(Record{Counters: t.counters(&s)})
		return nil
	}
	e, err := t.dec.event(&s)
	if err != nil {
		return err
	}
	if s.Kind == kindHook {
		t.mu.Lock()
		p, ok := t.priority(&s)
		t.mu.Unlock()
		if !ok {
			return nil
		}
		e.Priority = &p
	}
	t.take(Record{Event: e})
	return nil
}

// Close takes every program off the kernel and every trace table out of the rulesets.
func (t *Tracer) Close() error {
	var errs []error
	if t.coll != nil {
		errs = append(errs, t.coll.Variables["probe"].Set(bpf.TracepointProbeKey{}))
	}
	var wg sync.WaitGroup
	for _, r := range t.traces {
		wg.Go(func() { r.close() })
	}
	ended := make([]error, len(t.links))
	for i, l := range t.links { // at once: each waits for the kernel's readers
		wg.Go(func() { ended[i] = l.Close() })
	}
	for _, p := range t.tier.progs {
		errs = append(errs, p.Close())
	}
	for _, s := range t.slots {
		errs = append(errs, s.blocks.Close())
	}
	if t.reader != nil {
		errs = append(errs, t.reader.Close())
	}
	wg.Wait()
	errs = append(errs, ended...)
	t.wg.Wait()
	if t.coll != nil {
		t.coll.Close()
	}
	return errors.Join(errs...)
}
