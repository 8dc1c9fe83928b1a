// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// RouteWords is a route as it was typed, in the grammar of ip-route(8). What was not typed is not set.
type RouteWords struct {
	route
	typed map[string]bool // type, to, table, proto, scope, tos
}

// routeReader reads the words of a route.
type routeReader struct {
	*words
	r       RouteWords
	metrics []byte
	locked  uint32
}

// ParseRoute reads the words of a route, as they follow "ip route add".
// family is 4, 6, or 0 to take it from the words. An error that the words
// deserve is a [*WordError].
func (n *Netns) ParseRoute(family int, list []string) (RouteWords, error) {
	p := routeReader{words: n.newWords(list)}
	p.r.typed = map[string]bool{}
	p.r.attrs = map[uint16]attribute{}
	switch family {
	case 4:
		p.r.family = unix.AF_INET
	case 6:
		p.r.family = unix.AF_INET6
	}
	for len(p.rest) > 0 {
		if err := p.word(p.next()); err != nil {
			return RouteWords{}, err
		}
	}
	return p.end()
}

// routeUnsupported are words of ip-route(8) that are refused.
var routeUnsupported = map[string]string{
	"encap": "light-weight tunnels are not supported", "as": "translated destinations are not supported",
	"ttl-propagate": "MPLS is not supported", "mpls": "MPLS is not supported",
}

// routeNumbers are the keywords that a number follows: the attribute.
var routeNumbers = map[string]uint16{"metric": unix.RTA_PRIORITY, "priority": unix.RTA_PRIORITY, "preference": unix.RTA_PRIORITY,
	"nhid": rtaNexthopID, "expires": unix.RTA_EXPIRES}

func (p *routeReader) word(keyword string) error {
	if why, ok := routeUnsupported[keyword]; ok {
		return badWord(keyword, "%s", why)
	}
	if i := slices.Index(routeTypes[:], keyword); i > 0 && i < unix.RTN_NAT {
		p.r.kind, p.r.typed["type"] = uint8(i), true
		return nil
	}
	if metric := slices.Index(metricNames[:], keyword); metric > 0 {
		return p.metric(metric, keyword)
	}
	if attr, ok := routeNumbers[keyword]; ok {
		word, err := p.value(keyword)
		if err != nil {
			return err
		}
		n, err := number(strings.TrimSuffix(word, "sec"), 32)
		if err == nil {
			p.r.set(attr, binary.NativeEndian.AppendUint32(nil, n))
		}
		return err
	}
	switch keyword {
	case "onlink":
		p.r.flags |= unix.RTNH_F_ONLINK
		return nil
	case "pervasive":
		p.r.flags |= unix.RTNH_F_PERVASIVE
		return nil
	case "nexthop":
		return p.nexthops()
	case "to", "from", "table", "tos", "dsfield", "proto", "protocol", "scope", "src", "dev", "via", "realm", "realms", "pref":
		value, err := p.value(keyword)
		if err != nil {
			return err
		}
		return p.keyword(keyword, value)
	}
	if p.r.typed["to"] {
		return badWord(keyword, "not a word of a route")
	}
	return p.keyword("to", keyword)
}

func (p *routeReader) keyword(keyword, value string) (err error) {
	r := &p.r
	var n uint32
	switch keyword {
	case "to":
		r.typed["to"] = true
		return r.setPrefix(unix.RTA_DST, &r.dstLen, value)
	case "from":
		return r.setPrefix(unix.RTA_SRC, &r.srcLen, value)
	case "table":
		r.table, err = p.table(value)
	case "tos", "dsfield":
		keyword = "tos"
		r.tos, err = p.tos(value)
	case "proto", "protocol":
		keyword = "proto"
		r.protocol, err = p.protocol(value)
	case "scope":
		n, err = named(value, "scope", p.names.scopes, 8)
		r.scope = uint8(n)
	case "src":
		var a netip.Addr
		if a, err = address(value); err == nil {
			r.set(unix.RTA_PREFSRC, a.AsSlice())
			err = r.oneFamily(addrFamily(a), value)
		}
	case "dev":
		n, err = p.device(value)
		r.set(unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, n))
	case "via":
		err = p.via(value, func(kind uint16, b []byte) { r.set(kind, b) })
	case "realm", "realms":
		n, err = p.realms(value)
		r.set(unix.RTA_FLOW, binary.NativeEndian.AppendUint32(nil, n))
	case "pref":
		n, err = named(value, "router preference", map[uint32]string{0: "medium", 1: "high", 3: "low"}, 2)
		r.set(unix.RTA_PREF, []byte{uint8(n)})
	}
	r.typed[keyword] = true
	return err
}

// via reads a next hop, which may be of another family than the route.
func (p *routeReader) via(value string, set func(kind uint16, value []byte)) error {
	if value == "inet" || value == "inet6" {
		next, err := p.value(value)
		if err != nil {
			return err
		}
		if value = next; p.r.family == 0 {
			p.r.family = unix.AF_INET // as ip does
		}
	}
	a, err := address(value)
	if err != nil {
		return err
	}
	family := addrFamily(a)
	if p.r.family == 0 {
		p.r.family = family
	}
	switch {
	case p.r.family == family:
		set(unix.RTA_GATEWAY, a.AsSlice())
	case p.r.family == unix.AF_INET:
		set(unix.RTA_VIA, append(binary.NativeEndian.AppendUint16(nil, uint16(family)), a.AsSlice()...))
	default:
		return badWord(value, "an IPv6 route has no IPv4 gateway")
	}
	return nil
}

// nexthops reads what follows the first word nexthop, which is all the rest.
func (p *routeReader) nexthops() error {
	var list []byte
	for again := true; again; again = p.accept("nexthop") {
		hop := make([]byte, unix.SizeofRtNexthop)
		for len(p.rest) > 0 && p.rest[0] != "nexthop" {
			keyword := p.next()
			if why, ok := routeUnsupported[keyword]; ok {
				return badWord(keyword, "%s", why)
			}
			switch keyword {
			case "onlink":
				hop[2] |= unix.RTNH_F_ONLINK
				continue
			case "pervasive":
				hop[2] |= unix.RTNH_F_PERVASIVE
				continue
			case "via", "dev", "weight", "realm", "realms":
			default:
				return badWord(keyword, "not a word of a next hop")
			}
			value, err := p.value(keyword)
			if err != nil {
				return err
			}
			var n uint32
			switch keyword {
			case "via":
				err = p.via(value, func(kind uint16, b []byte) { hop = put(hop, kind, b) })
			case "dev":
				n, err = p.device(value)
				binary.NativeEndian.PutUint32(hop[4:], n)
			case "weight":
				if n, err = number(value, 16); err == nil && (n < 1 || n > 256) {
					err = badWord(value, "not a weight of 1 to 256")
				}
				hop[3] = uint8(n - 1)
			default:
				n, err = p.realms(value)
				hop = put32(hop, unix.RTA_FLOW, n)
			}
			if err != nil {
				return err
			}
		}
		if len(list)+len(hop) > math.MaxUint16/2 {
			return badWord("nexthop", "too many of them")
		}
		binary.NativeEndian.PutUint16(hop, uint16(len(hop)))
		list = append(list, hop...)
	}
	p.r.set(unix.RTA_MULTIPATH, list)
	return nil
}

// end checks what the words are together.
func (p *routeReader) end() (RouteWords, error) {
	r := &p.r
	if p.locked != 0 {
		p.metrics = put32(p.metrics, unix.RTAX_LOCK, p.locked)
	}
	if len(p.metrics) > 0 {
		list := attributes(p.metrics)
		slices.SortStableFunc(list, func(a, b attribute) int { return int(a.kind) - int(b.kind) })
		var metrics []byte
		for _, a := range list {
			metrics = put(metrics, a.kind, a.value)
		}
		r.set(unix.RTA_METRICS, metrics)
	}
	if r.family == 0 {
		r.family = unix.AF_INET
	}
	has := func(kind uint16) bool { _, ok := r.attrs[kind]; return ok }
	switch {
	case !r.typed["to"]:
		return RouteWords{}, badWord("route", "the destination is missing: a prefix, an address or default")
	case has(unix.RTA_MULTIPATH) && (has(unix.RTA_GATEWAY) || has(unix.RTA_VIA) || has(unix.RTA_OIF)):
		return RouteWords{}, badWord("nexthop", "a route has either next hops or one via and dev")
	case r.family == unix.AF_INET && (r.srcLen > 0 || has(unix.RTA_PREF) || has(unix.RTA_EXPIRES)):
		return RouteWords{}, badWord("from, pref, expires", "IPv4 routes have none of these")
	case r.family == unix.AF_INET6 && r.tos != 0:
		return RouteWords{}, badWord("tos", "IPv6 routes have none")
	}
	return *r, nil
}
