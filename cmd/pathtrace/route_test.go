// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg"
)

var routeLabs atomic.Int32

// routeLab makes a namespace with a cable to another, 10.9.0.1 to 10.9.0.2 and
// fd09::1 to fd09::2, and returns their names.
func routeLab(t *testing.T) (near, far string) {
	t.Helper()
	needRoot(t)
	for _, name := range []*string{&near, &far} {
		*name = fmt.Sprintf("ptr%d-%d", os.Getpid(), routeLabs.Add(1))
		sh(t, "ip netns add "+*name+"; ip -n "+*name+" link set lo up")
		t.Cleanup(func() { sh(t, "ip netns del "+*name) })
	}
	sh(t, fmt.Sprintf(`ip -n %[1]s link add p0 address 02:00:00:00:00:01 type veth peer name p0 address 02:00:00:00:00:02 netns %[2]s
for i in "%[1]s 1 2" "%[2]s 2 1"; do set -- $i
ip -n $1 addr add 10.9.0.$2/24 dev p0; ip -n $1 addr add fd09::$2/64 dev p0 nodad; ip -n $1 link set p0 up
ip -n $1 neigh add 10.9.0.$3 lladdr 02:00:00:00:00:0$3 dev p0; ip -n $1 neigh add fd09::$3 lladdr 02:00:00:00:00:0$3 dev p0; done`, near, far))
	return near, far
}

func sh(t *testing.T, script string) string {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-e", "-c", script)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, stderr.String())
	}
	return string(out)
}

// routesOf is what ip prints, without what the kernel adds by itself to a device that has come up.
func routesOf(t *testing.T, netns string) string {
	t.Helper()
	return sh(t, strings.ReplaceAll(`ip -n NS -4 route show table all; ip -n NS -6 route show table all | grep -v -e fe80:: -e ff00::
ip -n NS -4 rule; ip -n NS -6 rule`, "NS", netns))
}

// call runs the program with a directory of its own for records.
func call(t *testing.T, bin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return callCmd(t, exec.Command(bin, args...))
}

func callCmd(t *testing.T, cmd *exec.Cmd) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// What show prints is what ip prints.
func TestRouteShow(t *testing.T) {
	near, _ := routeLab(t)
	bin := build(t)
	sh(t, strings.ReplaceAll(`ip -n NS route add 10.4.0.0/16 nexthop via 10.9.0.2 weight 2 nexthop via 10.9.0.3 dev p0
ip -n NS route add default dev p0 table 77; ip -n NS route add blackhole 10.8.0.0/16 table 78; ip -n NS -6 route add fd03::/64 nexthop via fd09::2 nexthop via fd09::3
ip -n NS rule add fwmark 7 lookup 77; ip -n NS -6 rule add pref 50 from fd00::/8 lookup main suppress_prefixlength 0`, "NS", near))
	for _, c := range []struct{ ours, ip string }{
		{"show -4", "ip -4 -n NS route show"}, {"show -4 table all", "ip -4 -n NS route show table all"}, {"list -6 table all", "ip -6 -n NS route show table all"},
		{"show -4 table 77", "ip -4 -n NS route show table 77"}, {"show -4 table local", "ip -4 -n NS route show table local"}, {"show -6 table 254", "ip -6 -n NS route show"},
		{"show", "ip -4 -n NS route show; ip -6 -n NS route show"},
		{"rule show -4", "ip -4 -n NS rule show"}, {"rule show", "ip -4 -n NS rule show; ip -6 -n NS rule show"},
	} {
		got, stderr, code := call(t, bin, append(strings.Fields("route "+c.ours), "--netns", near)...)
		var want strings.Builder
		for line := range strings.Lines(sh(t, strings.ReplaceAll(c.ip, "NS", near))) {
			want.WriteString(strings.TrimRight(line, " \n") + "\n")
		}
		if diff := cmp.Diff(stable(want.String()), stable(got)); diff != "" || code != 0 || stderr != "" {
			t.Errorf("%s: exit %d, %s: %s", c.ours, code, stderr, diff)
		}
	}
}

// stable leaves out what the kernel adds by itself to a device that has come up.
func stable(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "fe80::") && !strings.Contains(line, "ff00::") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func TestRouteGet(t *testing.T) {
	near, _ := routeLab(t)
	bin := build(t)
	sh(t, strings.ReplaceAll(`ip -n NS route add default via 10.9.0.2; ip -n NS route add 10.20.0.0/16 via 10.9.0.2 table 77; ip -n NS route add unreachable 10.20.7.0/24 table 77
ip -n NS rule add pref 200 fwmark 7 lookup 77; ip -n NS rule add pref 100 to 10.30.0.0/16 prohibit; ip -n NS rule add pref 150 lookup main suppress_prefixlength 0
ip -n NS link add v0 type veth peer name v1; ip -n NS -6 route add fd20::/64 via fd09::9 dev p0`, "NS", near))
	for _, c := range []struct {
		words string
		exit  int
		want  string
	}{
		{"10.20.0.1 mark 7", 0, `✓ 10.20.0.1 via 10.9.0.2 dev p0 from 10.9.0.1 in NS
  rule      200: from all fwmark 0x7 lookup 77
  table     77
  route     10.20.0.0/16 via 10.9.0.2 dev p0
  neighbor  10.9.0.2 dev p0 lladdr 02:00:00:00:00:02 PERMANENT
  without   default via 10.9.0.2 dev p0, table main, by ip rule 32766
`},
		{"10.20.7.1 mark 7", 1, `✗ 10.20.7.1: a route of type unreachable refuses it (EHOSTUNREACH) in NS
  rule      200: from all fwmark 0x7 lookup 77
  table     77
  route     unreachable 10.20.7.0/24
  without   10.20.0.0/16 via 10.9.0.2 dev p0, table 77, by ip rule 200
`},
		{"10.30.0.1", 1, `✗ 10.30.0.1: an ip rule refuses it (EACCES) in NS
  rule      100: from all to 10.30.0.0/16 prohibit
  without   default via 10.9.0.2 dev p0, table main, by ip rule 32766
`},
		{"10.9.0.1", 0, `✓ 10.9.0.1 is local dev lo from 10.9.0.1 in NS
  rule      0: from all lookup local
  table     local
  route     local 10.9.0.1 dev p0 proto kernel scope host src 10.9.0.1
  without   10.9.0.0/24 dev p0 proto kernel scope link src 10.9.0.1, table main, by ip rule 150
`},
		{"10.9.0.77 from 10.9.0.1", 0, `✓ 10.9.0.77 dev p0 from 10.9.0.1 in NS
  rule      150: from all lookup main suppress_prefixlength 0
  table     main
  route     10.9.0.0/24 dev p0 proto kernel scope link src 10.9.0.1
  neighbor  10.9.0.77 dev p0: not asked for yet
  without   default via 10.9.0.2 dev p0, table main, by ip rule 32766
`},
		{"10.9.0.77 from 9.9.9.9", 1, `✗ 10.9.0.77: the source is not an address of this namespace (EADDRNOTAVAIL) in NS
  open      the kernel refuses the source address before it asks a table
`},
		{"fd77::1", 1, "✗ fd77::1: no route (ENETUNREACH) in NS\n"},
		{"fd20::1", 0, `✓ fd20::1 via fd09::9 dev p0 from fd09::1 in NS
  rule      32766: from all lookup main
  table     main
  route     fd20::/64 via fd09::9 dev p0 metric 1024 pref medium
  neighbor  fd09::9 dev p0: not asked for yet
  without   no route (ENETUNREACH)
`},
	} {
		got, stderr, code := call(t, bin, append(strings.Fields("route get "+c.words), "--netns", near)...)
		if diff := cmp.Diff(c.want, strings.ReplaceAll(got, near, "NS")); diff != "" || code != c.exit || stderr != "" {
			t.Errorf("%s: exit %d, %s: %s", c.words, code, stderr, diff)
		}
	}
	out, _, _ := call(t, bin, "route", "get", "--json", "10.20.0.1", "mark", "7", "--netns", near)
	var d struct {
		Netns string
		Get   struct {
			Answer evidence.Lookup
			Rule   *evidence.IPRule
			Route  *evidence.RouteItem
			Next   *netcfg.RouteNext
			Open   []string
		}
	}
	if err := json.Unmarshal([]byte(out), &d); err != nil || d.Netns != near || d.Get.Rule == nil || d.Get.Rule.Priority != 200 ||
		d.Get.Route.Table != "77" || d.Get.Answer.OIF != "p0" || d.Get.Next.Route.Dest != "default" || d.Get.Open == nil {
		t.Errorf("%v: %s", err, out)
	}
}

// Each change prints its undo, and that restores every byte.
func TestRouteChangePrintsItsUndo(t *testing.T) {
	near, _ := routeLab(t)
	bin := build(t)
	dir := stateDir(t)
	sh(t, "ip -n "+near+" route add default via 10.9.0.2; ip -n "+near+" route append 10.7.0.0/16 via 10.9.0.2; ip -n "+near+" route append 10.7.0.0/16 via 10.9.0.3; ip -n "+near+" rule add pref 9 fwmark 1 nop")
	for _, words := range []string{
		"add 10.20.0.0/16 via 10.9.0.2 metric 5", "add blackhole default table 77", "replace default via 10.9.0.3", "default 10.9.0.3", "default 10.9.0.3 metric 7",
		"default fd09::2", "del default", "del 10.7.0.0/16", "del 10.9.0.0/24", "add -6 default via fd09::2 metric 3", "rule add fwmark 7 lookup 77",
		"rule add -6 from fd09::/64 lookup 77", "rule del fwmark 1", "rule del priority 32766 -6", "rule add not to 10.9.0.0/24 priority 5 unreachable",
	} {
		before := routesOf(t, near)
		out, stderr, code := call(t, bin, append(strings.Fields("route "+words), "--netns", near, "--yes")...)
		if code != 0 || routesOf(t, near) == before || strings.Count(stderr, "\n") < 2 {
			t.Fatalf("%s: exit %d, nothing changed: %s %s", words, code, out, stderr)
		}
		for line := range strings.Lines(out) {
			if undo, ok := strings.CutPrefix(line, "  undo   "); ok {
				sh(t, undo)
			}
		}
		if diff := cmp.Diff(before, routesOf(t, near)); diff != "" {
			t.Fatalf("%s: %s: %s", words, out, diff)
		}
	}
	// What the kernel refuses changes nothing, and leaves no record.
	before := routesOf(t, near)
	out, stderr, code := call(t, bin, "route", "add", "--json", "10.20.0.0/16", "via", "172.16.0.1", "dev", "p0", "--netns", near, "--yes")
	if code != 4 || !strings.Contains(stderr, "the kernel refuses to add IPv4 route 10.20.0.0/16 via 172.16.0.1 dev p0, table main: network is unreachable") ||
		!strings.Contains(out, `"error"`) || routesOf(t, near) != before {
		t.Errorf("exit %d: %s %s", code, out, stderr)
	}
	audit, err := os.ReadFile(filepath.Join(dir, "changes.log"))
	lines := strings.Split(strings.TrimSpace(string(audit)), "\n")
	if err != nil || len(lines) != 2*16 || !strings.Contains(lines[0], " changes "+near+": add IPv4 route 10.20.0.0/16 via 10.9.0.2 dev p0 metric 5, table main") ||
		!strings.Contains(lines[31], " was refused in "+near) {
		t.Errorf("%v: %s", err, audit)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.json")); len(left) > 0 {
		t.Errorf("records are left: %q", left)
	}
}

// With --for the change ends by itself, when the program has ended long ago.
func TestRouteFor(t *testing.T) {
	near, _ := routeLab(t)
	bin := build(t)
	dir := stateDir(t)
	before := routesOf(t, near)
	out, stderr, code := call(t, bin, "route", "default", "10.9.0.2", "--for", "1s", "--netns", near, "--yes", "--json")
	var d struct {
		Change struct {
			ID    string
			Until *time.Time
		}
	}
	if err := json.Unmarshal([]byte(out), &d); err != nil || code != 0 || d.Change.Until == nil {
		t.Fatalf("exit %d: %v %s %s", code, err, out, stderr)
	}
	record, err := os.Open(filepath.Join(dir, d.Change.ID+".undo.json"))
	if err != nil {
		t.Fatal(err) // a second is over?
	}
	defer record.Close()
	if !strings.Contains(routesOf(t, near), "default via 10.9.0.2 dev p0") {
		t.Error("it was not made")
	}
	if err := unix.Flock(int(record.Fd()), unix.LOCK_EX); err != nil { // given up when the guard has ended
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, routesOf(t, near)); diff != "" {
		t.Error(diff)
	}
	// pathtrace undo takes one back sooner.
	out, _, _ = call(t, bin, "route", "rule", "add", "fwmark", "7", "prohibit", "--for", "1h", "--netns", near, "--yes", "--json")
	if err := json.Unmarshal([]byte(out), &d); err != nil || routesOf(t, near) == before {
		t.Fatalf("%v: %s", err, out)
	}
	if _, stderr, code := call(t, bin, "undo", d.Change.ID); code != 0 || routesOf(t, near) != before {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

// The ssh session that pathtrace runs in is known by its socket; what would
// send its packets another way is refused, and nothing else.
func TestRouteKeepsTheSession(t *testing.T) {
	near, far := routeLab(t)
	bin := build(t)
	stateDir(t)
	session := connected(t, near, far)
	run := func(shell, words string) (string, int) {
		line := fmt.Sprintf("exec %s route %s --yes", bin, words)
		cmd := exec.Command("ip", "netns", "exec", near, "env", "SSH_CONNECTION="+session, "sh", "-c", fmt.Sprintf(shell, line))
		_, stderr, code := callCmd(t, cmd)
		return stderr, code
	}
	before := routesOf(t, near)
	for _, words := range []string{
		"del 10.9.0.0/24", "add blackhole 10.9.0.2", "add 10.9.0.2 via 10.9.0.3", "rule add to 10.9.0.2 prohibit",
		"rule add from 10.9.0.1 unreachable", "rule del priority 32766", "del local 10.9.0.1", "replace 10.9.0.0/24 via 10.9.0.3 scope link src 10.9.0.1 proto kernel",
	} {
		for _, shell := range []string{"%s", "env -u SSH_CONNECTION sh -c '%s'; exit $?"} { // sudo drops it
			stderr, code := run(shell, words)
			if code != 2 || !strings.Contains(stderr, "it would cut the ssh session") || strings.Count(stderr, "\n") != 1 {
				t.Errorf("%s: exit %d: %s", words, code, stderr)
			}
		}
	}
	if diff := cmp.Diff(before, routesOf(t, near)); diff != "" {
		t.Error(diff)
	}
	for _, words := range []string{
		"add 10.20.0.0/16 via 10.9.0.2", "add blackhole 10.9.0.3", "rule add fwmark 7 prohibit", "rule add to 10.9.0.1 priority 0 unreachable", "default 10.9.0.2", "del 10.9.0.0/24 --force", "del 10.9.0.0/24 --netns " + far,
	} {
		if stderr, code := run("%s", words); code != 0 {
			t.Errorf("%s: exit %d: %s", words, code, stderr)
		}
	}
}

// connected makes a connection from far to near, and returns it in the words of SSH_CONNECTION.
func connected(t *testing.T, near, far string) string {
	t.Helper()
	var l net.Listener
	var c net.Conn
	inside(t, near, func() (err error) { l, err = net.Listen("tcp", "10.9.0.1:0"); return err })
	t.Cleanup(func() { l.Close() })
	inside(t, far, func() (err error) { c, err = net.Dial("tcp", l.Addr().String()); return err })
	t.Cleanup(func() { c.Close() })
	return strings.ReplaceAll(c.LocalAddr().String()+" "+c.RemoteAddr().String(), ":", " ")
}

func inside(t *testing.T, netns string, f func() error) {
	t.Helper()
	n, err := netcfg.Open(netns)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Do(f); err != nil {
		t.Fatal(err)
	}
}
