// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/pathtrace/pathtrace/evidence"
)

// question is one DNS query (RFC 1035), and what an answer to it is.
type question struct {
	id    uint16
	q     dnsmessage.Question
	named bool // the user chose the name
}

// newQuestion asks for the IPv4 addresses of name, or, without one, for the
// servers of the root: what every resolver knows.
func newQuestion(name string) (question, error) {
	q := question{named: name != ""}
	kind := dnsmessage.TypeA
	if !q.named {
		kind = dnsmessage.TypeNS
	}
	if !strings.HasSuffix(name, ".") {
		name += "."
	}
	n, err := dnsmessage.NewName(name)
	if err != nil {
		return q, fmt.Errorf("name to ask for %q: %w", name, err)
	}
	var b [2]byte
	if _, err := rand.Read(b[:]); err != nil {
		return q, fmt.Errorf("choose an identifier: %w", err)
	}
	q.id, q.q = binary.NativeEndian.Uint16(b[:]), dnsmessage.Question{Name: n, Type: kind, Class: dnsmessage.ClassINET}
	return q, nil
}

func (q question) String() string {
	return fmt.Sprintf("%s %s", q.q.Name, strings.TrimPrefix(q.q.Type.String(), "Type"))
}

func (q question) pack() ([]byte, error) {
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: q.id, RecursionDesired: true},
		Questions: []dnsmessage.Question{q.q},
	}
	b, err := m.Pack()
	if err != nil {
		return nil, fmt.Errorf("build the query for %s: %w", q.q.Name, err)
	}
	return b, nil
}

// answer judges a datagram; ours is false for one that answers another question.
func (q question) answer(b []byte) (h heard, ours bool) {
	var p dnsmessage.Parser
	head, err := p.Start(b)
	if err != nil || head.ID != q.id || !head.Response {
		return h, false
	}
	h.used = len(b)
	asked, err := p.AllQuestions()
	if err != nil || len(asked) > 1 || len(asked) == 1 && (!strings.EqualFold(asked[0].Name.String(), q.q.Name.String()) || asked[0].Type != q.q.Type) {
		return h, false
	}
	code := strings.ToUpper(strings.TrimPrefix(head.RCode.String(), "RCode"))
	switch head.RCode {
	case dnsmessage.RCodeSuccess:
		code = "NOERROR"
	case dnsmessage.RCodeNameError:
		code = "NXDOMAIN"
	case dnsmessage.RCodeServerFailure:
		code = "SERVFAIL"
	case dnsmessage.RCodeFormatError:
		code = "FORMERR"
	case dnsmessage.RCodeNotImplemented:
		code = "NOTIMP"
	}
	h.reply, h.line = evidence.ReplyOK, fmt.Sprintf("%s for %s", code, q)
	switch head.RCode {
	case dnsmessage.RCodeSuccess, dnsmessage.RCodeNameError:
	case dnsmessage.RCodeRefused:
		if q.named { // a server that answers for its own zones refuses the root rightly
			h.reply = evidence.ReplyError
		}
	default:
		h.reply = evidence.ReplyError
	}
	if all, err := p.AllAnswers(); err == nil && len(all) > 0 {
		h.line += fmt.Sprintf(", %d answers", len(all))
	}
	return h, true
}

// stream is answer for TCP, where two bytes of length stand before a message.
func (q question) stream(b []byte, ended bool) heard {
	if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
		if ended && len(b) > 0 {
			return foreign(b, ended)
		}
		// No DNS server has so much to say about the root or one name's addresses.
		if len(b) >= 2 && int(binary.BigEndian.Uint16(b)) > evidence.MaxHeard {
			return foreign(b, ended)
		}
		return heard{}
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	h, ours := q.answer(b[2:n])
	if !ours {
		return foreign(b, ended)
	}
	h.used = n
	return h
}
