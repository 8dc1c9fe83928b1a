// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/gopacket/layers"

	"github.com/pathtrace/pathtrace/evidence"
)

// Block types and options of pcapng (draft-ietf-opsawg-pcapng).
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 6

	optComment     = 1
	optHardware    = 2 // of a section
	optOS          = 3
	optApplication = 4
	optName        = 2 // of an interface
	optDescription = 3
	optResolution  = 9
	optFlags       = 2 // of a packet
)

// snap bounds a packet: headers only, with room for none but ours.
const snap = 256

// Capture writes our packets as each namespace, device and hook saw them, in
// pcapng: one interface for each of these places, named netns/device or
// netns/device hook, nanoseconds, and with each packet the reason why it is
// there. Evidence has no raw bytes: headers are made of what it says, and what
// it does not say (TCP options, payload, link addresses) is cut off or zero.
func Capture(w io.Writer, c *evidence.Case, verdict string) error {
	p := &capture{c: c, ids: map[string]uint32{}}
	comment := fmt.Sprintf("pathtrace %s of %s: %s\nHeaders are made from what the kernel's events said. Not recorded, and so cut off or zero: "+
		"payload, TCP options and windows, link addresses. One packet stands here once for each place that saw it.", c.Tool.Version, endpoint(c.Target), verdict)
	p.block(blockSection, func(b []byte) []byte {
		b = binary.LittleEndian.AppendUint32(b, 0x1a2b3c4d)
		b = binary.LittleEndian.AppendUint16(b, 1) // version 1.0
		b = binary.LittleEndian.AppendUint16(b, 0)
		b = binary.LittleEndian.AppendUint64(b, ^uint64(0)) // length not given
		b = option(b, optComment, []byte(comment))
		b = option(b, optHardware, []byte(Clean(c.Host.Name)))
		b = option(b, optOS, []byte(Clean("Linux "+c.Host.Kernel)))
		return option(b, optApplication, []byte(Clean("pathtrace "+c.Tool.Version)))
	})
	seen := attach(c)
	for _, s := range seen { // every interface first: some readers want them there
		p.place(s.e)
	}
	for _, s := range seen {
		p.packet(s)
	}
	_, err := w.Write(p.out)
	return err
}

type capture struct {
	c   *evidence.Case
	out []byte
	ids map[string]uint32
}

// sighting is a packet at a place, with what firewalls decided about it there.
type sighting struct {
	e     *evidence.Event
	rules []*evidence.Event
}

// attach lists the events that show a packet. Decisions of firewalls that show
// none go to the next sight of the same buffer in that hook, or to its last in the namespace.
func attach(c *evidence.Case) []sighting {
	var out []sighting
	last := map[string]int{}
	pending := map[string][]*evidence.Event{}
	for i := range c.Events {
		e := &c.Events[i]
		here := e.Netns + " " + e.Direction + " " + e.SKB
		k := here + "\x00" + e.Hook
		switch {
		case e.Packet != nil && drawable(e.Packet):
			last[here] = len(out)
			out = append(out, sighting{e, pending[k]})
			delete(pending, k)
		case e.Rule != nil:
			pending[k] = append(pending[k], e)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(pending)) {
		here, _, _ := strings.Cut(k, "\x00")
		if i, ok := last[here]; ok {
			out[i].rules = append(out[i].rules, pending[k]...)
		}
	}
	slices.SortStableFunc(out, func(a, b sighting) int { return cmp.Compare(a.e.At, b.e.At) })
	return out
}

// place returns the interface that stands for where an event happened.
func (p *capture) place(e *evidence.Event) uint32 {
	name := or(e.Netns, "?") + "/" + or(e.Device, "*")
	if e.Hook != "" {
		name += " " + e.Hook
	}
	link := layers.LinkTypeRaw
	if e.Packet.Protocol == "arp" {
		link = layers.LinkTypeEthernet
	}
	key := fmt.Sprint(link, name)
	if id, ok := p.ids[key]; ok {
		return id
	}
	id := uint32(len(p.ids))
	p.ids[key] = id
	p.block(blockInterface, func(b []byte) []byte {
		b = binary.LittleEndian.AppendUint16(b, uint16(link))
		b = binary.LittleEndian.AppendUint16(b, 0)
		b = binary.LittleEndian.AppendUint32(b, snap)
		b = option(b, optName, []byte(Clean(name)))
		b = option(b, optDescription, []byte(Clean(fmt.Sprintf("network namespace %s, device %s, hook %s", or(e.Netns, "unknown"), or(e.Device, "any"), or(e.Hook, "none")))))
		return option(b, optResolution, []byte{9}) // 10^-9 s
	})
	return id
}

func (p *capture) packet(s sighting) {
	data, length := headerBytes(s.e.Packet)
	var at uint64
	if t := p.c.Probe.Started; !t.IsZero() {
		at = uint64(t.Add(time.Duration(s.e.At)).UnixNano())
	}
	id := p.place(s.e)
	p.block(blockPacket, func(b []byte) []byte {
		b = binary.LittleEndian.AppendUint32(b, id)
		b = binary.LittleEndian.AppendUint32(b, uint32(at>>32))
		b = binary.LittleEndian.AppendUint32(b, uint32(at))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
		b = binary.LittleEndian.AppendUint32(b, uint32(length))
		b = padded(b, data)
		b = option(b, optComment, []byte(Clean(p.comment(s))))
		switch s.e.Kind {
		case evidence.Receive:
			b = option(b, optFlags, []byte{1, 0, 0, 0})
		case evidence.Transmit:
			b = option(b, optFlags, []byte{2, 0, 0, 0})
		}
		return b
	})
}

// comment says what happened to the packet there: hook, decision and reason.
func (p *capture) comment(s sighting) string {
	bare := *s.e
	bare.Packet = nil
	text := or(eventText(p.c, &bare), string(bare.Kind))
	if s.e.Hook != "" {
		text = s.e.Hook + ": " + text
	}
	for _, r := range s.rules {
		text += " · " + stepText(p.c, r)
	}
	text = or(s.e.Netns, "?") + " · " + text
	if s.e.Kind == evidence.Drop {
		text = "✗ " + text
	}
	return text
}

// block writes a block of the kind with what body appends.
func (p *capture) block(kind uint32, body func([]byte) []byte) {
	start := len(p.out)
	p.out = binary.LittleEndian.AppendUint32(p.out, kind)
	p.out = binary.LittleEndian.AppendUint32(p.out, 0)
	p.out = body(p.out)
	p.out = binary.LittleEndian.AppendUint32(p.out, 0) // opt_endofopt
	n := uint32(len(p.out) - start + 4)
	binary.LittleEndian.PutUint32(p.out[start+4:], n)
	p.out = binary.LittleEndian.AppendUint32(p.out, n)
}

func option(b []byte, code uint16, value []byte) []byte {
	if len(value) == 0 {
		return b
	}
	value = value[:min(len(value), 1<<15)]
	b = binary.LittleEndian.AppendUint16(b, code)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	return padded(b, value)
}

// padded appends data and zeros up to four bytes.
func padded(b, data []byte) []byte {
	b = append(b, data...)
	return append(b, make([]byte, -len(data)&3)...)
}
