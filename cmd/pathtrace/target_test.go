// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pathtrace/pathtrace/netcfg/resolv"
)

func TestParseTarget(t *testing.T) {
	addr := func(s string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(s)} }
	for _, c := range []struct {
		args []string
		o    Options
		want Target
	}{
		{args: []string{"10.0.0.5:80"}, want: Target{Host: "10.0.0.5", Port: 80, Addresses: addr("10.0.0.5")}},
		{args: []string{"10.0.0.5", "80"}, want: Target{Input: "10.0.0.5 80", Host: "10.0.0.5", Port: 80, Addresses: addr("10.0.0.5")}},
		{args: []string{"web:http"}, want: Target{Host: "web", Port: 80}},
		{args: []string{"web", "https"}, want: Target{Input: "web https", Host: "web", Port: 443}},
		{args: []string{"[2001:db8::5]:80"}, want: Target{Host: "2001:db8::5", Port: 80, Addresses: addr("2001:db8::5")}},
		{args: []string{"2001:db8::5", "80"}, want: Target{Input: "2001:db8::5 80", Host: "2001:db8::5", Port: 80, Addresses: addr("2001:db8::5")}},
		{args: []string{"[2001:db8::5]", "80"}, want: Target{Input: "[2001:db8::5] 80", Host: "2001:db8::5", Port: 80, Addresses: addr("2001:db8::5")}},
		{args: []string{"[fe80::1%eth0]:22"}, want: Target{Host: "fe80::1%eth0", Port: 22, Addresses: addr("fe80::1%eth0")}},
		{args: []string{"fe80::1", "22"}, o: Options{Device: "eth0"}, want: Target{Input: "fe80::1 22", Host: "fe80::1", Port: 22, Addresses: addr("fe80::1")}},
		{args: []string{"[::ffff:10.0.0.5]:80"}, o: Options{Family: 4}, want: Target{Host: "::ffff:10.0.0.5", Port: 80, Addresses: addr("10.0.0.5")}},
		{args: []string{"tcp://web:8080"}, want: Target{Host: "web", Port: 8080, Scheme: "tcp"}},
		{args: []string{"HTTP://web/a?b#c"}, want: Target{Host: "web", Port: 80, Scheme: "http", Path: "/a?b"}},
		{args: []string{"https://[2001:db8::5]/"}, want: Target{Host: "2001:db8::5", Port: 443, Scheme: "https", Addresses: addr("2001:db8::5")}},
		{args: []string{"http://[fe80::1%25eth0]:81/"}, want: Target{Host: "fe80::1%eth0", Port: 81, Scheme: "http", Addresses: addr("fe80::1%eth0")}},
		{args: []string{"ftp://u:secret@web"}, want: Target{Input: "ftp://u:xxxxx@web", Host: "web", Port: 21, Scheme: "ftp"}},
		{args: []string{"ssh://web"}, want: Target{Host: "web", Port: 22, Scheme: "ssh"}},
		{args: []string{"postgresql://me:secret@web/shop"}, want: Target{Input: "postgresql://me:xxxxx@web/shop", Host: "web", Port: 5432, Scheme: "postgresql", Path: "/shop", User: "me"}},
		{args: []string{"imaps://web"}, want: Target{Host: "web", Port: 993, Scheme: "imaps"}},
		{args: []string{"tls://web:4433"}, want: Target{Host: "web", Port: 4433, Scheme: "tls"}},
		{args: []string{"dns+tcp://web/www.example"}, want: Target{Host: "web", Port: 53, Scheme: "dns+tcp", Path: "/www.example"}},
		{args: []string{"smtp://web"}, want: Target{Host: "web", Port: 25, Scheme: "smtp"}},
		{args: []string{"dns://web/www.example"}, want: Target{Host: "web", Port: 53, Protocol: "udp", Scheme: "dns", Path: "/www.example"}},
	} {
		got, err := ParseTarget(c.args, c.o)
		if err != nil {
			t.Errorf("%q: %v", c.args, err)
			continue
		}
		if c.want.Protocol == "" {
			c.want.Protocol = "tcp"
		}
		if c.want.Input == "" {
			c.want.Input = c.args[0]
		}
		if d := cmp.Diff(c.want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
			t.Errorf("%q (-want +got):\n%s", c.args, d)
		}
	}
}

func TestParseTargetErrors(t *testing.T) {
	for _, c := range []struct {
		args string
		o    Options
		want string
	}{
		{"", Options{}, "no target: pathtrace HOST:PORT"},
		{"a b c", Options{}, "one target at a time"},
		{"web", Options{}, "web: no port: write web:PORT"},
		{"web:", Options{}, "web:: no port"},
		{":80", Options{}, ":80: no host"},
		{"web:0", Options{}, "port 0 is not one of 1 to 65535"},
		{"web:70000", Options{}, "port 70000 is not one of 1 to 65535"},
		{"web:99999999999999999999", Options{}, "is not one of 1 to 65535"},
		{"web:-1", Options{}, `"-1" is not a port`},
		{"web:+80", Options{}, `"+80" is not a port`},
		{"web:nosuchservice", Options{}, `"nosuchservice" is neither a port nor the name of a TCP service`},
		{"web 0", Options{}, "web 0: port 0 is not one of 1 to 65535"},
		{"web:80 90", Options{}, "web:80 90: two ports"},
		{"::1:80", Options{}, "::1:80: is 80 the port? An IPv6 address goes in brackets: [::1]:80"},
		{"2001:db8::5", Options{}, "2001:db8::5: no port: write [2001:db8::5]:PORT"},
		{"fe80::1", Options{}, "fe80::1: no port: write [fe80::1]:PORT"},
		{"[::1]", Options{}, "[::1]: no port: write [::1]:PORT"},
		{"fe80::1%eth0:80", Options{}, "is 80 the port? An IPv6 address goes in brackets: [fe80::1%eth0]:80"},
		{"1:2:3:4:5:6:7:8:80", Options{}, "an IPv6 address goes in brackets: [1:2:3:4:5:6:7:8]:80"},
		{"a:b:80", Options{}, "not HOST:PORT"},
		{"[10.0.0.5]:80", Options{}, "only an IPv6 address stands in brackets"},
		{"[web]:80", Options{}, "only an IPv6 address stands in brackets"},
		{"[fe80::1]:80", Options{}, "link-local: say on which device"},
		{"[::1]:80", Options{Family: 4}, "::1 is not an IPv4 address (-4)"},
		{"127.0.0.1:80", Options{Family: 6}, "127.0.0.1 is not an IPv6 address (-6)"},
		{"[::1]:80", Options{Family: 4, Source: netip.MustParseAddr("10.0.0.1")}, "::1 and the source 10.0.0.1 are of different families"},
		{"0.0.0.0:80", Options{}, "0.0.0.0 is no address to connect to"},
		{"224.0.0.1:80", Options{}, "not an address of one host"},
		{"255.255.255.255:80", Options{}, "not an address of one host"},
		{"web:80", Options{Numeric: true}, "web is a name, and -n looks none up"},
		{"user@web:22", Options{}, `"user@web" is not a host`},
		{"we\x1bb:22", Options{}, `"we\x1bb" is not a host`},
		{"icmp://web:7", Options{}, "ICMP has no ports"},
		{"udp://web", Options{}, "no port"},
		{"tcp://web:53", Options{UDP: true}, "exclude each other"},
		{"gopher://web", Options{}, "not a scheme that is known here"},
		{"tcp://web", Options{}, "tcp://web: no port: write tcp://web:PORT"},
		{"tcp://web:0", Options{}, "port 0 is not one of 1 to 65535"},
		{"http://", Options{}, "no host in it"},
		{"http://u:secret@we b/", Options{}, "a URL holds its port itself"},
		{"http://web 80", Options{}, "a URL holds its port itself: tcp://HOST:80"},
	} {
		_, err := ParseTarget(strings.Fields(c.args), c.o)
		var usage *UsageError
		if !errors.As(err, &usage) {
			t.Errorf("%q: %v is not a usage error", c.args, err)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got %q, want %q", c.args, err, c.want)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"10.0.0.5:80", "[::1]:80", "::1:80", "http://u:p@h/", "fe80::1%eth0:22", "[", "]:", "tcp://[::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseTarget([]string{s}, Options{Numeric: true})
		if err == nil && (got.Port == 0 || len(got.Addresses) != 1) {
			t.Errorf("%q: %+v", s, got)
		}
	})
}

func TestResolve(t *testing.T) {
	a, b, six := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("2001:db8::1")
	for name, c := range map[string]struct {
		o       Options
		found   []netip.Addr
		steps   []string
		err     error
		want    []netip.Addr
		wantErr string
	}{
		"all, in order":     {found: []netip.Addr{six, b, a, b}, want: []netip.Addr{six, b, a}},
		"mapped":            {found: []netip.Addr{netip.MustParseAddr("::ffff:10.0.0.1"), a}, want: []netip.Addr{a}},
		"of one family":     {o: Options{Family: 4}, found: []netip.Addr{six, a}, want: []netip.Addr{a}},
		"none of it":        {o: Options{Family: 6}, found: []netip.Addr{a}, steps: []string{"one"}, wantErr: "web does not resolve to an IPv6 address: one"},
		"none":              {steps: []string{"/etc/hosts has no such name", "NXDOMAIN"}, wantErr: "web does not resolve: /etc/hosts has no such name; NXDOMAIN"},
		"too long":          {err: context.DeadlineExceeded, steps: []string{"no answer"}, wantErr: "web does not resolve: no answer"},
		"unknown namespace": {err: badUse("netns \"x\": no such network namespace"), wantErr: "netns \"x\": no such network namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			target := Target{Host: "web", Port: 80}
			err := target.Resolve(t.Context(), c.o, func(_ context.Context, family int, host string) (resolv.Answer, error) {
				if family != c.o.Family || host != "web" {
					t.Errorf("looked up %d %s", family, host)
				}
				return resolv.Answer{Addresses: c.found, Steps: c.steps}, c.err
			})
			if c.wantErr == "" && err != nil || c.wantErr != "" && (err == nil || !strings.Contains(err.Error(), c.wantErr)) {
				t.Errorf("error %v, want %q", err, c.wantErr)
			}
			if d := cmp.Diff(c.want, target.Addresses, cmpopts.EquateComparable(netip.Addr{})); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if err == nil {
				return
			}
			if exit, _, _ := failure(err); exit != exitUsage {
				t.Errorf("exit %d", exit)
			}
		})
	}
}

// TestResolveInterrupted: Ctrl-C while a name server is silent is an interrupt, not a name that does not resolve.
func TestResolveInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	target := Target{Host: "web", Port: 80}
	err := target.Resolve(ctx, Options{Timeout: time.Second}, func(ctx context.Context, _ int, _ string) (resolv.Answer, error) {
		cancel()
		<-ctx.Done()
		return resolv.Answer{}, ctx.Err()
	})
	if exit, _, _ := failure(err); exit != exitInterrupted {
		t.Errorf("%v: exit %d", err, exit)
	}
}
