// SPDX-License-Identifier: Apache-2.0

package report

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// matters is what the packets of a case and its verdict name: addresses, ports,
// devices and chains.
type matters struct {
	addresses map[netip.Addr]bool
	devices   map[string]bool
	chains    map[[3]string]bool // family, table, name
	words     []string           // of other items: one of these as a JSON string, or within an address with a port
}

func whatMatters(c *evidence.Case, v verdict.Verdict) matters {
	m := matters{addresses: map[netip.Addr]bool{}, devices: map[string]bool{"lo": true}, chains: map[[3]string]bool{}}
	m.address(c.Target.Address)
	m.address(host(c.Probe.Local))
	m.devices[v.Where.Device] = true
	for i := range c.Events {
		e := &c.Events[i]
		m.devices[e.Device] = true
		if p := e.Packet; p != nil {
			m.address(p.Source)
			m.address(p.Dest)
		}
		if r := e.Rule; r != nil {
			m.chains[[3]string{r.Family, r.Table, r.Chain}] = true
		}
		if r := e.Route; r != nil {
			m.address(r.Gateway)
			m.devices[r.IIF], m.devices[r.OIF] = true, true
		}
		if n := e.Neighbor; n != nil {
			m.address(n.Address)
		}
	}
	if r := v.Where.Rule; r != nil {
		m.chains[[3]string{r.Family, r.Table, r.Chain}] = true
	}
	if c.Target.Port != 0 {
		m.words = append(m.words, ":"+strconv.Itoa(c.Target.Port)+`"`)
	}
	for a := range m.addresses {
		m.words = append(m.words, `"`+a.String()+`"`, `"`+a.String()+":", `[`+a.String()+`]`)
	}
	if s := v.Where.Sysctl; s != nil {
		m.words = append(m.words, `"`+s.Name+`"`)
	}
	delete(m.devices, "")
	return m
}

func (m *matters) address(s string) {
	if a, err := netip.ParseAddr(s); err == nil {
		m.addresses[a.Unmap().WithZone("")] = true
	}
}

// has reports whether an item of a section has to do with what matters.
func (m matters) has(item any) bool {
	switch x := item.(type) {
	case evidence.RouteItem:
		return m.within(x.Dest) || x.Dest == "default"
	case evidence.Address:
		return m.devices[x.Device] || m.within(x.Prefix)
	case evidence.Link:
		return m.devices[x.Name]
	case evidence.Chain:
		return m.chains[[3]string{x.Family, x.Table, x.Name}]
	case evidence.Hook:
		return x.Device == "" || m.devices[x.Device]
	case evidence.IPRule, evidence.Lookup:
		return true // few, and in an order that means something
	case evidence.Sysctl:
		for d := range m.devices {
			if strings.Contains(x.Name, "."+d+".") {
				return true
			}
		}
		return strings.Contains(x.Name, ".all.") || m.says(item)
	}
	return m.says(item)
}

// within reports whether a prefix or address holds one that matters.
func (m matters) within(s string) bool {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		return err == nil && m.addresses[a]
	}
	for a := range m.addresses {
		if p.Masked().Contains(a) {
			return true
		}
	}
	return false
}

func (m matters) says(item any) bool {
	s := asJSON(item)
	for _, w := range m.words {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}
