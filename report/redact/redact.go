// SPDX-License-Identifier: Apache-2.0

// Package redact takes out of evidence what tells whose network it is: the
// same address, name, user or link address gets the same substitute
// everywhere, so that what is left can still be judged. Secrets are masked,
// see [Mask], whether or not the rest is substituted.
package redact

import (
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Known are names that cannot be told by their form.
type Known struct {
	Hosts []string // with or without a domain
	Users []string
}

// Map says what stands for what, original to substitute. It is the secret that
// [Redactor] keeps out of everything it writes.
type Map struct {
	Addresses map[string]string `json:"addresses"`
	MACs      map[string]string `json:"macs"`
	Hosts     map[string]string `json:"hosts"`
	Domains   map[string]string `json:"domains"`
	Users     map[string]string `json:"users"`
}

// Redactor substitutes. It is not for concurrent use.
type Redactor struct {
	addresses addresses
	known     []knownName // longest first
	domains   []string    // of known hosts, each with its leading dot
	m         Map
}

type knownName struct {
	text string // lower case
	user bool
}

// New returns a redactor. Whoever has the key can test what an address was; it is not stored.
func New(key [32]byte, k Known) *Redactor {
	r := &Redactor{
		addresses: addresses{key: key},
		m:         Map{map[string]string{}, map[string]string{}, map[string]string{}, map[string]string{}, map[string]string{}},
	}
	seen := map[string]bool{}
	add := func(s string, user bool) {
		s = strings.ToLower(strings.Trim(s, ". "))
		if len(s) < 2 || reserved[s] || seen[s] {
			return
		}
		seen[s] = true
		r.known = append(r.known, knownName{s, user})
	}
	for _, h := range k.Hosts {
		add(h, false)
		if label, domain, ok := strings.Cut(strings.ToLower(strings.Trim(h, ". ")), "."); ok {
			add(label, false)
			r.domains = append(r.domains, "."+domain)
		}
	}
	for _, u := range k.Users {
		add(u, true)
	}
	slices.SortStableFunc(r.known, func(a, b knownName) int { return len(b.text) - len(a.text) })
	return r
}

// Apply calls f with a new redactor until what it substituted holds no
// substitute that is also an original, so that a search for the originals finds
// nothing. After some attempts (a network that uses all of a private range) it
// stays with what it has. f shall begin anew each time.
func Apply(k Known, f func(*Redactor)) *Redactor {
	for attempt := 0; ; attempt++ {
		var key [32]byte
		_, _ = rand.Read(key[:]) // never fails (crypto/rand)
		r := New(key, k)
		f(r)
		if attempt == 15 || !r.collides() {
			return r
		}
	}
}

func (r *Redactor) collides() bool {
	for _, m := range []map[string]string{r.m.Addresses, r.m.MACs} {
		for _, s := range m {
			if _, ok := m[s]; ok {
				return true
			}
		}
	}
	return false
}

// Map returns what was substituted so far.
func (r *Redactor) Map() Map { return r.m }

// Counts says how many different things were substituted, by kind.
func (r *Redactor) Counts() map[string]int {
	return map[string]int{"addresses": len(r.m.Addresses), "macs": len(r.m.MACs), "hosts": len(r.m.Hosts),
		"domains": len(r.m.Domains), "users": len(r.m.Users)}
}

// reserved words mean something in what we print; a host or user of that name keeps it.
var reserved = words(`localhost localdomain init root host local main default all any lo eth0 tcp udp icmp icmpv6 ip ip6 ipv4 ipv6
	inet inet6 nft iptables filter nat raw mangle security input output forward prerouting postrouting ingress egress
	accept drop reject queue continue return jump goto policy counter via dev table from to src dst sport dport proto
	kernel net core conf linux debian systemd service socket unit slice no not in on of by and the was our rule chain`)

func words(s string) map[string]bool {
	return maps.Collect(func(yield func(string, bool) bool) {
		for w := range strings.FieldsSeq(s) {
			if !yield(w, true) {
				return
			}
		}
	})
}

// Host returns what stands for a host's name; its domain is substituted apart,
// so that hosts of one domain still show to be that.
func (r *Redactor) Host(name string) string {
	low := strings.ToLower(strings.TrimSuffix(name, "."))
	if low == "" || low == "unknown" || low == "paranoid" || reserved[low] { // the two are libwrap's
		return name
	}
	label, domain, full := strings.Cut(low, ".")
	if full && reserved[label] {
		return label + "." + number(r.m.Domains, domain, "domain")
	}
	s := number(r.m.Hosts, label, "host")
	if full {
		s += "." + number(r.m.Domains, domain, "domain")
	}
	return s
}

// User returns what stands for a user's name.
func (r *Redactor) User(name string) string {
	if name == "" || name == "unknown" || reserved[strings.ToLower(name)] {
		return name
	}
	return number(r.m.Users, strings.ToLower(name), "user")
}

func number(m map[string]string, name, kind string) string {
	s, ok := m[name]
	if !ok {
		s = fmt.Sprintf("%s-%d", kind, len(m)+1)
		m[name] = s
	}
	return s
}
