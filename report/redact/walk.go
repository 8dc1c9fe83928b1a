// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"net/netip"
	"net/url"
	"reflect"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// words of the kernel and of ours: fixed sets that a verdict is judged from.
// They hold no address, and a host that is called like one of them must not change them.
var fixed = words(`Case.FormatVersion Case.ID Tool.Version Tool.Commit Host.Kernel Host.Hooks Target.Input Target.Protocol
	CgroupProgram.Attach Probe.Outcome Probe.Errno Probe.Syscall
	Event.Kind Event.Direction Event.Hook Event.Reason Event.Function Event.Stack Event.SKB
	Packet.Protocol Packet.Flags RuleStep.Backend RuleStep.Family RuleStep.Verdict RouteLookup.Errno
	StateChange.Old StateChange.New Exit.Signal EventSocket.State Hook.Family Hook.Hook Hook.Function Hook.Type Hook.NFFamily
	Link.Kind Link.State Link.Flags Address.Scope Address.Flags RouteItem.Type RouteItem.Protocol RouteItem.Scope RouteItem.Flags
	IPRule.Action Lookup.Errno Lookup.Type Neighbor.State Socket.Protocol Socket.State Process.State
	Chain.Backend Chain.Family Chain.Type Chain.Hook Chain.Policy Flow.Protocol Flow.State Sysctl.Value Counter.Name
	Verdict.Cause Verdict.Certainty Verdict.Direction Where.Hook Where.Function Where.Reason Rule.Backend Rule.Family NeighborRef.State
	Case.Scope Dialogue.Protocol Dialogue.Reply TLS.Version TLS.Cipher TLS.Alert Link.PortState Process.Stack Process.Container
	Service.Kind Service.State Service.Exit WrapDecision.Verdict Element.Kind Walk.Protocol Hop.Answer PathMTU.Protocol SizeTest.Answer
	Counterfactual.Cause Counterfactual.Certainty Counterfactual.Again`)

// Each replaces every string below v, which is a pointer, except words of
// fixed sets, and but what the user typed, see [Redactor.Input]. Keys of maps stay.
func Each(v any, f func(string) string) {
	each(reflect.ValueOf(v), "", func(_, s string) string { return f(s) })
}

// hostFields hold a host's name and nothing else, so that its form need not tell it.
var hostFields = words("Host.Name TLS.SNI Hop.Name Certificate.Names Wrap.Client")

// Document substitutes in every string below v, which is a pointer, except
// words of fixed sets and what the user typed. A nil Redactor does nothing.
func (r *Redactor) Document(v any) {
	if r == nil {
		return
	}
	each(reflect.ValueOf(v), "", func(name, s string) string {
		switch name {
		case "Certificate.Subject", "Certificate.Issuer":
			return number(r.m.Hosts, s, "certificate")
		case "Certificate.SHA256":
			return number(r.m.Hosts, s, "fingerprint")
		case "Wrap.User":
			return r.User(s)
		}
		if t := r.Text(s); t != s || !hostFields[name] {
			return t
		}
		if _, err := netip.ParseAddr(s); err == nil {
			return s
		}
		return r.Host(s)
	})
}

func each(v reflect.Value, name string, f func(name, s string) string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			each(v.Elem(), name, f)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			each(v.Index(i), name, f)
		}
	case reflect.Struct:
		t := v.Type()
		for i := range t.NumField() {
			if t.Field(i).IsExported() {
				each(v.Field(i), t.Name()+"."+t.Field(i).Name, f)
			}
		}
	case reflect.String:
		if v.CanSet() && !fixed[name] {
			v.SetString(f(name, v.String()))
		}
	}
}

// Names returns the names of hosts and users that a case gives away by where
// they stand: the host's own, the target's, and a user in a URL.
func Names(c *evidence.Case) Known {
	k := Known{Hosts: []string{c.Host.Name}}
	for i := range c.Peers {
		k.Hosts = append(k.Hosts, c.Peers[i].Name)
		if u, err := url.Parse(c.Peers[i].Reached); err == nil && u.Scheme == "ssh" {
			k.Hosts, k.Users = append(k.Hosts, u.Hostname()), append(k.Users, u.User.Username())
		}
	}
	s := c.Target.Input
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
		s, _, _ = strings.Cut(s, "/")
	}
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		user, _, _ := strings.Cut(s[:i], ":")
		k.Users = append(k.Users, user)
		s = s[i+1:]
	}
	s, _, _ = strings.Cut(s, " ")
	if i := strings.LastIndexByte(s, ':'); i >= 0 && strings.Count(s, ":") == 1 {
		s = s[:i]
	}
	if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err != nil && !strings.ContainsAny(s, "[]:") {
		k.Hosts = append(k.Hosts, s)
	}
	if d := c.Probe.Dialogue; d != nil && d.TLS != nil {
		k.Hosts = append(k.Hosts, d.TLS.SNI)
		for _, x := range d.TLS.Certificates {
			k.Hosts = append(append(k.Hosts, x.Names...), distinguished(x.Subject)...)
			k.Hosts = append(k.Hosts, distinguished(x.Issuer)...)
		}
	}
	return k
}

// distinguished returns the values of a certificate's name, CN=web,O=Acme.
func distinguished(s string) (values []string) {
	for part := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == ',' || r == '+' }) {
		if _, value, ok := strings.Cut(part, "="); ok {
			values = append(values, strings.TrimSpace(value))
		}
	}
	return values
}

// Input substitutes what the user typed as the target. Of a URL only scheme, user, host and port stay.
func (r *Redactor) Input(s string) string {
	if r == nil {
		return s
	}
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		if i := strings.IndexAny(rest, "/?#"); i >= 0 {
			rest = rest[:i] + "/"
		}
		s = scheme + "://" + rest
	}
	return r.Text(s)
}
