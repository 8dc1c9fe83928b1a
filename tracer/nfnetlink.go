// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The few nfnetlink messages that the trace table needs. No library can make
// them: google/nftables v0.3.0 sends table flags as 0, so its tables are owned
// by nobody and outlive us.

// attr appends a netlink attribute; numbers in it are big endian, as nf_tables wants them.
func attr(b []byte, typ uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, data...)
	return append(b, make([]byte, (4-len(data)%4)%4)...)
}

func attrString(b []byte, typ uint16, s string) []byte { return attr(b, typ, append([]byte(s), 0)) }

func attrU32(b []byte, typ uint16, v uint32) []byte {
	return attr(b, typ, binary.BigEndian.AppendUint32(nil, v))
}

func attrNest(b []byte, typ uint16, nested []byte) []byte {
	return attr(b, typ|unix.NLA_F_NESTED, nested)
}

// attrs calls f for each attribute of b; what is cut short ends the walk.
func attrs(b []byte, f func(typ uint16, data []byte)) {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}

// message appends a netlink message with an nfgenmsg header; res is its res_id.
func message(b []byte, typ, flags uint16, seq uint32, family uint8, res uint16, payload []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+4+len(payload)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, family, 0)
	b = binary.BigEndian.AppendUint16(b, res)
	return append(b, payload...)
}

// netlinkMessage is one message of a datagram.
type netlinkMessage struct {
	typ     uint16
	seq     uint32
	payload []byte
}

// messages splits a datagram; what is cut short is left out.
func messages(b []byte) []netlinkMessage {
	var out []netlinkMessage
	for len(b) >= unix.SizeofNlMsghdr {
		n := int(binary.NativeEndian.Uint32(b))
		if n < unix.SizeofNlMsghdr || n > len(b) {
			break
		}
		out = append(out, netlinkMessage{
			typ: binary.NativeEndian.Uint16(b[4:]), seq: binary.NativeEndian.Uint32(b[8:]), payload: b[unix.SizeofNlMsghdr:n],
		})
		b = b[min((n+3)&^3, len(b)):]
	}
	return out
}

// ackErrno is the error of an NLMSG_ERROR message, nil for an acknowledgement.
func (m netlinkMessage) ackErrno() error {
	if len(m.payload) < 4 {
		return errors.New("netlink error message cut short")
	}
	if e := int32(binary.NativeEndian.Uint32(m.payload)); e != 0 {
		return unix.Errno(-e)
	}
	return nil
}

// transact sends a batch and waits for the acknowledgement of each message up to the sequence number last.
func transact(fd int, batch []byte, first, last uint32) error {
	if err := unix.Sendto(fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send to nf_tables: %w", err)
	}
	buf := make([]byte, 64<<10)
	for want := int(last-first) + 1; want > 0; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("receive from nf_tables: %w", err)
		}
		for _, m := range messages(buf[:n]) {
			if m.typ != unix.NLMSG_ERROR || m.seq < first || m.seq > last {
				continue
			}
			if err := m.ackErrno(); err != nil {
				return err
			}
			want--
		}
	}
	return nil
}
