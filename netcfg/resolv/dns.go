// SPDX-License-Identifier: Apache-2.0

package resolv

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Dial opens a socket where the name is looked up.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// answer of one server to one question.
type answer struct {
	addresses []netip.Addr
	code      dnsmessage.RCode
	err       error // no answer: it could not be reached, or said nothing in time
}

// gone reports whether the server cannot be reached at all, or did not answer.
func (a answer) gone() bool { return a.err != nil }

func (a answer) String() string {
	switch {
	case errors.Is(a.err, os.ErrDeadlineExceeded), errors.Is(a.err, context.DeadlineExceeded):
		return "no answer"
	case errors.Is(a.err, syscall.ECONNREFUSED):
		return "refused: nothing listens there"
	case a.err != nil:
		var op *net.OpError
		if errors.As(a.err, &op) {
			return op.Err.Error()
		}
		return a.err.Error()
	case len(a.addresses) > 0:
		var s []string
		for _, x := range a.addresses {
			s = append(s, x.String())
		}
		return strings.Join(s, ", ")
	case a.code == dnsmessage.RCodeSuccess:
		return "NOERROR without an address of that kind"
	case a.code == dnsmessage.RCodeNameError:
		return "NXDOMAIN (no such name)"
	case a.code == dnsmessage.RCodeServerFailure:
		return "SERVFAIL (the name server could not find out)"
	case a.code == dnsmessage.RCodeRefused:
		return "REFUSED (the name server does not answer us)"
	}
	return strings.TrimPrefix(a.code.String(), "RCode")
}

// ask puts one question to one server, over TCP where the answer does not fit a datagram.
func ask(ctx context.Context, dial Dial, server netip.AddrPort, name string, kind dnsmessage.Type, wait time.Duration, tcp bool) answer {
	var b [2]byte
	if _, err := rand.Read(b[:]); err != nil {
		return answer{err: err}
	}
	n, err := dnsmessage.NewName(name)
	if err != nil {
		return answer{err: fmt.Errorf("not a name of DNS: %w", err)}
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: binary.NativeEndian.Uint16(b[:]), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: n, Type: kind, Class: dnsmessage.ClassINET}},
	}
	query, err := m.Pack()
	if err != nil {
		return answer{err: fmt.Errorf("not a name of DNS: %w", err)}
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if !tcp {
		got, truncated := exchange(ctx, dial, "udp", server, query, m)
		if !truncated {
			return got
		}
	}
	got, _ := exchange(ctx, dial, "tcp", server, query, m)
	return got
}

func exchange(ctx context.Context, dial Dial, network string, server netip.AddrPort, query []byte, m dnsmessage.Message) (a answer, truncated bool) {
	c, err := dial(ctx, network, server.String())
	if err != nil {
		return answer{err: err}, false
	}
	defer c.Close()
	if d, ok := ctx.Deadline(); ok {
		c.SetDeadline(d)
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if network == "tcp" {
		query = append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
	}
	if _, err := c.Write(query); err != nil {
		return answer{err: err}, false
	}
	buf := make([]byte, 64<<10)
	for {
		got, err := receive(c, network, buf)
		if err != nil {
			return answer{err: err}, false
		}
		if a, truncated, ours := parse(got, m); ours {
			return a, truncated
		}
		if network == "tcp" {
			return answer{err: errors.New("what it answered is no DNS")}, false
		}
	}
}

func receive(c net.Conn, network string, buf []byte) ([]byte, error) {
	if network == "udp" {
		n, err := c.Read(buf)
		return buf[:n], err
	}
	if _, err := io.ReadFull(c, buf[:2]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(buf))
	_, err := io.ReadFull(c, buf[:n])
	return buf[:n], err
}

// parse takes the addresses out of an answer to m, along its aliases; ours is false for another's.
func parse(b []byte, m dnsmessage.Message) (a answer, truncated, ours bool) {
	var p dnsmessage.Parser
	head, err := p.Start(b)
	if err != nil || head.ID != m.ID || !head.Response {
		return a, false, false
	}
	asked, err := p.AllQuestions()
	want := m.Questions[0]
	if err != nil || len(asked) > 1 || len(asked) == 1 && (asked[0].Type != want.Type || !strings.EqualFold(asked[0].Name.String(), want.Name.String())) {
		return a, false, false
	}
	a.code = head.RCode
	records, err := p.AllAnswers()
	if err != nil && !head.Truncated {
		a.err = fmt.Errorf("what it answered cannot be read: %w", err)
		return a, false, true
	}
	name := want.Name.String()
	for range 16 { // aliases of aliases
		next := ""
		for _, r := range records {
			if !strings.EqualFold(r.Header.Name.String(), name) {
				continue
			}
			switch body := r.Body.(type) {
			case *dnsmessage.CNAMEResource:
				next = body.CNAME.String()
			case *dnsmessage.AResource:
				a.addresses = append(a.addresses, netip.AddrFrom4(body.A))
			case *dnsmessage.AAAAResource:
				a.addresses = append(a.addresses, netip.AddrFrom16(body.AAAA))
			}
		}
		if next == "" || len(a.addresses) > 0 {
			break
		}
		name = next
	}
	a.addresses = slices.Compact(a.addresses)
	return a, head.Truncated && len(a.addresses) == 0, true
}
