// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// How often a dump is asked for again when the table changed meanwhile.
const dumpTries = 5

// attribute is one netlink attribute: two bytes of length, two of type, both
// in host order (include/uapi/linux/netlink.h), and the value.
type attribute struct {
	kind  uint16 // without the flag bits
	value []byte
}

// attributes cuts b into attributes. It stops at the first that does not fit,
// as the kernel's own parser does, so that a truncated message gives less and
// never something wrong.
func attributes(b []byte) []attribute {
	var list []attribute
	for len(b) >= unix.SizeofNlAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofNlAttr || length > len(b) {
			break
		}
		kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		list = append(list, attribute{kind, b[unix.SizeofNlAttr:length]})
		b = b[min(align4(length), len(b)):]
	}
	return list
}

func align4(n int) int { return (n + 3) &^ 3 }

// u8, u16, u32 and u64 read the value in host order; be32 and be64 in network
// order. A value that is too short reads as 0.
func (a attribute) u8() uint8 {
	if len(a.value) < 1 {
		return 0
	}
	return a.value[0]
}

func (a attribute) u16() uint16 {
	if len(a.value) < 2 {
		return 0
	}
	return binary.NativeEndian.Uint16(a.value)
}

func (a attribute) u32() uint32 {
	if len(a.value) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(a.value)
}

func (a attribute) be32() uint32 {
	if len(a.value) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a.value)
}

func (a attribute) be64() uint64 {
	if len(a.value) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(a.value)
}

// text reads a string that may or may not end in a zero byte.
func (a attribute) text() string {
	s, _, _ := strings.Cut(string(a.value), "\x00")
	return s
}

// put appends an attribute to a message.
func put(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, align4(len(value))-len(value))...)
}

func putText(b []byte, kind uint16, s string) []byte { return put(b, kind, append([]byte(s), 0)) }

func put32(b []byte, kind uint16, v uint32) []byte {
	return put(b, kind, binary.NativeEndian.AppendUint32(nil, v))
}

// request sends one netlink message from inside n and returns the bodies of
// the answers of type answer. proto is NETLINK_ROUTE and the like. An errno
// comes back as [unix.Errno].
func (n *Netns) request(proto int, kind uint16, flags int, body []byte, answer uint16) (msgs [][]byte, err error) {
	err = n.requestEach(proto, kind, flags, body, answer, func(b []byte) { msgs = append(msgs, b) })
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return nil, err
	}
	return msgs, err
}

// requestEach is request for answers that are not all kept. each may not ask for anything itself.
func (n *Netns) requestEach(proto int, kind uint16, flags int, body []byte, answer uint16, each func(body []byte)) error {
	return n.Do(func() error {
		req := nl.NewNetlinkRequest(int(kind), flags)
		req.AddRawData(body)
		return req.ExecuteIter(proto, answer, func(b []byte) bool {
			each(b)
			return true
		})
	})
}

// dump asks for a whole table, again when it changed meanwhile. If it never
// held still, what was read last comes with [nl.ErrDumpInterrupted].
func (n *Netns) dump(proto int, kind uint16, body []byte, answer uint16) (msgs [][]byte, err error) {
	for range dumpTries {
		msgs, err = n.request(proto, kind, unix.NLM_F_DUMP, body, answer)
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
	}
	return msgs, err
}

// section turns what a reader got into a section: whole, in part, or missing.
func section[T any](what string, items []T, err error) evidence.Section[T] {
	switch {
	case err == nil:
		return evidence.Have(items)
	case errors.Is(err, nl.ErrDumpInterrupted):
		s := evidence.Have(items)
		s.Unread = fmt.Sprintf("%s: changed each of the %d times it was read", what, dumpTries)
		return s
	}
	return evidence.Missing[T](fmt.Sprintf("%s: %v", what, err))
}
