// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pathtrace/pathtrace/internal/lab"
	"github.com/pathtrace/pathtrace/netcfg"
)

// outcomes, and the faults of the lab that give them.
var outcomes = []struct{ name, fault string }{
	{"reachable", "reachable"},
	{"refused", "no-listener"},
	{"dropped by rule", "nft-input"},
	{"policy", "nft-policy"},
	{"no route", "no-route-router"},
	{"full queue [2]", waits},
}

// waits is the fault that is not known at once: a queue may empty, so that a retransmission is awaited.
const waits = "accept-queue-full"

// peers are what people would use instead.
func peers(to netip.AddrPort) map[string][]string {
	host, port := to.Addr().String(), strconv.Itoa(int(to.Port()))
	return map[string][]string{
		"nc -z -w 3":             {"nc", "-z", "-w", "3", host, port},
		"nmap -Pn -p --reason":   {"nmap", "-Pn", "-n", "-p", port, "--reason", host},
		"traceroute -T":          {"traceroute", "-T", "-n", "-p", port, host},
		"bpftrace kfree_skb [1]": {"bpftrace", "-e", "tracepoint:skb:kfree_skb { exit(); }", "-c", which("nc") + " -z -w 3 " + host + " " + port},
	}
}

var peerNames = []string{"nc -z -w 3", "nmap -Pn -p --reason", "traceroute -T", "bpftrace kfree_skb [1]"}

// runs reports whether a peer does on this machine: bpftrace knows tracepoints by tracefs.
func runs(name string) bool {
	path := which(name)
	if path == "" || name != "bpftrace" {
		return path != ""
	}
	out, err := exec.Command(path, "-l", "tracepoint:skb:kfree_skb").Output()
	return err == nil && strings.Contains(string(out), "kfree_skb")
}

func which(name string) string {
	path, _ := exec.LookPath(name)
	return path
}

// slow is when a peer is run three times only.
const slow = time.Second

// cold measures the way from the start of the process to its verdict.
func cold(ctx context.Context, b *bench) error {
	t := table{Title: "Cold start to verdict", Head: append([]string{"outcome", "pathtrace ms (p95)"}, peerNames...),
		Note: "Median milliseconds, the 95th percentile in brackets, and how many times as long as pathtrace a peer needs. " +
			"Peers that need more than a second were run three times. [1]: from its start to the first event while `nc` connects, or to the end of `nc` when there is none; what the event means is then still to be found out. [2]: not known at once: a full queue may empty, so that one retransmission, after a second, is awaited; it does not count for the targets."}
	parts := table{Title: "Where the time goes", Head: []string{"outcome"}, Note: "Median milliseconds by `--timing`."}
	var names []string
	var all, detach figures
	for i, o := range outcomes {
		s, row, err := b.coldOutcome(ctx, o.name, o.fault)
		if err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
		t.Rows, detach = append(t.Rows, row), append(detach, s.parts["detach_ns"]...)
		if o.fault != waits {
			all = append(all, s.took...)
		}
		if i == 0 {
			for name := range s.parts {
				names = append(names, name)
			}
			slices.Sort(names)
			for _, name := range names {
				parts.Head = append(parts.Head, name[:len(name)-len("_ns")])
			}
		}
		line := []string{o.name}
		for _, name := range names {
			line = append(line, fmt.Sprintf("%.1f", s.parts[name].median()))
		}
		parts.Rows = append(parts.Rows, line)
	}
	b.now.Tables = append(b.now.Tables, t, parts)
	b.now.target(target{What: "median cold start to verdict, immediate outcomes", Limit: 120, Unit: "ms", Measured: all.median(),
		Reason: "loading is most of it (see below): the kernel verifies the programs each time, and its BTF is read; a process that does nothing takes what the table of sizes says, for gopacket/layers fills 6 MiB of tables first"})
	b.now.target(target{What: "p95 of it", Limit: 250, Unit: "ms", Measured: all.p95()})
	b.now.target(target{What: "median detach", Limit: 30, Unit: "ms", Measured: detach.median()})
	return nil
}

func (b *bench) coldOutcome(ctx context.Context, name, fault string) (s series, row []string, err error) {
	f, ok := lab.Find(fault)
	if !ok {
		return s, nil, fmt.Errorf("the lab has no fault %s", fault)
	}
	l, err := lab.Start("bench", f)
	if err != nil {
		return s, nil, err
	}
	defer l.Close()
	to, err := netip.ParseAddrPort(f.Target(l))
	if err != nil {
		return s, nil, err
	}
	commands := peers(to)
	took := map[string]figures{}
	for i := range b.runs {
		t, err := b.trace(ctx, l.Netns(lab.Client), f.Cause, f.Arguments(l)...)
		if err != nil {
			return s, nil, err
		}
		s.add(t)
		for _, p := range peerNames {
			if i >= 3 && took[p].median() > milliseconds(slow) || took[p].median() >= milliseconds(limit) || !runs(commands[p][0]) {
				continue
			}
			r, err := timed(ctx, limit, l.Netns(lab.Client), commands[p]...)
			if err != nil && (ctx.Err() != nil || r.took < limit) {
				return s, nil, err
			}
			took[p] = append(took[p], milliseconds(r.took))
		}
	}
	own := s.took.median()
	row = []string{name, fmt.Sprintf("%s (%s)", ms(own), ms(s.took.p95()))}
	for _, p := range peerNames {
		if len(took[p]) == 0 {
			row = append(row, "does not run here")
			continue
		}
		if took[p].median() >= milliseconds(limit) {
			row = append(row, "> "+ms(milliseconds(limit)))
			continue
		}
		row = append(row, fmt.Sprintf("%s (%s), %.2g×", ms(took[p].median()), ms(took[p].p95()), took[p].median()/own))
	}
	return s, row, nil
}

// size of the binary without its symbols, and memory.
func size(ctx context.Context, b *bench) error {
	loaded, err := loadedSize(b.pathtrace)
	if err != nil {
		return err
	}
	t := table{Title: "Size", Head: []string{"what", "value"}}
	t.Rows = append(t.Rows, []string{"binary without symbols", fmt.Sprintf("%.1f MiB", loaded)})
	n, err := b.goroutines(ctx)
	if err != nil {
		return err
	}
	t.Rows = append(t.Rows, []string{"goroutines while the probe waits", strconv.Itoa(n)})
	var start figures
	for range b.runs {
		r, err := timed(ctx, ownLimit, strconv.Itoa(os.Getpid()), b.pathtrace, "--version")
		if err != nil {
			return err
		}
		start = append(start, milliseconds(r.took))
	}
	t.Rows = append(t.Rows, []string{"a process that does nothing (`--version`), ms (p95)", fmt.Sprintf("%s (%s)", ms(start.median()), ms(start.p95()))})
	b.now.Tables = append(b.now.Tables, t)
	b.now.target(target{What: "stripped binary", Limit: 12, Unit: "MiB", Measured: loaded,
		Reason: "packet layers (gopacket), TLS, HTTP and the demo's networks are all in it"})
	return nil
}

// goroutines counts those of a trace that awaits a retransmission, by the stacks that the Go runtime prints on SIGQUIT.
func (b *bench) goroutines(ctx context.Context) (int, error) {
	f, ok := lab.Find(waits)
	if !ok {
		return 0, fmt.Errorf("the lab has no fault %s", waits)
	}
	l, err := lab.Start("bench", f)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	n, err := netcfg.Open(l.Netns(lab.Client))
	if err != nil {
		return 0, err
	}
	defer n.Close()
	var stacks bytes.Buffer
	cmd := exec.CommandContext(ctx, b.pathtrace, f.Arguments(l)...)
	cmd.Stderr, cmd.Env = &stacks, append(os.Environ(), "GOTRACEBACK=all")
	if err := n.Start(cmd); err != nil {
		return 0, err
	}
	time.AfterFunc(settled, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) })
	_ = cmd.Wait() // it is killed
	count := bytes.Count(stacks.Bytes(), []byte("\ngoroutine "))
	if count == 0 {
		return 0, errors.New("pathtrace ended before it was asked for its stacks")
	}
	return count, nil
}

// settled is when the trace of a full queue is under way and its retransmission, after a second, still to come.
const settled = 700 * time.Millisecond

// loadedSize is the size in MiB of an ELF file without symbols and debugging information, as strip leaves it.
func loadedSize(name string) (float64, error) {
	f, err := elf.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var n uint64
	for _, s := range f.Sections {
		if s.Flags&elf.SHF_ALLOC != 0 && s.Type != elf.SHT_NOBITS {
			n += s.FileSize
		}
	}
	return float64(n) / (1 << 20), nil
}
