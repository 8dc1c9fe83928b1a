// SPDX-License-Identifier: Apache-2.0

package redact_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/report/redact"
	"github.com/pathtrace/pathtrace/verdict"
)

func cases(t *testing.T) map[string]evidence.Case {
	t.Helper()
	files, err := filepath.Glob("../../verdict/testdata/cases/*/case.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	all := map[string]evidence.Case{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var c evidence.Case
		if err := json.Unmarshal(data, &c); err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(filepath.Dir(f))] = c
	}
	return all
}

func encode(t *testing.T, c any) []byte {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSameEverywhere(t *testing.T) {
	r := redact.New([32]byte{7}, redact.Known{Hosts: []string{"db01.corp.acme"}, Users: []string{"alice"}})
	r.User("alice") // numbers are in the order of first sight
	r.Host("db01.corp.acme")
	a := r.Text("10.77.2.2")
	if a == "10.77.2.2" || !strings.HasPrefix(a, "10.") {
		t.Errorf("10.77.2.2 became %s", a)
	}
	dashed := strings.ReplaceAll(a, ".", "-")
	v6 := r.Text("2001:db8::5")
	mac := r.Text("52:54:00:12:34:56")
	net24 := r.Text("10.77.2.0/24")
	for in, want := range map[string]string{
		"10.77.2.2:80":                         a + ":80",
		"10.77.2.2/32":                         a + "/32",
		"-s 10.77.2.2/255.255.255.255 -j DROP": "-s " + a + "/255.255.255.255 -j DROP",
		"(10.77.2.2).":                         "(" + a + ").",
		"from 10.77.2.2.":                      "from " + a + ".",
		"ip-10-77-2-2":                         "ip-" + dashed,
		"[2001:db8::5]:80":                     "[" + v6 + "]:80",
		"2001:DB8:0:0::5":                      v6,
		"::ffff:10.77.2.2":                     "::ffff:" + a,
		"addr:2001:db8::5, more":               "addr:" + v6 + ", more",
		"MAC=52:54:00:12:34:56:52:54:00:12:34:56:08:00": "MAC=" + mac + ":" + mac + ":08:00",
		"127.0.0.1 0.0.0.0/0 ::1 :: 255.255.255.255":    "127.0.0.1 0.0.0.0/0 ::1 :: 255.255.255.255",
		"224.0.0.251 ff02::1 default":                   "224.0.0.251 ff02::1 default",
		"ff:ff:ff:ff:ff:ff":                             "ff:ff:ff:ff:ff:ff",
		"1.2.3.4.5 v1.22.333 12:34:56":                  "1.2.3.4.5 v1.22.333 12:34:56",
		"net.ipv4.conf.s0.rp_filter = 1":                "net.ipv4.conf.s0.rp_filter = 1",
		"net.core.somaxconn":                            "net.core.somaxconn",
		"vsftpd.service /etc/hosts.deny libc.so":        "vsftpd.service /etc/hosts.deny libc.so",
		"db01":                                          "host-1", "DB01.corp.acme": "host-1.domain-1", "web.corp.acme.": "host-2.domain-1.",
		"db01-eth0 xdb01 db012": "host-1-eth0 xdb01 db012",
		"/home/alice/x Alice":   "/home/user-1/x user-1",
		"ftp://bob@10.77.2.2/":  "ftp://user-2@" + a + "/",
		"@nh,96,32 0xa4d0202":   "@nh,96,32 0x0",
		"enx525400123456":       "enx" + strings.ReplaceAll(mac, ":", ""), "mark 0xff000001": "mark 0xff000001",
		`--u32 "0xc=0xa4d0202"`: fmt.Sprintf(`--u32 "0xc=0x%x"`, netip.MustParseAddr(a).AsSlice()),
	} {
		if got := r.Text(in); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
	p, q := netip.MustParsePrefix(net24), netip.MustParseAddr(a)
	if p.Bits() != 24 || p != p.Masked() || !p.Contains(q) {
		t.Errorf("10.77.2.0/24 became %s, which does not hold %s", net24, a)
	}
	if got := r.Text("hosts: 10.77.2. "); got != "hosts: "+strings.TrimSuffix(p.Addr().String(), "0")+" " {
		t.Errorf("10.77.2. became %s", got)
	}
}

// TestPrefixes: any two addresses have as many bits in common as before.
func TestPrefixes(t *testing.T) {
	r := redact.New([32]byte{1, 2, 3}, redact.Known{})
	list := []string{"fd77:1::1", "fd77:1::2", "fd77:1::ff:1", "fd77:2::1", "fe80::1", "2001:db8::1", "2001:db8::100:1", "::9", "10.0.0.1", "10.0.0.2", "10.0.1.1", "10.128.0.1", "11.0.0.1", "192.168.1.1", "192.168.1.254", "192.169.1.1", "8.8.8.8", "172.16.0.1", "172.32.0.1", "126.1.1.1", "128.1.1.1", "223.1.1.1"}
	seen := map[netip.Addr]string{}
	for _, s := range list {
		a := netip.MustParseAddr(s)
		x := r.Addr(a)
		if other, ok := seen[x]; ok {
			t.Errorf("%s and %s are both %s", s, other, x)
		}
		seen[x] = s
		if a.IsPrivate() != x.IsPrivate() || x.IsLoopback() || x.IsMulticast() {
			t.Errorf("%s became %s", s, x)
		}
		for _, u := range list {
			b := netip.MustParseAddr(u)
			if a.BitLen() != b.BitLen() {
				continue
			}
			if g, w := common(x, r.Addr(b)), common(a, b); g != w {
				t.Errorf("%s and %s have %d bits in common, their substitutes %d", a, b, w, g)
			}
		}
	}
}

// TestSolicitedNode: the group at which a neighbour is asked for still belongs to its address.
func TestSolicitedNode(t *testing.T) {
	r := redact.New([32]byte{1, 2, 3}, redact.Known{})
	for address, group := range map[string]string{
		"fd77:1::1":             "ff02::1:ff00:1",
		"fe80::5054:ff:fe12:3a": "ff02::1:ff12:3a",
		"2001:db8::aa:bbcc:dd":  "ff02::1:ffcc:dd",
		"2001:db8:5::1":         "ff02::1:ff00:1",
	} {
		a, g := r.Addr(netip.MustParseAddr(address)).As16(), r.Addr(netip.MustParseAddr(group)).As16()
		if !bytes.Equal(a[13:], g[13:]) || !bytes.Equal(g[:13], netip.MustParseAddr(group).AsSlice()[:13]) {
			t.Errorf("%s became %s, its group %s", address, netip.AddrFrom16(a), netip.AddrFrom16(g))
		}
	}
}

func common(a, b netip.Addr) int {
	for n := a.BitLen(); ; n-- {
		p, _ := a.Prefix(n)
		if p.Contains(b) {
			return n
		}
	}
}

func TestMask(t *testing.T) {
	const s = "hunter2-S3cr3t"
	for in, want := range map[string]string{
		`comment "password=` + s + `"`:      `comment "password=***HIDDEN***"`,
		"net.ipv4.tcp_fastopen_key = 0a-0b": "net.ipv4.tcp_fastopen_key = ***HIDDEN***",
		"Authorization: Bearer " + s + " x": "Authorization: Bearer ***HIDDEN*** x",
		"ftp://bob:" + s + "@host/":         "ftp://bob:***HIDDEN***@host/",
		"run --token " + s:                  "run --token ***HIDDEN***",
		`api_key: "` + s + ` b" c`:          `api_key: ***HIDDEN*** c`,
		"AKIAABCDEFGHIJKLMNOP":              "***HIDDEN***",
		"Cookie: a=" + s + "; b=2\r\nX: y":  "Cookie: ***HIDDEN***\r\nX: y",
		"set-cookie: sid=" + s:              "set-cookie: ***HIDDEN***",
		"USER bob\r\nPASS " + s + "\r\n":    "USER bob\r\nPASS ***HIDDEN***\r\n",
		"a01 LOGIN " + s:                    "a01 LOGIN ***HIDDEN***",
		"chain pass rule 2":                 "chain pass rule 2", "-A AUTH -j PASS": "-A AUTH -j PASS",
		"AUTH PLAIN " + s:                          "AUTH PLAIN ***HIDDEN***",
		"authentication by password, pass it on":   "authentication by password, pass it on",
		"SYN cookies are sent":                     "SYN cookies are sent",
		"tcp dport 80 counter drop":                "tcp dport 80 counter drop",
		"10.0.0.5:80/tcp: dropped by the firewall": "10.0.0.5:80/tcp: dropped by the firewall",
		"http://10.0.0.5:80/x@y":                   "http://10.0.0.5:80/x@y",
	} {
		hidden := map[string]int{}
		got := redact.MaskLines(in, hidden)
		if got != want || (len(hidden) > 0) != (in != want) {
			t.Errorf("%s became %s, want %s (%v)", in, got, want, hidden)
		}
		if again := redact.Mask(got, hidden); again != got {
			t.Errorf("%s became %s the second time", got, again)
		}
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"10.0.0.1/24", "fe80::1%eth0", "aa:bb:cc:dd:ee:ff", "x@y.com", "10.77. ", "@nh,96,32 0x1", ":::", "/home/", "1-2-3-4"} {
		f.Add(s)
	}
	r := redact.New([32]byte{9}, redact.Known{Hosts: []string{"db01.corp"}, Users: []string{"alice"}})
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) < 1<<12 {
			redact.Mask(r.Text(s), map[string]int{})
		}
	})
}

// TestCertificateNames: the names in a certificate are known, also where a verdict repeats them in its own words.
func TestCertificateNames(t *testing.T) {
	c := cases(t)["reachable-expired-certificate"]
	type both struct {
		Case    evidence.Case
		Verdict verdict.Verdict
	}
	whole := both{c, verdict.Judge(&c)}
	if !strings.Contains(string(encode(t, whole.Verdict)), "CN=web") {
		t.Fatal("the verdict does not name the certificate")
	}
	var out both
	redact.Apply(redact.Names(&c), func(r *redact.Redactor) {
		out = both{}
		if err := json.Unmarshal(encode(t, whole), &out); err != nil {
			t.Fatal(err)
		}
		r.Document(&out)
	})
	if text := string(encode(t, out)); strings.Contains(text, "CN=web") {
		t.Error(text)
	}
}
