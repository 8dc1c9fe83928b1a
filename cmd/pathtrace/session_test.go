// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestParseSession(t *testing.T) {
	for value, want := range map[string]string{
		"192.0.2.7 50022 198.51.100.1 22":           "192.0.2.7:50022 198.51.100.1:22",
		"fe80::1%eth0 50022 fe80::2%eth0 22":        "[fe80::1]:50022 [fe80::2]:22",
		"::ffff:192.0.2.7 1 ::ffff:198.51.100.1 22": "192.0.2.7:1 198.51.100.1:22",
		"192.0.2.7 50022 198.51.100.1":              "",
		"192.0.2.7 x 198.51.100.1 22":               "",
		"":                                          "",
	} {
		got := ""
		if s, ok := parseSession(value); ok {
			got = s.peer.String() + " " + s.server.String()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

// sudo drops SSH_CONNECTION; the shell above it still has it.
func TestSessionOfAProcessAbove(t *testing.T) {
	if os.Getenv("PATHTRACE_TEST_SESSION") != "" {
		s, ok := currentSession()
		t.Logf("session %v %v %v", ok, s.peer, s.netns != 0)
		return
	}
	cmd := exec.Command("sh", "-c", `env -u SSH_CONNECTION PATHTRACE_TEST_SESSION=1 "$0" -test.v -test.run '^TestSessionOfAProcessAbove$'; exit $?`, "/proc/self/exe")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args[3] = self
	cmd.Env = append(os.Environ(), "SSH_CONNECTION=192.0.2.7 50022 198.51.100.1 22")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "session true 192.0.2.7:50022 true") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestMayCut(t *testing.T) {
	s := session{peer: netip.MustParseAddrPort("192.0.2.7:50022"), server: netip.MustParseAddrPort("198.51.100.1:22")}
	for command, want := range map[string]bool{
		"ip route del blackhole 10.0.0.0/8 table main":                     false,
		"ip route del blackhole 192.0.2.0/24 table main":                   true,
		"ip route del prohibit 192.0.2.7 table main":                       true,
		"ip route del blackhole default table main":                        true,
		"ip netns exec web ip -6 route del unreachable fd00::/8 table 7":   false,
		"ip rule del priority 200 from all blackhole":                      true,
		"ip -6 rule del priority 200 from all blackhole":                   true,
		"ip link set dev eth1 up":                                          true,
		"bridge link set dev p1 state forwarding":                          true,
		"ip neigh del 192.0.2.7 dev eth0":                                  true,
		"sysctl -qw net.ipv4.ip_forward=1":                                 false,
		"nft insert rule inet fw in position 4 ip saddr 192.0.2.7 accept":  false,
		"iptables-legacy -t filter -I INPUT 3 -s 192.0.2.7 -p tcp -j DROP": false,
	} {
		if got := mayCut(command, s); got != want {
			t.Errorf("%s: %v", command, got)
		}
	}
}
