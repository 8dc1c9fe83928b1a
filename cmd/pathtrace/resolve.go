// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pathtrace/pathtrace/netcfg"
	"github.com/pathtrace/pathtrace/netcfg/resolv"
	"github.com/pathtrace/pathtrace/report"
)

// Lookup finds the addresses of a name of the family 4, 6 or, with 0, of both.
// Its answer tells each step; an error says that it could not look, or ctx has ended.
type Lookup func(ctx context.Context, family int, host string) (resolv.Answer, error)

// slowest is how long all name servers together are waited for, however short -w is.
const slowest = 10 * time.Second

// UnresolvedError says that a name has no address, and which step failed. Exit code 2.
type UnresolvedError struct {
	UsageError
	Steps  []string
	Silent []netip.AddrPort // name servers that did not answer
	Path   *report.Result   // what became of a question to the first of them; nil: not traced
}

func (e *UnresolvedError) Unwrap() error { return &e.UsageError }

// Resolve fills t.Addresses, in the order in which they are to be tried.
func (t *Target) Resolve(ctx context.Context, o Options, lookup Lookup) error {
	if len(t.Addresses) > 0 {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, max(o.Timeout, slowest))
	defer cancel()
	found, err := lookup(limited, o.Family, t.Host)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	for _, a := range found.Addresses {
		a = a.Unmap()
		if (o.Family == 0 || o.Family == family(a)) && !slices.Contains(t.Addresses, a) {
			t.Addresses = append(t.Addresses, a)
		}
	}
	if len(t.Addresses) == 0 {
		return unresolved(t.Host, o, found)
	}
	t.Lookup = found.Steps
	return nil
}

func unresolved(host string, o Options, a resolv.Answer) error {
	kind := ""
	if o.Family != 0 {
		kind = fmt.Sprintf(" to an IPv%d address", o.Family)
	}
	return &UnresolvedError{
		UsageError: UsageError{Code: "resolve", Err: fmt.Errorf("%s does not resolve%s: %s", host, kind, a.Why())},
		Steps:      a.Steps, Silent: a.Silent,
	}
}

// tracePath traces the way to the name server that did not answer, so that err
// tells where the question died.
func (a *app) tracePath(ctx context.Context, o Options, t Target, err error) error {
	var u *UnresolvedError
	if !errors.As(err, &u) || len(u.Silent) == 0 {
		return err
	}
	server := u.Silent[0]
	o.Send, o.Expect, o.UDP, o.Source, o.SourcePort = nil, nil, true, netip.Addr{}, 0
	c, v, jobErr := a.job(ctx, o, Target{
		Input: "name server of " + t.Host, Host: server.Addr().String(), Port: server.Port(), Protocol: "udp",
		Scheme: "dns", Path: t.Host, Addresses: []netip.Addr{server.Addr()},
	}, a.progress(o))
	switch {
	case jobErr != nil || c.FormatVersion == "":
		if ctx.Err() == nil && jobErr != nil {
			u.Err = fmt.Errorf("%w; the way to %s could not be traced: %s", u.Err, server, oneLine(cannotTrace(jobErr)))
		}
		return err
	case v.Cause == "":
		v = a.judge(&c)
	}
	r := report.NewResult(c, v)
	u.Path = &r
	u.Err = fmt.Errorf("%w; a question to %s that was traced: %s", u.Err, server, v.Summary)
	if !o.JSON {
		if err := a.print(report.NewDocument(c, v), o); err != nil {
			return err
		}
	}
	return err
}

// namespaceLookup looks names up as programs do that run where the probe will
// start: with the files that they see, and by sockets of their network namespace.
func namespaceLookup(o Options) Lookup {
	return func(ctx context.Context, family int, host string) (resolv.Answer, error) {
		q := resolv.Query{Name: host, Family: family, Wait: max(o.Timeout, time.Second), Dial: new(net.Dialer).DialContext}
		n, err := openStart(o.Netns)
		if err != nil {
			return resolv.Answer{}, err
		}
		defer n.Close()
		if o.Netns != "" {
			q.Dial, q.Files = dialIn(n), filesOf(n, o.Netns)
		}
		if q.Files.Root == "" { // another root may hold another C library
			q.Library = func(ctx context.Context, name string) ([]netip.Addr, error) { return getent(ctx, n, family, name) }
		}
		return resolv.Lookup(ctx, q)
	}
}

func openStart(spec string) (n *netcfg.Netns, err error) {
	if spec == "" {
		n, err = netcfg.Current()
	} else {
		n, err = netcfg.Open(spec)
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, cannotTrace(err)
	case err != nil:
		return nil, badUse("%w", err)
	}
	return n, nil
}

// filesOf says which /etc the programs of a namespace see: of a process its own,
// of a name what "ip netns exec" shows.
func filesOf(n *netcfg.Netns, spec string) resolv.Files {
	if pid, ok := strings.CutPrefix(spec, "/proc/"); ok {
		pid, _, _ = strings.Cut(pid, "/")
		return resolv.Files{Root: filepath.Join("/proc", pid, "root")}
	}
	if enter := n.Enter(); len(enter) == 4 && enter[0] == "ip" {
		return resolv.Files{Netns: enter[3]}
	}
	return resolv.Files{}
}

// getent asks the C library. That there is no such name is no error.
func getent(ctx context.Context, n *netcfg.Netns, family int, name string) ([]netip.Addr, error) {
	database := map[int]string{0: "ahosts", 4: "ahostsv4", 6: "ahostsv6"}[family]
	argv := append(n.Enter(), "getent", database, name)
	out, err := netcfg.RunHere(ctx, argv)
	if code, ok := netcfg.ExitCode(err); ok && code == 2 { // getent(1): not found
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found []netip.Addr
	for line := range strings.Lines(string(out)) {
		if words := strings.Fields(line); len(words) > 0 {
			if a, err := netip.ParseAddr(words[0]); err == nil && !slices.Contains(found, a) {
				found = append(found, a)
			}
		}
	}
	return found, nil
}

// dialIn makes the socket on a thread inside n; once made it stays there. The
// address of a name server is numeric, so that nothing else is started by it.
func dialIn(n *netcfg.Netns) resolv.Dial {
	return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = n.Do(func() (err error) {
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
}
