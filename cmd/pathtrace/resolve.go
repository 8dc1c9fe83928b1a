// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pathtrace/pathtrace/netcfg"
)

// Lookup finds the addresses of a name. The network is ip, ip4 or ip6.
type Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

// slowest is how long a name server is waited for, however short -w is.
const slowest = 5 * time.Second

// Resolve fills t.Addresses, in the order in which they are to be tried.
func (t *Target) Resolve(ctx context.Context, o Options, lookup Lookup) error {
	if len(t.Addresses) > 0 {
		return nil
	}
	network := "ip"
	if o.Family != 0 {
		network = fmt.Sprintf("ip%d", o.Family)
	}
	limited, cancel := context.WithTimeout(ctx, max(o.Timeout, slowest))
	defer cancel()
	found, err := lookup(limited, network, t.Host)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return unresolved(t.Host, o, err)
	}
	for _, a := range found {
		a = a.Unmap()
		if (o.Family == 0 || o.Family == family(a)) && !slices.Contains(t.Addresses, a) {
			t.Addresses = append(t.Addresses, a)
		}
	}
	if len(t.Addresses) == 0 {
		return unresolved(t.Host, o, &net.DNSError{IsNotFound: true})
	}
	return nil
}

// unresolved says at which step the lookup came to nothing, as far as the resolver tells.
func unresolved(host string, o Options, err error) error {
	var dns *net.DNSError
	var trace *TraceError
	var usage *UsageError
	asked, why := "", err.Error()
	if errors.As(err, &dns) {
		why = dns.Err
		if dns.Server != "" && !strings.Contains(why, dns.Server) {
			asked = ", asked " + dns.Server
		}
	}
	switch {
	case errors.As(err, &trace) || errors.As(err, &usage):
		return err
	case dns != nil && dns.IsNotFound && o.Family != 0:
		why = fmt.Sprintf("no IPv%d address of that name%s", o.Family, asked)
	case dns != nil && dns.IsNotFound:
		why = "no such name" + asked
	case dns != nil && dns.IsTimeout, errors.Is(err, context.DeadlineExceeded):
		why = "no answer from the name server" + asked
	default:
		why += asked
	}
	return &UsageError{Code: "resolve", Err: fmt.Errorf("%s does not resolve: %s", host, why)}
}

// namespaceLookup asks the name servers of this host's resolv.conf, by sockets
// of the namespace in which the probe will start: a name that only resolves
// elsewhere would send the probe to where the user's program does not go.
func namespaceLookup(o Options) Lookup {
	return func(ctx context.Context, network, host string) ([]netip.Addr, error) {
		r := net.Resolver{PreferGo: true}
		if o.Netns != "" {
			n, err := netcfg.Open(o.Netns)
			switch {
			case errors.Is(err, fs.ErrPermission):
				return nil, cannotTrace(err)
			case err != nil:
				return nil, badUse("%w", err)
			}
			defer n.Close()
			r.Dial = dialIn(n)
		}
		return r.LookupNetIP(ctx, network, host)
	}
}

// dialIn makes the socket on a thread inside n; once made it stays there. The
// address of a name server is numeric, so that nothing else is started by it.
func dialIn(n *netcfg.Netns) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = n.Do(func() (err error) {
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
}
