// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/internal/lab"
	"github.com/pathtrace/pathtrace/netcfg"
	"github.com/pathtrace/pathtrace/tracer"
)

// hooked watches for a probe that never comes, in all namespaces of a lab, as a trace does that still waits.
// family is that of the hooks; where it is functions they need no rule trace and no observers.
func hooked(l *lab.Lab, family string, observers bool) (*tracer.Tracer, error) {
	t, err := tracer.Open(tracer.Options{Hooks: family, NetnsName: func(uint32) string { return "" }, Take: func(tracer.Record) {}})
	if err != nil {
		return nil, err
	}
	key := tracer.Key{Protocol: unix.IPPROTO_TCP, ISN: 0x5f5e100, Port: 1, Target: netip.AddrPortFrom(l.Addr(lab.Server, 4), lab.Port)}
	if err := t.Watch(key); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	for _, r := range []lab.Role{lab.Client, lab.Router, lab.Server} {
		n, err := netcfg.Open(l.Netns(r))
		if err == nil && observers {
			err = n.Do(func() error {
				if err := t.TraceRules(uint32(n.Inode), key); err != nil {
					return err
				}
				if _, err := t.Observe(uint32(n.Inode), 4); !errors.Is(err, tracer.ErrNoObservers) {
					return err
				}
				return nil // before Linux 6.4
			})
		}
		if err != nil {
			return nil, errors.Join(err, t.Close())
		}
		n.Close()
	}
	return t, nil
}

// flow is an unrelated stream of datagrams between two namespaces of a lab.
type flow struct {
	near, far int
	to        unix.SockaddrInet4
}

const flowPort = 5555

func newFlow(l *lab.Lab) (f flow, err error) {
	open := func(r lab.Role, port int) (fd int, err error) {
		err = within(l.Netns(r), func() (err error) {
			if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
				err = unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: l.Addr(r, 4).As4()})
			}
			return err
		})
		return fd, err
	}
	if f.near, err = open(lab.Client, flowPort); err != nil {
		return f, err
	}
	f.far, err = open(lab.Server, flowPort)
	f.to = unix.SockaddrInet4{Port: flowPort, Addr: l.Addr(lab.Server, 4).As4()}
	return f, err
}

func (f flow) close() { unix.Close(f.near); unix.Close(f.far) }

// roundTrips lets one datagram go there and back, again and again, and returns the mean time of each in
// microseconds. One after the other on one thread: the packets travel within the call that sends them.
func (f flow) roundTrips(n int) (float64, error) {
	back := unix.SockaddrInet4{Port: flowPort}
	sa, err := unix.Getsockname(f.near)
	if err != nil {
		return 0, err
	}
	back.Addr = sa.(*unix.SockaddrInet4).Addr
	var b [64]byte
	begin := time.Now()
	for range n {
		for _, step := range []struct {
			from, at int
			to       *unix.SockaddrInet4
		}{{f.near, f.far, &f.to}, {f.far, f.near, &back}} {
			if err := unix.Sendto(step.from, b[:], 0, step.to); err != nil {
				return 0, err
			}
			if _, _, err := unix.Recvfrom(step.at, b[:], 0); err != nil {
				return 0, err
			}
		}
	}
	return float64(time.Since(begin).Microseconds()) / float64(n), nil
}

// others measures what those pay who have nothing to do with the probe.
func others(ctx context.Context, b *bench) error {
	t := table{Title: "What it costs others", Head: []string{"unrelated flow", "hooks", "round trip µs off", "on", "packets/s off", "on", "rate kept"},
		Note: "Datagrams go from client to server through the router and back, one at a time, on one thread: four hops through the kernel each. On and off alternate within a tenth of a second; " +
			"the rate that is kept is the median of the ratios of these pairs. Hooks are on only while a trace runs."}
	watched, err := lab.New("bench")
	if err != nil {
		return err
	}
	defer watched.Close()
	apart, err := lab.New("bench-apart")
	if err != nil {
		return err
	}
	defer apart.Close()
	if err := watched.Nft(lab.Server, "table inet bench {\nchain input {\ntype filter hook input priority 0\ntcp dport 1 drop\n}\n}\n"); err != nil {
		return err
	}
	ours := func(family string, observers bool) func() (func() error, error) {
		return func() (func() error, error) {
			t, err := hooked(watched, family, observers)
			if err != nil {
				return nil, err
			}
			return t.Close, nil
		}
	}
	theirs := func(script string) func() (func() error, error) {
		return func() (func() error, error) { return startBpftrace(ctx, script) }
	}
	const watchedOne, other = "in a watched namespace", "in another namespace"
	for _, w := range []struct {
		name  string
		l     *lab.Lab
		what  string
		pairs int
		hook  func() (func() error, error)
		least float64 // 0: not ours to promise
	}{
		{watchedOne, watched, "tracepoints", max(b.runs, 10), ours(tracer.Tracepoint, false), 98},
		{watchedOne, watched, "tracepoints, rule trace, observers", max(b.runs, 10), ours(tracer.Tracepoint, true), 98},
		{other, apart, "tracepoints, rule trace, observers", max(b.runs, 10), ours(tracer.Tracepoint, true), 99},
		{watchedOne, watched, "tracepoints and fentry of functions", max(b.runs, 10), ours(tracer.Fentry, false), 0},
		{watchedOne, watched, "tracepoints and kprobes of functions", max(b.runs, 10), ours(tracer.Kprobe, false), 0},
		{"anywhere", watched, "bpftrace on the same tracepoints", 3, theirs(bpftraceTwins), 0},
		{"anywhere", watched, "bpftrace on the functions that handle packets, as pwru", 3, theirs(bpftraceBroad), 0},
	} {
		if strings.HasPrefix(w.what, "bpftrace") && !runs("bpftrace") {
			t.Rows = append(t.Rows, []string{w.name, w.what, "does not run here", "", "", "", ""})
			continue
		}
		off, on, err := paired(ctx, w.l, w.pairs, w.hook)
		if errors.Is(err, tracer.ErrTier) {
			t.Rows = append(t.Rows, []string{w.name, w.what, "does not run here", "", "", "", ""})
			continue
		}
		if err != nil {
			return err
		}
		kept := 100 / ratios(on, off).median()
		t.Rows = append(t.Rows, []string{w.name, w.what, fmt.Sprintf("%.1f", off.median()), fmt.Sprintf("%.1f", on.median()),
			fmt.Sprintf("%.0f", 2e6/off.median()), fmt.Sprintf("%.0f", 2e6/on.median()), fmt.Sprintf("%.1f %%", kept)})
		if w.least > 0 {
			b.now.target(target{What: "rate of an unrelated flow " + w.name + " (" + w.what + ")", Limit: w.least, Unit: "%", AtLeast: true, Measured: kept,
				Reason: "each hop through the kernel meets four to five tracepoints, and to enter a program costs about as much as what it does"})
		}
	}
	b.now.Tables = append(b.now.Tables, t)
	return nil
}

// paired measures round trips in a lab with hooks off and on in turn, n times.
func paired(ctx context.Context, l *lab.Lab, n int, hook func() (unhook func() error, err error)) (off, on figures, err error) {
	f, err := newFlow(l)
	if err != nil {
		return nil, nil, err
	}
	defer f.close()
	const trips = 1000
	if _, err := f.roundTrips(trips); err != nil { // neighbours, caches
		return nil, nil, err
	}
	for range n {
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		without, err := f.roundTrips(trips)
		if err != nil {
			return nil, nil, err
		}
		unhook, err := hook()
		if err != nil {
			return nil, nil, err
		}
		with, err := f.roundTrips(trips)
		if err := errors.Join(err, unhook()); err != nil {
			return nil, nil, err
		}
		off, on = append(off, without), append(on, with)
	}
	return off, on, nil
}

// programStats is the run time of one program.
type programStats struct {
	name string
	runs uint64
	ns   float64 // of each
}

// newPrograms lists the programs of the kernel that were not there before.
func newPrograms(before map[ebpf.ProgramID]bool) (out []ebpf.ProgramID, err error) {
	for id, err := ebpf.ProgramGetNextID(0); ; id, err = ebpf.ProgramGetNextID(id) {
		if errors.Is(err, os.ErrNotExist) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if !before[id] {
			out = append(out, id)
		}
	}
}

func known() (map[ebpf.ProgramID]bool, error) {
	all, err := newPrograms(nil)
	out := map[ebpf.ProgramID]bool{}
	for _, id := range all {
		out[id] = true
	}
	return out, err
}

// statsOf reads how long programs ran, all of one name together.
func statsOf(ids []ebpf.ProgramID) ([]programStats, error) {
	sums := map[string]*programStats{}
	for _, id := range ids {
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue // gone since
		}
		info, err := p.Info()
		s, serr := p.Stats()
		p.Close()
		if err := errors.Join(err, serr); err != nil {
			return nil, err
		}
		if sums[info.Name] == nil {
			sums[info.Name] = &programStats{name: info.Name}
		}
		one := sums[info.Name]
		one.runs, one.ns = one.runs+s.RunCount, one.ns+float64(s.Runtime)
	}
	var out []programStats
	for _, s := range sums {
		if s.runs > 0 {
			s.ns /= float64(s.runs)
			out = append(out, *s)
		}
	}
	slices.SortFunc(out, func(a, b programStats) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// emptyName is the name of the program that does nothing.
const emptyName = "bench_nothing"

// nothing is such a program on the tracepoint of every received packet: what the measuring itself takes.
func nothing() (link.Link, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: emptyName, Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "netif_receive_skb", License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return link.AttachTracing(link.TracingOptions{Program: p})
}

const bpftraceTwins = `tracepoint:skb:kfree_skb { @d[args->reason] = count(); } tracepoint:skb:consume_skb { @c = count(); }
tracepoint:net:netif_receive_skb { @r = count(); } tracepoint:net:net_dev_queue { @t = count(); }`

// bpftraceBroad hooks functions by the layer of their names; pwru hooks about fifteen hundred, all that take an skb.
const bpftraceBroad = `kprobe:ip_*,kprobe:nf_hook*,kprobe:skb_*,kprobe:__skb_*,kprobe:udp_*,kprobe:tcp_*,kprobe:dev_*,kprobe:__netif_* { @ = count(); }`

// programs measures each program with packets that are not the probe's.
func programs(ctx context.Context, b *bench) error {
	l, err := lab.New("bench")
	if err != nil {
		return err
	}
	defer l.Close()
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME) // until it is closed, or we end
	if err != nil {
		return fmt.Errorf("have the kernel time programs: %w", err)
	}
	defer stats.Close()
	t := table{Title: "Time of each program for an event that is not the probe's", Head: []string{"program", "runs", "ns each", "net"},
		Note: "By the kernel's own count (kernel.bpf_stats_enabled), which adds the reading of two clocks to each: the last column is without what a program needs that does nothing; a stream of datagrams and TCP segments to closed ports, which are refused."}
	before, err := known()
	if err != nil {
		return err
	}
	empty, err := nothing()
	if err != nil {
		return fmt.Errorf("a program that does nothing: %w", err)
	}
	defer empty.Close()
	tr, err := hooked(l, tracer.Tracepoint, true)
	if err != nil {
		return err
	}
	defer tr.Close()
	ids, err := newPrograms(before)
	if err != nil {
		return err
	}
	for range max(1, b.runs/10) {
		for _, udp := range []bool{false, true} {
			to := netip.AddrPortFrom(l.Addr(lab.Server, 4), 9)
			if err := l.Flood(lab.Client, lab.Flood{From: l.Addr(lab.Client, 4), To: to, UDP: udp, Count: 20000, Ports: 1000}); err != nil {
				return err
			}
		}
	}
	list, err := statsOf(ids)
	if err != nil {
		return err
	}
	worst, base := programStats{}, 0.0
	for _, s := range list {
		if s.name == emptyName {
			base = s.ns
		}
	}
	for _, s := range list {
		if s.runs < 1000 {
			continue // those that run once, to look around
		}
		if s.ns > worst.ns {
			worst = s
		}
		t.Rows = append(t.Rows, []string{s.name, fmt.Sprint(s.runs), fmt.Sprintf("%.0f", s.ns), fmt.Sprintf("%.0f", s.ns-base)})
	}
	if err := tr.Close(); err != nil {
		return err
	}
	if err := bpftraceStats(ctx, l, &t, base); err != nil {
		return err
	}
	b.now.Tables = append(b.now.Tables, t)
	b.now.target(target{What: "an event that is not the probe's, in " + worst.name + ", the slowest, net", Limit: 100, Unit: "ns", Measured: worst.ns - base, Reason: "what the first look does not settle has its headers read one by one by bpf_probe_read_kernel"})
	return nil
}

// bpftraceStats adds what programs of bpftrace on the same tracepoints need to count the same packets.
func bpftraceStats(ctx context.Context, l *lab.Lab, t *table, base float64) error {
	if !runs("bpftrace") {
		t.Rows = append(t.Rows, []string{"bpftrace", "does not run here", "", ""})
		return nil
	}
	before, err := known()
	if err != nil {
		return err
	}
	stop, err := startBpftrace(ctx, bpftraceTwins)
	if err != nil {
		return err
	}
	defer stop()
	ids, err := newPrograms(before)
	if err != nil {
		return err
	}
	for _, udp := range []bool{false, true} {
		to := netip.AddrPortFrom(l.Addr(lab.Server, 4), 9)
		if err := l.Flood(lab.Client, lab.Flood{From: l.Addr(lab.Client, 4), To: to, UDP: udp, Count: 20000, Ports: 1000}); err != nil {
			return err
		}
	}
	list, err := statsOf(ids)
	if err != nil {
		return err
	}
	for _, s := range list {
		if s.runs >= 1000 {
			t.Rows = append(t.Rows, []string{"bpftrace: " + s.name, fmt.Sprint(s.runs), fmt.Sprintf("%.0f", s.ns), fmt.Sprintf("%.0f", s.ns-base)})
		}
	}
	return nil
}

// startBpftrace starts a script, and returns when all of its probes are attached. That is in an order of its own,
// so that there is one on either side which tells.
func startBpftrace(ctx context.Context, script string) (stop func() error, err error) {
	cmd := exec.CommandContext(ctx, which("bpftrace"), "-e", "interval:ms:500 { printf(\"first\\n\"); }\n"+script+"\ninterval:ms:501 { printf(\"last\\n\"); }")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() error {
		_ = cmd.Process.Signal(unix.SIGINT)
		return cmd.Wait()
	}
	var said strings.Builder
	for b := make([]byte, 4096); !strings.Contains(said.String(), "first\n") || !strings.Contains(said.String(), "last\n"); {
		n, err := out.Read(b)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("bpftrace: %w", err), stop())
		}
		said.Write(b[:n])
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // it goes on to tell
	return stop, nil
}
