// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg"
	"github.com/pathtrace/pathtrace/tracer"
)

// TestRandomRulesets sends datagrams through generated rulesets, with one
// tracer for all, and holds each rule that the kernel's functions name against
// the generator's own judge. PATHTRACE_RULESETS says how many, half of nftables
// and half of iptables-legacy; PATHTRACE_SEED from where on.
func TestRandomRulesets(t *testing.T) {
	count, seed := number(t, "PATHTRACE_RULESETS", 20), number(t, "PATHTRACE_SEED", 1)
	b := functionBench(t)
	decisions, differences := 0, 0
	for i := range count {
		g := generator{rand.New(rand.NewPCG(uint64(seed+i), 0))}
		r := g.nft()
		if i%2 == 1 {
			r = g.iptables()
		}
		text := b.load(r)
		for nth := range 5 {
			if nth >= 3 && !r.legacy { // the same ruleset, changed under the tracer
				text += "# then:\n" + b.edit(g, r)
			}
			p := datagram{sources[g.IntN(len(sources))], g.port()}
			want, got := r.judge(p), b.send(r, p)
			decisions += len(want)
			if diff := cmp.Diff(want, got); diff != "" {
				differences++
				t.Errorf("ruleset %d, %+v (-judge +kernel):\n%s\n%s\nunseen: %s", seed+i, p, diff, text, b.unseen)
			}
		}
	}
	t.Logf("%s: %d rulesets, %d decisions, %d differences", b.tracer.Family(), count, decisions, differences)
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// bench is a namespace with a tracer that stays open.
type bench struct {
	t      *testing.T
	n      *netcfg.Netns
	tracer *tracer.Tracer
	legacy bool // what is loaded now

	mu      sync.Mutex
	records []tracer.Record
	ended   chan struct{}
	unseen  []string
}

func newBench(t *testing.T, n *netcfg.Netns, family string) *bench {
	b := &bench{t: t, n: n, ended: make(chan struct{}, 64)}
	// every module comes now: those that come later are not hooked
	b.tool("nft", "-f", "/dev/stdin", "add table inet warm\nadd chain inet warm c { type filter hook output priority 0; }\nadd rule inet warm c udp dport vmap { 1 : drop }\nadd rule inet warm c udp dport 2 counter reject\n"+
		"add table ip warm\nadd chain ip warm c\nadd rule ip warm c udp dport 2 reject\n")
	b.tool("iptables-legacy-restore", noRules)
	b.tool("iptables-legacy-restore", "*filter\n-A OUTPUT -p udp -m multiport --dports 1,2 -j REJECT\nCOMMIT\n*mangle\n-A OUTPUT -j MARK --set-mark 7\nCOMMIT\n")
	var err error
	b.tracer, err = tracer.Open(tracer.Options{Hooks: family, NetnsName: func(i uint32) string {
		if i == uint32(n.Inode) {
			return n.Name
		}
		return ""
	}, Take: b.take})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.tracer.Close() })
	if !b.tracer.SeesRules() || !b.tracer.SeesTables(4) {
		t.Fatalf("facts: %v; missing: %v", b.tracer.Facts(), b.tracer.Missing)
	}
	return b
}

// take keeps the forward packet's records; that it was freed ends the wait.
func (b *bench) take(r tracer.Record) {
	b.mu.Lock()
	b.records = append(b.records, r)
	b.mu.Unlock()
	if e := r.Event; e.Kind == evidence.Drop && e.Direction == evidence.Forward && e.Packet != nil && e.Packet.Protocol == "udp" {
		b.ended <- struct{}{}
	}
}

func (b *bench) tool(name string, args ...string) string {
	b.t.Helper()
	var out []byte
	err := b.n.Do(func() error {
		cmd := exec.Command(name, args[:len(args)-1]...)
		cmd.Stdin = strings.NewReader(args[len(args)-1])
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		var err error
		if out, err = cmd.Output(); err != nil {
			return fmt.Errorf("%s: %w: %s\n%s", name, err, stderr.String(), args[len(args)-1])
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return string(out)
}

// noRules empties the tables of iptables-legacy; a policy that is not named would stay.
const noRules = "*raw\n:OUTPUT ACCEPT\nCOMMIT\n*mangle\n:OUTPUT ACCEPT\n:INPUT ACCEPT\nCOMMIT\n" +
	"*filter\n:OUTPUT ACCEPT\n:INPUT ACCEPT\nCOMMIT\n*security\n:OUTPUT ACCEPT\n:INPUT ACCEPT\nCOMMIT\n"

var addedRule = regexp.MustCompile(`(?m)^add rule (\S+) (\S+) (\S+) .*# handle (\d+)$`)

// load replaces what is there by a ruleset.
func (b *bench) load(r *ruleset) string {
	b.t.Helper()
	if r.legacy != b.legacy {
		if b.legacy {
			b.tool("iptables-legacy-restore", noRules)
		} else {
			b.tool("nft", "flush", "ruleset", "")
		}
		b.legacy = r.legacy
	}
	if r.legacy {
		text := r.iptablesText()
		b.tool("iptables-legacy-restore", text)
		if unseen, err := b.tracer.WatchTables(uint32(b.n.Inode), 4); err != nil || len(unseen) > 0 {
			b.t.Fatal(err, unseen)
		}
		return text
	}
	return b.loadNFT(r)
}

// loadNFT loads a ruleset of nftables, and learns the handles of its rules.
func (b *bench) loadNFT(r *ruleset) string {
	b.t.Helper()
	text := r.nftText()
	for _, m := range addedRule.FindAllStringSubmatch(b.tool("nft", "-e", "-a", "-f", "/dev/stdin", text), -1) {
		h, _ := strconv.ParseUint(m[4], 10, 64)
		for _, c := range r.chains {
			if c.family == m[1] && c.table == m[2] && c.name == m[3] {
				c.handles = append(c.handles, h)
			}
		}
	}
	for _, c := range r.chains {
		if len(c.handles) != len(c.rules) {
			b.t.Fatalf("%d handles for %d rules of %s:\n%s", len(c.handles), len(c.rules), c.name, text)
		}
	}
	return text
}

var listedRule = regexp.MustCompile(`(?m)[^{] # handle (\d+)$`)

// edit changes one rule of what is loaded, and learns the chain's handles anew.
func (b *bench) edit(g generator, r *ruleset) string {
	b.t.Helper()
	c, command := g.edit(r)
	b.tool("nft", "-f", "/dev/stdin", command+"\n")
	c.handles = nil
	for _, m := range listedRule.FindAllStringSubmatch(b.tool("nft", "-a", "list", "chain", c.family, c.table, c.name, ""), -1) {
		h, _ := strconv.ParseUint(m[1], 10, 64)
		c.handles = append(c.handles, h)
	}
	if len(c.handles) != len(c.rules) {
		b.t.Fatalf("%d handles for %d rules of %s after %s", len(c.handles), len(c.rules), c.name, command)
	}
	return command + "\n"
}

// send sends one datagram, and returns the steps that gave a verdict.
func (b *bench) send(r *ruleset, p datagram) []string {
	b.t.Helper()
	b.mu.Lock()
	b.records, b.unseen = nil, nil
	b.mu.Unlock()
	for len(b.ended) > 0 {
		<-b.ended
	}
	err := b.n.Do(func() error {
		to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(p.port))
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(p.source)})
		if err != nil {
			return err
		}
		defer c.Close()
		if err := b.tracer.Watch(tracer.Key{Protocol: unix.IPPROTO_UDP, Target: to}); err != nil {
			return err
		}
		if err := b.tracer.Follow(unix.IPPROTO_UDP, c.LocalAddr().(*net.UDPAddr).AddrPort(), to); err != nil {
			return err
		}
		_, _ = c.WriteToUDPAddrPort([]byte("x"), to) // EPERM where OUTPUT drops it
		select {
		case <-b.ended:
		case <-time.After(20 * time.Second):
			return fmt.Errorf("%+v: its end was not seen", p)
		}
		return nil
	})
	if err == nil {
		err = b.tracer.Flush()
	}
	if n := b.tracer.Lost(); err == nil && n != 0 {
		err = fmt.Errorf("%+v: %d events lost", p, n)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return b.steps(r)
}

// steps words what was seen of the forward packet, as the judge does.
func (b *bench) steps(r *ruleset) []string {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, rec := range b.records {
		switch {
		case rec.Unseen != "":
			b.unseen = append(b.unseen, rec.Unseen)
		case rec.Counters != nil:
			if rec.Counters.Event.Direction == evidence.Forward {
				out = append(out, b.replay(rec.Counters)...)
			}
		case rec.Event.Rule != nil && rec.Event.Direction == evidence.Forward && rec.Event.Packet.Protocol == "udp":
			s := rec.Event.Rule
			out = append(out, stepWords(s.Family, s.Table, s.Chain, r.numberOf(s), s.Verdict, s.Target))
		}
	}
	return out
}

// numberOf finds a handle's rule; -1 when no such rule was loaded, 0 for a policy.
func (r *ruleset) numberOf(s *evidence.RuleStep) int {
	if s.Policy {
		return 0
	}
	for _, c := range r.chains {
		if c.family != s.Family || c.table != s.Table || c.name != s.Chain {
			continue
		}
		for i, h := range c.handles {
			if h == s.Handle {
				return i + 1
			}
		}
	}
	return -1
}

func (b *bench) replay(c *tracer.Counters) []string {
	if c.Trouble != "" {
		b.unseen = append(b.unseen, c.Trouble)
		return nil
	}
	table, err := b.n.LegacyTable(c.Family, c.Table)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, exists := table.HookEntry[c.Event.Hook]; !exists || c.Event.Hook == evidence.Prerouting || c.Event.Hook == evidence.Postrouting {
		return nil // rules were made for OUTPUT and INPUT alone
	}
	steps, err := table.Replay(c.Event.Hook, func(i int) uint64 { return c.Moved[i] })
	if err != nil {
		b.unseen = append(b.unseen, err.Error())
		return nil
	}
	var out []string
	for i, s := range steps {
		if s.Verdict == "continue" || s.Verdict == "return" && s.Number == 0 {
			continue
		}
		target := s.Target
		if s.Verdict != "jump" && s.Verdict != "goto" {
			target = ""
		}
		if i == len(steps)-1 && s.Verdict != c.Result {
			b.unseen = append(b.unseen, fmt.Sprintf("%s, but the table said %s", s.Verdict, c.Result))
		}
		out = append(out, stepWords("ip", s.Table, s.Chain, s.Number, s.Verdict, target))
	}
	return out
}
