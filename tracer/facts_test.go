// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/probe"
	"github.com/pathtrace/pathtrace/tracer"
)

// told is a fact, and what it was told by: a family of hooks, the trace table, observers; "" where nothing told it.
type told struct {
	Fact string `json:"fact"`
	By   string `json:"by"`
}

// TestFacts has the kernel tell what it can of a few packets, by each family of
// hooks, and holds that against what docs/requirements.md says of this kernel.
func TestFacts(t *testing.T) {
	for _, tool := range []string{"nft", "iptables-legacy", "ip6tables-legacy", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs ", tool)
		}
	}
	families := []string{tracer.Fentry, tracer.Kprobe, tracer.Tracepoint}
	if f := os.Getenv("PATHTRACE_HOOKS"); f != "" {
		families = []string{f}
	}
	for _, family := range families {
		t.Run(family, func(t *testing.T) {
			var refused error
			inNetns(t, func(inode uint32) { refused = checkFacts(t, inode, family) })
			switch {
			case refused == nil:
			case len(families) == 1: // it was asked for
				t.Error(refused)
			default:
				t.Skip(refused)
			}
		})
	}
}

// checkFacts returns why the family of hooks cannot be used here, if so.
func checkFacts(t *testing.T, inode uint32, family string) (refused error) {
	s := &scene{t: t, inode: inode}
	s.seen.L = &s.mu
	// every module comes now: those that come later are not hooked
	s.run("nft", "add table inet fw\nadd chain inet fw web\nadd chain inet fw in { type filter hook input priority 0; }\n"+
		"add rule inet fw web tcp dport 81 accept\nadd rule inet fw in tcp dport vmap { 81 : jump web }\n"+
		"add table ip last\nadd chain ip last in { type filter hook input priority 10; policy drop; }\nadd rule ip last in tcp dport != 81 accept\nadd rule ip last in udp dport 85 accept\n")
	s.run("iptables-legacy-restore", "*filter\n-A INPUT -p tcp --dport 83 -j REJECT\nCOMMIT\n")
	s.run("ip6tables-legacy-restore", "*filter\n-A INPUT -p tcp --dport 84 -j DROP\nCOMMIT\n")
	s.run("ip", "link add here0 type veth peer name there0\nlink set there0 up\naddr add 198.51.100.1/24 dev here0\nlink set here0 up\n")
	rec := &tracer.Recording{Netns: inode}
	o := tracer.Options{Hooks: family, NetnsName: func(i uint32) string {
		if i == inode {
			return "here"
		}
		return "elsewhere"
	}, Take: s.take}
	rec.Into(&o, "server", filepath.Base(os.Args[0])[:min(15, len(filepath.Base(os.Args[0])))])
	var err error
	s.tr, err = tracer.Open(o)
	if errors.Is(err, tracer.ErrTier) {
		return err
	}
	if err != nil {
		t.Error(err)
		return nil
	}
	defer s.tr.Close()
	s.play()
	if err := errors.Join(s.tr.Flush(), s.tr.Err()); err != nil {
		t.Error(err)
	}
	if n := s.tr.Lost(); n != 0 {
		t.Errorf("%d events lost", n)
	}
	rec.Names(s.tr)
	s.compare(family, rec)
	return nil
}

// scene is a namespace whose packets are watched.
type scene struct {
	t     *testing.T
	inode uint32
	tr    *tracer.Tracer

	mu      sync.Mutex
	seen    sync.Cond
	late    bool
	records []tracer.Record
}

func (s *scene) take(r tracer.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = append(s.records, r)
	s.seen.Broadcast()
}

// await returns when such an event was seen.
func (s *scene) await(what string, match func(*evidence.Event) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = false
	late := time.AfterFunc(20*time.Second, func() { s.mu.Lock(); s.late = true; s.mu.Unlock(); s.seen.Broadcast() })
	defer late.Stop()
	for !slices.ContainsFunc(s.records, func(r tracer.Record) bool { return match(&r.Event) }) {
		if s.late {
			s.t.Errorf("not seen: %s", what)
			return
		}
		s.seen.Wait()
	}
}

// run gives a tool its input: nft and the restorers a file, ip a batch.
func (s *scene) run(name, input string) {
	args := map[string][]string{"nft": {"-f", "-"}, "ip": {"-batch", "-"}}[name]
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Errorf("%s: %v: %s", name, err, out)
	}
}

func dropped(port int) func(*evidence.Event) bool {
	return func(e *evidence.Event) bool {
		return e.Kind == evidence.Drop && e.Packet != nil && e.Packet.DPort == port
	}
}

// play sends the packets.
func (s *scene) play() {
	s.connect("127.0.0.1:7", 5*time.Second)
	s.connect("[::1]:7", 5*time.Second)
	s.accepted()
	const short = 50 * time.Millisecond
	s.connect("127.0.0.1:81", short)
	s.await("the drop by a policy of nftables", dropped(81))
	s.connect("127.0.0.1:83", short)
	s.await("the drop by a rule of iptables-legacy", dropped(83))
	s.connect("[::1]:84", short)
	s.await("the drop by a rule of ip6tables-legacy", dropped(84))
	s.connect("198.51.100.2:86", short)
	if !slices.ContainsFunc(s.tr.Missing, func(m string) bool { return strings.Contains(m, "neigh_event_send_done") }) {
		s.await("the request for a link address", func(e *evidence.Event) bool { return e.Kind == evidence.NeighborEvt })
	}
	s.filtered()
}

// connect sends one SYN, and watches it by all that the tracer has.
func (s *scene) connect(target string, timeout time.Duration) {
	to := netip.MustParseAddrPort(target)
	p, err := probe.Open(probe.Config{Protocol: "tcp", Target: to, Timeout: timeout})
	if err != nil {
		s.t.Error(err)
		return
	}
	defer p.Close()
	key := tracer.Key{Protocol: unix.IPPROTO_TCP, ISN: p.ISN(), Target: to}
	if err := s.tr.Watch(key); err != nil {
		s.t.Error(err)
	}
	version := 4
	if to.Addr().Is6() {
		version = 6
	}
	if !s.tr.SeesRules() && to.Port() == 81 {
		if err := s.tr.TraceRules(s.inode, key); err != nil {
			s.t.Error(err)
		}
	}
	var unseen []string
	switch {
	case to.Port() != 83 && to.Port() != 84:
	case s.tr.SeesTables(version):
		unseen, err = s.tr.WatchTables(s.inode, version)
	default:
		unseen, err = s.tr.Observe(s.inode, version)
	}
	if err != nil && !errors.Is(err, tracer.ErrNoObservers) || len(unseen) > 0 {
		s.t.Error(err, unseen)
	}
	p.Run(context.Background())
}

// accepted connects to a server that closes at once.
func (s *scene) accepted() {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		s.t.Error(err)
		return
	}
	defer l.Close()
	closed := make(chan error)
	go func() {
		c, err := l.Accept()
		if err == nil {
			err = c.Close()
		}
		closed <- err
	}()
	s.connect(l.Addr().String(), 5*time.Second)
	if err := <-closed; err != nil {
		s.t.Error(err)
	}
}

// filtered sends a datagram to a socket whose filter takes none.
func (s *scene) filtered() {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer unix.Close(fd)
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	err = errors.Join(
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing[0]}),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 85}))
	to := netip.MustParseAddrPort("127.0.0.1:85")
	err = errors.Join(err, s.tr.Watch(tracer.Key{Protocol: unix.IPPROTO_UDP, Target: to}))
	c, e := net.Dial("udp4", to.String())
	if err = errors.Join(err, e); err != nil {
		s.t.Error(err)
		return
	}
	defer c.Close()
	if err := s.tr.Follow(unix.IPPROTO_UDP, c.LocalAddr().(*net.UDPAddr).AddrPort(), to); err != nil {
		s.t.Error(err)
	}
	_, _ = c.Write([]byte("x"))
	s.await("the drop by a socket's filter", dropped(85))
}

// facts that the records tell, each in the words of docs/requirements.md.
func (s *scene) facts() []told {
	has := func(match func(e *evidence.Event) bool) bool {
		return slices.ContainsFunc(s.records, func(r tracer.Record) bool { return r.Counters == nil && r.Unseen == "" && match(&r.Event) })
	}
	kind := func(k evidence.Kind, also func(e *evidence.Event) bool) bool {
		return has(func(e *evidence.Event) bool { return e.Kind == k && (also == nil || also(e)) })
	}
	closed := func(e *evidence.Event) bool { return dropped(7)(e) && e.Netns == "here" }
	family := s.tr.Family()
	function := func(fact string) string { // what told it, where a function may have
		for _, f := range s.tr.Facts() {
			if f.Fact == fact {
				return f.By
			}
		}
		return tracer.Tracepoint
	}
	table := func(version int) (bool, string) {
		by := "observers"
		if s.tr.SeesTables(version) {
			by = family
		}
		return slices.ContainsFunc(s.records, func(r tracer.Record) bool {
			return r.Counters != nil && r.Counters.Family == version && r.Counters.Trouble == "" && len(r.Counters.Moved) > 0 && r.Counters.Event.Hook == evidence.Input
		}), by
	}
	rules := "trace table"
	if s.tr.SeesRules() {
		rules = family
	}
	legacy4, by4 := table(4)
	legacy6, by6 := table(6)
	var out []told
	for _, f := range []struct {
		fact string
		seen bool
		by   string
	}{
		{"devices and namespaces that a packet passes", kind(evidence.Receive, func(e *evidence.Event) bool { return e.Netns == "here" && e.Device == "lo" }), tracer.Tracepoint},
		{"where it was dropped: function and callers", has(func(e *evidence.Event) bool {
			return closed(e) && strings.HasPrefix(e.Function, "tcp_") && len(e.Stack) > 0
		}), tracer.Tracepoint},
		{"why it was dropped, in the kernel's word", has(func(e *evidence.Event) bool { return closed(e) && e.Reason == "NO_SOCKET" }), tracer.Tracepoint},
		{"the function that used a packet up", kind(evidence.Consume, func(e *evidence.Event) bool { return e.Function != "" }), tracer.Tracepoint},
		{"the rule of nftables (also iptables-nft)", kind(evidence.RuleVerdict, func(e *evidence.Event) bool {
			return e.Rule.Table == "fw" && e.Rule.Chain == "web" && e.Rule.Handle != 0 && e.Rule.Verdict == "accept"
		}), rules},
		{"the policy of nftables", kind(evidence.RuleVerdict, func(e *evidence.Event) bool {
			return e.Rule.Table == "last" && e.Rule.Policy && e.Rule.Verdict == "drop"
		}), rules},
		{"the rule of iptables-legacy", legacy4, by4},
		{"the rule of ip6tables-legacy", legacy6, by6},
		{"IPv4 routing tables that were asked", kind(evidence.Route, func(e *evidence.Event) bool { return strings.Contains(e.Route.Dest, ".") }), tracer.Tracepoint},
		{"IPv6 routing tables that were asked", kind(evidence.Route, func(e *evidence.Event) bool { return strings.Contains(e.Route.Dest, ":") }), tracer.Tracepoint},
		{"next hops that do not answer", kind(evidence.NeighborEvt, nil), tracer.Tracepoint},
		{"the process that accepted", kind(evidence.Accept, nil), function("processes that accept")},
		{"how a connection ended, and what it carried", kind(evidence.State, func(e *evidence.Event) bool { return e.State.End != nil }), tracer.Tracepoint},
		{"the RST for a packet that no socket takes", kind(evidence.ResetSent, nil), function("RSTs for packets that no socket takes")},
		{"why a RST was sent, in the kernel's word", kind(evidence.ResetSent, func(e *evidence.Event) bool { return e.Reason != "" }), tracer.Tracepoint},
		{"RSTs that were taken", kind(evidence.ResetGot, nil), tracer.Tracepoint},
		{"ICMP errors that IPv4 sends", kind(evidence.ICMPSent, nil), tracer.Tracepoint},
		{"the socket whose filter refuses", has(func(e *evidence.Event) bool { return dropped(85)(e) && e.Socket != nil && e.Socket.Filter }), function("sockets whose filter refuses")},
	} {
		if !f.seen {
			f.by = ""
		}
		out = append(out, told{f.fact, f.by})
	}
	return out
}

// compare holds what was told against testdata, or with -update writes it there.
func (s *scene) compare(family string, rec *tracer.Recording) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		s.t.Error(err)
		return
	}
	v := strings.SplitN(unix.ByteSliceToString(u.Release[:]), ".", 3)
	base := filepath.Join("testdata", v[0]+"."+v[1]+"-"+family)
	facts := s.facts()
	if flag.Lookup("update").Value.String() == "true" {
		if dir := os.Getenv("PATHTRACE_RECORD"); dir != "" {
			base = filepath.Join(dir, filepath.Base(base))
		}
		text, err := json.MarshalIndent(facts, "", "\t")
		if err == nil {
			err = errors.Join(os.WriteFile(base+".facts.json", append(text, '\n'), 0o644), rec.Write(base+".samples.gz"))
		}
		if err != nil {
			s.t.Error(err)
		}
		return
	}
	text, err := os.ReadFile(base + ".facts.json")
	if errors.Is(err, os.ErrNotExist) {
		s.t.Logf("no recording of Linux %s.%s with %s to compare with: %+v", v[0], v[1], family, facts)
		return
	}
	var want []told
	if err = errors.Join(err, json.Unmarshal(text, &want)); err != nil {
		s.t.Error(err)
	}
	if d := cmp.Diff(want, facts); d != "" {
		s.t.Errorf("%s (-want +got):\n%s\nmissing: %s", base, d, strings.Join(s.tr.Missing, "\n"))
	}
}
