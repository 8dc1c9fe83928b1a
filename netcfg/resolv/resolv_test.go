// SPDX-License-Identifier: Apache-2.0

package resolv

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/net/dns/dnsmessage"
)

func TestParseNSSwitch(t *testing.T) {
	for text, want := range map[string][]Service{
		"": nil,
		"# hosts: x\npasswd: files\nhosts:  files dns # both\n": {{Name: "files", React: map[string]string{}}, {Name: "dns", React: map[string]string{}}},
		"hosts: mdns4_minimal [NOTFOUND=return] dns":            {{Name: "mdns4_minimal", React: map[string]string{"notfound": "return"}}, {Name: "dns", React: map[string]string{}}},
		"hosts: resolve [!UNAVAIL=return]files": {
			{Name: "resolve", React: map[string]string{"success": "return", "notfound": "return", "tryagain": "return"}}, {Name: "files", React: map[string]string{}},
		},
		"hosts: [X": nil,
	} {
		if d := cmp.Diff(want, ParseNSSwitch(text)); d != "" {
			t.Errorf("%q (-want +got):\n%s", text, d)
		}
	}
}

func TestParseResolvConf(t *testing.T) {
	r := ParseResolvConf("# nameserver 1.1.1.1\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\nnameserver x\nsearch a.example b.example\noptions ndots:2 timeout:1 attempts:3 use-vc rotate\n")
	want := Resolver{
		Servers: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:53"), netip.MustParseAddrPort("[fe80::1%eth0]:53")},
		Search:  []string{"a.example", "b.example"}, Ndots: 2, Timeout: time.Second, Attempts: 3, TCP: true,
	}
	if d := cmp.Diff(want, r, cmpopts.EquateComparable(netip.AddrPort{})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for name, names := range map[string]string{
		"web": "web.a.example. web.b.example. web.", "web.x.y": "web.x.y. web.x.y.a.example. web.x.y.b.example.", "web.": "web.",
	} {
		if got := strings.Join(r.Names(name), " "); got != names {
			t.Errorf("%s: %s, want %s", name, got, names)
		}
	}
	if r := ParseResolvConf(""); len(r.Servers) != 1 || r.Servers[0].String() != "127.0.0.1:53" || r.Ndots != 1 {
		t.Errorf("without a word: %+v", r)
	}
}

func TestParseHosts(t *testing.T) {
	found, lines := ParseHosts("127.0.0.1 localhost\n10.0.0.1\tWEB web.example # old\n#10.0.0.2 web\nx web\n::1 web.\n10.0.0.9 webber\n", "web")
	if d := cmp.Diff([]string{"10.0.0.1 2", "::1 5"}, []string{found[0].String() + " " + numbers(lines[:1])[5:], found[1].String() + " " + numbers(lines[1:])[5:]}); d != "" || len(found) != 2 {
		t.Errorf("%v %v\n%s", found, lines, d)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("hosts: files [!NOTFOUND=return] dns\nnameserver 10.0.0.1\n10.0.0.1 web\n")
	f.Fuzz(func(t *testing.T, s string) {
		ParseNSSwitch(s)
		ParseHosts(s, "web")
		ParseResolvConf(s).Names(s)
		q := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("web."), Type: dnsmessage.TypeA}}}
		parse([]byte(s), q)
	})
}

// nameServer answers over UDP on loopback: name and type to the rest of the answer; silent for names it has not got.
func nameServer(t *testing.T, zone map[string]func(*dnsmessage.Message)) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil {
				continue
			}
			q := m.Questions[0]
			if f := zone[q.Name.String()+" "+q.Type.String()]; f != nil {
				m.Response = true
				stranger := m
				stranger.ID++ // somebody else's answer comes first
				if b, err := stranger.Pack(); err == nil {
					c.WriteTo(b, from)
				}
				f(&m)
				if b, err := m.Pack(); err == nil {
					c.WriteTo(b, from)
				}
			}
		}
	}()
	return c.LocalAddr().String()
}

func has(addresses ...string) func(*dnsmessage.Message) {
	return func(m *dnsmessage.Message) {
		q := m.Questions[0]
		alias := dnsmessage.MustNewName("alias.example.")
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class}, Body: &dnsmessage.CNAMEResource{CNAME: alias}})
		for _, s := range addresses {
			h := dnsmessage.ResourceHeader{Name: alias, Class: q.Class}
			if a := netip.MustParseAddr(s); a.Is4() {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
			} else {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
			}
		}
	}
}

func code(c dnsmessage.RCode) func(*dnsmessage.Message) {
	return func(m *dnsmessage.Message) { m.RCode = c }
}

func TestLookup(t *testing.T) {
	zone := map[string]func(*dnsmessage.Message){
		"web. TypeA": has("10.0.0.5", "10.0.0.6"), "web. TypeAAAA": has("2001:db8::5"),
		"four. TypeA": has("10.0.0.4"), "four. TypeAAAA": code(dnsmessage.RCodeSuccess),
		"in.corp. TypeA": has("10.0.0.7"), "in.corp. TypeAAAA": code(dnsmessage.RCodeSuccess),
		"none.corp. TypeA": code(dnsmessage.RCodeNameError), "none.corp. TypeAAAA": code(dnsmessage.RCodeNameError),
		"none. TypeA": code(dnsmessage.RCodeNameError), "none. TypeAAAA": code(dnsmessage.RCodeNameError),
		"fail. TypeA": code(dnsmessage.RCodeServerFailure), "fail. TypeAAAA": code(dnsmessage.RCodeServerFailure),
		"fail.corp. TypeA": code(dnsmessage.RCodeServerFailure), "fail.corp. TypeAAAA": code(dnsmessage.RCodeServerFailure),
	}
	for _, name := range []string{"web", "four"} {
		zone[name+".corp. TypeA"], zone[name+".corp. TypeAAAA"] = code(dnsmessage.RCodeNameError), code(dnsmessage.RCodeNameError)
	}
	up := nameServer(t, zone)
	silent := nameServer(t, nil)
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		real := map[string]string{"10.0.0.53:53": up, "10.0.0.99:53": silent}[address]
		return new(net.Dialer).DialContext(ctx, network, real)
	}
	for name, c := range map[string]struct {
		host, nss, resolv string
		family            int
		library           func(context.Context, string) ([]netip.Addr, error)
		want, step        string
		silent            int
	}{
		"in the hosts file":       {host: "local", want: "10.9.9.9", step: "hosts line 1: 10.9.9.9"},
		"both kinds":              {host: "web", want: "10.0.0.5 10.0.0.6 2001:db8::5", step: "name server 10.0.0.53:53, web.: A 10.0.0.5, 10.0.0.6, AAAA 2001:db8::5"},
		"one kind":                {host: "web", family: 6, want: "2001:db8::5"},
		"the search list":         {host: "in", want: "10.0.0.7", step: "in.corp.: A 10.0.0.7"},
		"nowhere":                 {host: "none", step: "name server 10.0.0.53:53, none.: NXDOMAIN"},
		"not of that kind":        {host: "four", family: 6, step: "four.: AAAA NOERROR without an address"},
		"the server cannot":       {host: "fail", step: "fail.: SERVFAIL"},
		"a silent server first":   {host: "web.", resolv: "nameserver 10.0.0.99\nnameserver 10.0.0.53\noptions attempts:1\n", want: "10.0.0.5 10.0.0.6 2001:db8::5", step: "10.0.0.99:53, web.: no answer", silent: 1},
		"silence":                 {host: "web", resolv: "nameserver 10.0.0.99\noptions attempts:1\n", step: "no answer", silent: 1},
		"files only":              {host: "web", nss: "hosts: files\n", step: "hosts has no such name"},
		"files decide":            {host: "web", nss: "hosts: files [NOTFOUND=return] dns\n", step: "hosts has no such name"},
		"the library knows":       {host: "box", nss: "hosts: files myhostname\n", library: lib("10.1.1.1", nil), want: "10.1.1.1", step: "getent ahosts"},
		"the library does not":    {host: "none", nss: "hosts: mdns files dns\n", library: lib("", nil), step: "no such name"},
		"there is no library":     {host: "web", nss: "hosts: mdns files dns\n", library: lib("", errors.New("getent: not installed")), want: "10.0.0.5 10.0.0.6 2001:db8::5", step: "mdns of"},
		"no name that DNS holds":  {host: "a..b", step: "is not a name that DNS can hold"},
		"no longer name than 253": {host: strings.Repeat("a.", 127) + "a", step: "is not a name that DNS can hold"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.resolv == "" {
				c.resolv = "nameserver 10.0.0.53\nsearch corp\n"
			}
			if c.nss == "" {
				c.nss = "hosts: files dns\n"
			}
			if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
				t.Fatal(err)
			}
			for file, text := range map[string]string{"hosts": "10.9.9.9 local\n", "resolv.conf": c.resolv, "nsswitch.conf": c.nss} {
				if err := os.WriteFile(filepath.Join(dir, "etc", file), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			a, err := Lookup(t.Context(), Query{Name: c.host, Family: c.family, Files: Files{Root: dir}, Dial: dial, Wait: 300 * time.Millisecond, Library: c.library})
			var got []string
			for _, x := range a.Addresses {
				got = append(got, x.String())
			}
			if err != nil || strings.Join(got, " ") != c.want || !strings.Contains(a.Why(), c.step) || len(a.Silent) != c.silent {
				t.Errorf("%v %v, silent %v, %s", err, got, a.Silent, a.Why())
			}
		})
	}
}

func lib(address string, err error) func(context.Context, string) ([]netip.Addr, error) {
	return func(context.Context, string) ([]netip.Addr, error) {
		if address == "" {
			return nil, err
		}
		return []netip.Addr{netip.MustParseAddr(address)}, err
	}
}
