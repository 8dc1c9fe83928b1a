// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Of linux/netfilter/nfnetlink_queue.h.
const (
	nfqnlPacket, nfqnlVerdict, nfqnlConfig = 0, 1, 2
	nfqaPacketHeader, nfqaVerdictHeader    = 1, 2
	nfqaCommand, nfqaParameters            = 1, 2
	nfqnlBind, nfqnlCopyMeta               = 1, 1
	nfDrop, nfAccept                       = 0, 1
)

// run serves the queue until the process ends.
func (r Reader) run(say func(string)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	if err != nil {
		return fmt.Errorf("open a netfilter socket: %w", err)
	}
	parameters := []byte{0, 0, 0, 64, nfqnlCopyMeta} // 64 bytes of a packet, were they asked for
	for _, a := range []*nl.RtAttr{
		nl.NewRtAttr(nfqaCommand, []byte{nfqnlBind, 0, 0, 0}),
		nl.NewRtAttr(nfqaParameters, parameters),
	} {
		if err := r.send(fd, nfqnlConfig, a, unix.NLM_F_ACK); err != nil {
			return err
		}
		if err := acknowledged(fd); err != nil {
			return fmt.Errorf("bind to queue %d: %w", r.Queue, err)
		}
	}
	say("ready")
	for b := make([]byte, 65536); ; {
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			continue // ENOBUFS: the kernel dropped what it could not hand over
		}
		if err := r.judge(fd, b[:n]); err != nil {
			return err
		}
	}
}

// judge says the verdict about each packet of a message.
func (r Reader) judge(fd int, b []byte) error {
	for len(b) >= 20 {
		size := int(binary.NativeEndian.Uint32(b))
		if size < 20 || size > len(b) {
			return nil
		}
		attrs, err := nl.ParseRouteAttr(b[20:size])
		if err != nil {
			return fmt.Errorf("read a packet of queue %d: %w", r.Queue, err)
		}
		for _, a := range attrs {
			if a.Attr.Type != nfqaPacketHeader || len(a.Value) < 4 || binary.NativeEndian.Uint16(b[4:]) != unix.NFNL_SUBSYS_QUEUE<<8|nfqnlPacket {
				continue
			}
			verdict := make([]byte, 8)
			verdict[3] = nfAccept
			if r.Drop {
				verdict[3] = nfDrop
			}
			copy(verdict[4:], a.Value[:4]) // the packet's number
			if err := r.send(fd, nfqnlVerdict, nl.NewRtAttr(nfqaVerdictHeader, verdict), 0); err != nil {
				return err
			}
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil
}

func (r Reader) send(fd int, kind uint16, a *nl.RtAttr, flags uint16) error {
	body := a.Serialize()
	m := make([]byte, 20, 20+len(body))
	binary.NativeEndian.PutUint32(m, uint32(20+len(body)))
	binary.NativeEndian.PutUint16(m[4:], unix.NFNL_SUBSYS_QUEUE<<8|kind)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|flags)
	binary.BigEndian.PutUint16(m[18:], r.Queue) // after the family and version of struct nfgenmsg
	if err := unix.Sendto(fd, append(m, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("talk to queue %d: %w", r.Queue, err)
	}
	return nil
}

func acknowledged(fd int) error {
	b := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		return err
	}
	if n < 20 || binary.NativeEndian.Uint16(b[4:]) != unix.NLMSG_ERROR {
		return unix.EPROTO
	}
	if code := int32(binary.NativeEndian.Uint32(b[16:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
