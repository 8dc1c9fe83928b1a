// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// buildOnly makes this test binary build a lab of that name and wait, for [TestSweep].
const buildOnly = "PATHTRACE_LAB_TEST_BUILD"

func TestMain(m *testing.M) {
	Helper()
	if prefix := os.Getenv(buildOnly); prefix != "" {
		l, err := New(prefix)
		if err == nil {
			err = l.Serve(Server, Listen{Addr: netip.AddrPortFrom(addr(Server, 4), Port)})
		}
		fmt.Println(err)
		select {}
	}
	os.Exit(m.Run())
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// prefix names a lab after this process and a number, so that tests can run side by side.
func prefix(n int) string { return fmt.Sprintf("lt%x-%d", os.Getpid(), n) }

// symptoms are what a plain client sees, by cause; several where the family or the side makes a difference.
var symptoms = map[string][]error{
	"reachable":           {nil},
	"no-listener":         {unix.ECONNREFUSED},
	"listener-elsewhere":  {unix.ECONNREFUSED},
	"firewall-drop":       {unix.ETIMEDOUT, unix.EHOSTUNREACH}, // of a question for a link address
	"firewall-policy":     {unix.ETIMEDOUT},
	"firewall-reject":     {unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.EACCES},
	"rp-filter":           {unix.ETIMEDOUT},
	"accept-queue-full":   {unix.ETIMEDOUT},
	"forwarding-disabled": {unix.ETIMEDOUT},
	"no-route":            {unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ETIMEDOUT},
	"route-blackhole":     {unix.ETIMEDOUT, unix.EINVAL},
	// Of a reply, nobody tells the client.
	"route-unreachable":   {unix.EHOSTUNREACH, unix.ENETUNREACH, unix.ETIMEDOUT},
	"route-prohibit":      {unix.EHOSTUNREACH, unix.EACCES, unix.ETIMEDOUT},
	"link-down":           {unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ETIMEDOUT},
	"neighbor-unresolved": {unix.EHOSTUNREACH, unix.ETIMEDOUT},
	"ttl-expired":         {unix.ETIMEDOUT, unix.EHOSTUNREACH},
	// It depends on the server: a close, a reset where its client's words were not read, five seconds of silence from tcpd.
	"libwrap-denied":        {nil, unix.ECONNRESET, unix.ETIMEDOUT},
	"syn-queue-full":        {unix.ETIMEDOUT},
	"receive-buffer-full":   {unix.ETIMEDOUT},
	"md5-mismatch":          {unix.ETIMEDOUT},
	"min-ttl":               {unix.ETIMEDOUT},
	"socket-filter":         {unix.ETIMEDOUT},
	"time-wait":             {unix.EADDRNOTAVAIL, unix.ETIMEDOUT},
	"cgroup-bpf":            {unix.ETIMEDOUT, unix.EPERM},
	"tc-drop":               {unix.ETIMEDOUT},
	"xdp-drop":              {unix.ETIMEDOUT},
	"qdisc-drop":            {unix.ETIMEDOUT, unix.ENOBUFS},
	"xfrm-policy":           {unix.ETIMEDOUT, unix.EPERM},
	"nfqueue-unread":        {unix.ETIMEDOUT},
	"nfqueue-drop":          {unix.ETIMEDOUT},
	"unexplained":           {unix.ETIMEDOUT},
	"wrong-destination-mac": {unix.ETIMEDOUT, unix.EHOSTUNREACH},
	"bridge-port-blocked":   {unix.ETIMEDOUT, unix.EHOSTUNREACH},
	"bridge-isolated":       {unix.ETIMEDOUT, unix.EHOSTUNREACH},
	"ipv6-disabled":         {unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EADDRNOTAVAIL, unix.EACCES},
	"not-our-address":       {unix.ETIMEDOUT},
	"martian-source":        {unix.ETIMEDOUT, unix.EINVAL},
	"martian-destination":   {unix.ETIMEDOUT, unix.ENETUNREACH},
	"mtu-exceeded":          {unix.ETIMEDOUT, unix.EMSGSIZE},
	"pmtu-blackhole":        {unix.ETIMEDOUT},
	"bad-checksum":          {unix.ETIMEDOUT},
	"remote-reset":          {unix.ECONNREFUSED},
	"remote-unreachable":    {unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EACCES},
	"remote-silent":         {unix.ETIMEDOUT},
	// Accepted: what follows is not a plain connection's symptom.
	"reset-by-app":  {nil, unix.ECONNRESET},
	"closed-by-app": {nil, unix.ECONNRESET},
	"app-silent":    {nil, unix.ETIMEDOUT},
	"app-error":     {nil},
}

func TestEveryFaultHasItsSymptom(t *testing.T) {
	needRoot(t)
	two := make(chan struct{}, 2)
	for i, f := range Faults() {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			two <- struct{}{}
			defer func() { <-two }()
			if missing := Missing(f); missing != nil {
				t.Skipf("%v not installed", missing)
			}
			want, known := symptoms[f.Cause]
			if f.Sees != nil {
				want = f.Sees
			}
			if !known {
				t.Fatalf("no symptom is known for %s", f.Cause)
			}
			l, err := Start(prefix(i), f)
			if err != nil {
				t.Fatal(err)
			}
			defer closeLab(t, l)
			before := snapshot(t, l)
			// Where an error is due, its absence is the failure; it may come with the second SYN only:
			// one that arrives while connect() still holds the socket is not reported.
			patience := 5 * time.Second
			if slices.Contains(want, error(unix.ETIMEDOUT)) {
				patience = 500 * time.Millisecond
			}
			got := l.Attempt(f, patience)
			if !slices.ContainsFunc(want, func(e error) bool { return errors.Is(got, e) || got == nil && e == nil }) {
				t.Errorf("the client sees %v, want one of %v", got, want)
			}
			if diff := cmp.Diff(before, snapshot(t, l)); diff != "" {
				t.Errorf("a connection changes the snapshot (-before +after):\n%s", diff)
			}
		})
	}
}

func closeLab(t *testing.T, l *Lab) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
	for r, dir := range l.cgroups {
		if _, err := os.Lstat(dir); err == nil {
			t.Errorf("the cgroup of the %s is left", r)
		}
	}
	for _, r := range roles {
		if _, err := os.Lstat("/run/netns/" + l.Netns(r)); err == nil {
			t.Errorf("namespace %s is left", l.Netns(r))
		}
	}
	if _, err := os.Lstat(recordPath(l.prefix)); err == nil {
		t.Errorf("the record of %s is left", l.prefix)
	}
	for _, s := range l.services {
		if s.cmd.ProcessState == nil {
			t.Errorf("process %d is left", s.cmd.Process.Pid)
		}
	}
}

func snapshot(t *testing.T, l *Lab) string {
	t.Helper()
	s, err := l.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFailedSetupLeavesNothing(t *testing.T) {
	needRoot(t)
	broken := Fault{Name: "broken", Setup: steps(serve(4), ip(Router, 4, "route add blackhole nonsense"))}
	if l, err := Start(prefix(1000), broken); err == nil {
		l.Close()
		t.Fatal("a set-up that fails is not reported")
	}
	for _, r := range roles {
		if _, err := os.Lstat("/run/netns/" + prefix(1000) + "-" + string(r)); err == nil {
			t.Errorf("the namespace of the %s is left", r)
		}
	}
}

func TestNewRefusesWhatIsThere(t *testing.T) {
	needRoot(t)
	l, err := New(prefix(1001))
	if err != nil {
		t.Fatal(err)
	}
	defer closeLab(t, l)
	if second, err := New(prefix(1001)); err == nil {
		second.Close()
		t.Fatal("two labs have the same name")
	}
	if _, err := l.Output(Server, "ip", "link", "show", "eth0"); err != nil {
		t.Errorf("the refused lab has harmed the first: %v", err)
	}
}

func TestSnapshotSeesEachChange(t *testing.T) {
	needRoot(t)
	l, err := New(prefix(1002))
	if err != nil {
		t.Fatal(err)
	}
	defer closeLab(t, l)
	for _, change := range []func(*Lab) error{
		ip(Router, 4, "rule add fwmark 1 lookup 77"),
		ip(Router, 6, "route add blackhole fd99::/64"),
		ip(Client, 4, "route add 198.18.77.0/24 dev eth0"),
		sysctl(Server, "net.ipv4.conf.eth0.rp_filter", "1"),
		sysctl(Client, "net.ipv6.conf.eth0.forwarding", "1"),
		nft(Server, 4, "table ip x { chain y { type filter hook input priority 0; policy drop; }; }"),
		rules(Router, "legacy", 4, "-t mangle -A FORWARD -p tcp -j DROP"),
		rules(Router, "legacy", 6, "-P INPUT DROP"),
		rules(Router, "nft", 6, "-A INPUT -p tcp -j DROP"),
		ip(Router, 4, "link set dmz0 down"),
	} {
		before := snapshot(t, l)
		if err := change(l); err != nil {
			t.Fatal(err)
		}
		if snapshot(t, l) == before {
			t.Error("a change is not in the snapshot")
		}
	}
}

// TestSweep kills a process that owns a lab.
func TestSweep(t *testing.T) {
	needRoot(t)
	alive, err := New(prefix(1003))
	if err != nil {
		t.Fatal(err)
	}
	defer closeLab(t, alive)
	owner := exec.Command("/proc/self/exe")
	owner.Env = append(os.Environ(), buildOnly+"="+prefix(1004))
	out, err := owner.StdoutPipe()
	if err == nil {
		err = owner.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	owner.Process.Kill()
	owner.Wait()
	if strings.TrimSpace(line) != "<nil>" {
		t.Fatalf("the lab to be left behind: %s", line)
	}
	if _, err := os.Lstat("/run/netns/" + prefix(1004) + "-server"); err != nil {
		t.Fatalf("nothing is left to be swept: %v", err)
	}
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	for _, r := range roles {
		if _, err := os.Lstat("/run/netns/" + prefix(1004) + "-" + string(r)); err == nil {
			t.Errorf("the namespace of the %s is left", r)
		}
	}
	for _, r := range wired {
		if _, err := os.Lstat("/run/netns/" + alive.Netns(r)); err != nil {
			t.Errorf("the %s of a living lab is swept away: %v", r, err)
		}
	}
}
