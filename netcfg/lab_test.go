// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
)

var labCount atomic.Int32

// lab is a network namespace of a test's own.
type lab struct {
	*Netns
	t *testing.T
}

// newLab makes a namespace with its loopback device up. It skips the test
// where that is not permitted.
func newLab(t *testing.T) lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	name := fmt.Sprintf("ptn%d-%d", os.Getpid(), labCount.Add(1))
	run(t, "ip", "netns", "add", name)
	t.Cleanup(func() { run(t, "ip", "netns", "del", name) })
	n, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	l := lab{n, t}
	l.sh("ip link set lo up")
	return l
}

// sh runs a shell script inside and returns what it printed on stdout.
func (l lab) sh(script string) string {
	l.t.Helper()
	return run(l.t, "ip", "netns", "exec", l.Name, "sh", "-e", "-c", script)
}

func run(t *testing.T, name string, arg ...string) string {
	t.Helper()
	cmd := exec.Command(name, arg...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, arg, err, stderr.String())
	}
	return string(out)
}

// need skips the test where a tool is not installed.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if lookTool(tool) == "" {
			t.Skipf("needs %s", tool)
		}
	}
}

// lines returns the lines of s with runs of blanks made one, empty ones left out.
func lines(s string) []string {
	var list []string
	for line := range strings.Lines(s) {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			list = append(list, line)
		}
	}
	return list
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// send sends one UDP packet of one byte from inside. What becomes of it is
// not looked at.
func (l lab) send(to string) {
	l.t.Helper()
	err := l.Do(func() error {
		c, err := net.Dial("udp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		c.Write([]byte{1}) // a rule may refuse it
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// newPair makes two namespaces with a cable between them, where packets need
// no neighbour discovery: 10.9.0.1 and fd09::1, 10.9.0.2 and fd09::2.
func newPair(t *testing.T) (one, two lab) {
	t.Helper()
	one, two = newLab(t), newLab(t)
	run(t, "ip", "-n", one.Name, "link", "add", "p0", "address", "02:00:00:00:00:01", "type", "veth",
		"peer", "name", "p0", "address", "02:00:00:00:00:02", "netns", two.Name)
	for i, l := range []lab{one, two} {
		me, other := i+1, 2-i
		l.sh(fmt.Sprintf(`ip addr add 10.9.0.%d/24 dev p0; ip addr add fd09::%d/64 dev p0 nodad; ip link set p0 up
ip neigh add 10.9.0.%d lladdr 02:00:00:00:00:0%d dev p0; ip neigh add fd09::%d lladdr 02:00:00:00:00:0%d dev p0`,
			me, me, other, other, other, other))
	}
	return one, two
}
