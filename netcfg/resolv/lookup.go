// SPDX-License-Identifier: Apache-2.0

package resolv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Query is a name to look up, and where.
type Query struct {
	Name   string
	Family int // 4 or 6; 0: both
	Files  Files
	Dial   Dial
	Wait   time.Duration // the most that one question to one server may take
	// Library asks the C library of the host itself, as "getent ahosts" does: for services that are not spoken here.
	Library func(ctx context.Context, name string) ([]netip.Addr, error)
}

// Answer is what came of a look-up, step by step.
type Answer struct {
	Addresses []netip.Addr     // in the order in which they are to be tried
	Steps     []string         // each a file or server that was asked, and what it said
	Silent    []netip.AddrPort // name servers that could not be reached or said nothing
	Unasked   []string         // services that nobody could ask
}

// Why says in one line why nothing was found.
func (a Answer) Why() string {
	if len(a.Steps) == 0 {
		return "no service of nsswitch.conf was asked"
	}
	return strings.Join(a.Steps, "; ")
}

func (a *Answer) step(format string, args ...any) {
	a.Steps = append(a.Steps, fmt.Sprintf(format, args...))
}

// Lookup follows the hosts line of nsswitch.conf. It returns an error only when ctx ends.
func Lookup(ctx context.Context, q Query) (Answer, error) {
	var a Answer
	list, path := q.services(&a)
	for _, s := range list {
		if s.Name != "files" && s.Name != "dns" && !slices.Contains(a.Unasked, s.Name) {
			a.Unasked = append(a.Unasked, s.Name)
		}
	}
	sure := false // the C library has said that there is no such name; what follows only tells why
	if len(a.Unasked) > 0 && q.Library != nil {
		found, err := q.Library(ctx, q.Name)
		if err == nil && len(found) > 0 {
			a.Addresses = found
			a.step("the C library (getent ahosts; %s names %s): %s", path, words(list), answer{addresses: found})
			a.Unasked = nil
			return a, ctx.Err()
		}
		if err == nil {
			a.step("the C library (getent ahosts; %s names %s): no such name", path, words(list))
			a.Unasked, sure = nil, true
		} else {
			a.step("%s of %s are not asked here, and getent cannot: %v", strings.Join(a.Unasked, ", "), path, err)
		}
	}
	for _, s := range list {
		status := "unavail"
		switch s.Name {
		case "files":
			status = q.hosts(&a)
		case "dns":
			status = q.dns(ctx, &a)
		default:
			continue
		}
		if ctx.Err() != nil {
			return a, ctx.Err()
		}
		if s.does(status) == "return" {
			break
		}
	}
	if sure {
		a.Addresses = nil
	}
	return a, nil
}

func words(list []Service) string {
	var names []string
	for _, s := range list {
		names = append(names, s.Name)
	}
	return strings.Join(names, " ")
}

// services of the hosts line; without one they are "files dns", as glibc has it since 2.37.
func (q Query) services(a *Answer) ([]Service, string) {
	text, path, err := q.Files.read("nsswitch.conf")
	list := ParseNSSwitch(text)
	if len(list) == 0 {
		list = []Service{{Name: "files"}, {Name: "dns"}}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.step("%s cannot be read: %v", path, err)
	}
	return list, path
}

// wanted reports whether an address is of the family that is asked for.
func (q Query) wanted(a netip.Addr) bool {
	return q.Family == 0 || a.Unmap().Is4() == (q.Family == 4)
}

func (q Query) hosts(a *Answer) (status string) {
	text, path, err := q.Files.read("hosts")
	if err != nil {
		a.step("%s cannot be read: %v", path, errors.Unwrap(err))
		return "unavail"
	}
	found, lines := ParseHosts(text, q.Name)
	var kept []netip.Addr
	for _, x := range found {
		if q.wanted(x) && !slices.Contains(kept, x) {
			kept = append(kept, x)
		}
	}
	switch {
	case len(kept) > 0:
		a.Addresses = append(a.Addresses, kept...)
		a.step("%s %s: %s", path, numbers(lines), answer{addresses: kept})
		return "success"
	case len(found) > 0:
		a.step("%s %s has the name, but no IPv%d address", path, numbers(lines), q.Family)
		return "notfound"
	}
	a.step("%s has no such name", path)
	return "notfound"
}

// dns asks the servers of resolv.conf for the name, with the search list.
func (q Query) dns(ctx context.Context, a *Answer) (status string) {
	if !valid(q.Name) {
		a.step("%q is not a name that DNS can hold", q.Name)
		return "notfound"
	}
	text, path, err := q.Files.read("resolv.conf")
	if err != nil {
		a.step("%s cannot be read (%v), so the name server would be 127.0.0.1", path, errors.Unwrap(err))
	}
	r := ParseResolvConf(text)
	status = "notfound"
	for _, name := range r.Names(q.Name) {
		found, answered := q.dnsName(ctx, a, r, name)
		switch {
		case len(found) > 0:
			a.Addresses = append(a.Addresses, found...)
			return "success"
		case ctx.Err() != nil:
			return "tryagain"
		case !answered && len(a.Silent) == len(r.Servers):
			return "tryagain" // nobody is there to ask for the other names
		case !answered:
			status = "tryagain"
		}
	}
	return status
}

// valid reports whether DNS can hold the name (RFC 1035 2.3.4).
func valid(name string) bool {
	name = strings.TrimSuffix(name, ".")
	for label := range strings.SplitSeq(name, ".") {
		if len(label) == 0 || len(label) > 63 {
			return false
		}
	}
	return len(name) <= 253
}

// dnsName asks for one full name. answered says that a server knew, that it exists or that it does not.
func (q Query) dnsName(ctx context.Context, a *Answer, r Resolver, name string) (found []netip.Addr, answered bool) {
	kinds := map[int][]dnsmessage.Type{4: {dnsmessage.TypeA}, 6: {dnsmessage.TypeAAAA}, 0: {dnsmessage.TypeA, dnsmessage.TypeAAAA}}[q.Family]
	for _, server := range r.Servers {
		if slices.Contains(a.Silent, server) {
			continue
		}
		got := q.ask(ctx, server, name, kinds, r)
		var said []string
		gone, bad := false, false
		for i, g := range got {
			found = append(found, g.addresses...)
			gone = gone || g.gone()
			bad = bad || !g.gone() && g.code != dnsmessage.RCodeSuccess && g.code != dnsmessage.RCodeNameError
			what := strings.TrimPrefix(kinds[i].String(), "Type") + " " + g.String()
			if len(got) == 2 && got[0].String() == got[1].String() {
				what = g.String()
			}
			if !slices.Contains(said, what) {
				said = append(said, what)
			}
		}
		a.step("name server %s, %s: %s", server, name, strings.Join(said, ", "))
		if gone && len(found) == 0 {
			a.Silent = append(a.Silent, server)
			continue
		}
		if len(found) > 0 || !bad {
			return found, true
		}
	}
	return found, false
}

// ask puts the questions for each kind of address side by side.
func (q Query) ask(ctx context.Context, server netip.AddrPort, name string, kinds []dnsmessage.Type, r Resolver) []answer {
	out := make([]answer, len(kinds))
	done := make(chan struct{})
	for i, kind := range kinds {
		go func() {
			defer func() { done <- struct{}{} }()
			for range r.Attempts {
				out[i] = ask(ctx, q.Dial, server, name, kind, min(r.Timeout, q.Wait), r.TCP)
				if out[i].String() != "no answer" || ctx.Err() != nil {
					return
				}
			}
		}()
	}
	for range kinds {
		<-done
	}
	return out
}
