// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// heard is what the bytes that came so far mean.
type heard struct {
	reply string // one of the evidence.Reply constants; empty: more is needed
	line  string // the words that decided
	used  int    // bytes of the answer
}

// hear judges an answer by what came of it; ended says that nothing more will.
// It never changes its mind about an answer of which more has come.
type hear func(b []byte, ended bool) heard

// maxLine bounds a line of a text protocol; the longest that one of them allows is 1000 bytes or less.
const maxLine = 2048

// line takes the first line of b, without its end.
func line(b []byte, ended bool) (text string, used int, whole bool) {
	i := bytes.IndexByte(b, '\n')
	switch {
	case i >= 0:
		return strings.TrimRight(string(b[:i]), "\r"), i + 1, true
	case len(b) > maxLine || ended && len(b) > 0:
		return string(b[:min(len(b), maxLine)]), len(b), true
	}
	return "", 0, false
}

// starts reports whether b begins with prefix, or may once more of it has come.
func starts(b []byte, prefix string) bool {
	n := min(len(b), len(prefix))
	return string(b[:n]) == prefix[:n]
}

func foreign(b []byte, ended bool) heard {
	text, used, _ := line(b, ended)
	if used == 0 {
		text, used = string(b), len(b)
	}
	return heard{evidence.ReplyForeign, text, used}
}

// marked is an answer of one line whose beginning tells good from bad.
func marked(good, bad []string) hear {
	return func(b []byte, ended bool) heard {
		may := func(p string) bool { return starts(b, p) }
		if !slices.ContainsFunc(good, may) && !slices.ContainsFunc(bad, may) {
			return foreign(b, ended)
		}
		text, used, whole := line(b, ended)
		is := func(p string) bool { return strings.HasPrefix(text, p) }
		switch {
		case !whole:
			return heard{}
		case slices.ContainsFunc(good, is):
			return heard{evidence.ReplyOK, text, used}
		case slices.ContainsFunc(bad, is):
			return heard{evidence.ReplyError, text, used}
		}
		return heard{evidence.ReplyForeign, text, used}
	}
}

// code is a reply of FTP or SMTP (RFC 959 4.2, RFC 5321 4.2): three digits, and
// lines that go on until the same digits stand before a space. Codes in pass
// are about our words, not about the service.
func code(pass ...string) hear {
	return func(b []byte, ended bool) heard {
		first, used, whole := line(b, ended)
		for i := range min(len(b), 3) {
			if b[i] < '0' || b[i] > '9' {
				return foreign(b, ended)
			}
		}
		switch {
		case !whole:
			return heard{}
		case len(first) < 3 || len(first) > 3 && first[3] != ' ' && first[3] != '-' || first[0] < '1' || first[0] > '5':
			return heard{evidence.ReplyForeign, first, used}
		}
		for last := first; len(last) > 3 && (last[3] == '-' || last[:3] != first[:3]); {
			next, n, whole := line(b[used:], ended)
			if !whole {
				if ended {
					break
				}
				return heard{}
			}
			used += n
			if last = next; len(last) <= 3 {
				last += "    " // a line within the text
			}
		}
		if first[0] >= '4' && !slices.Contains(pass, first[:3]) {
			return heard{evidence.ReplyError, first, used}
		}
		return heard{evidence.ReplyOK, first, used}
	}
}

// httpStatus is the status line of an HTTP answer (RFC 9112 4). A status that
// is about our bare request (401, 403, 404 …) is an answer; 400, 421, 429 and
// 5xx are errors: no request would fare better.
func httpStatus(b []byte, ended bool) heard {
	if !starts(b, "HTTP/") {
		return foreign(b, ended)
	}
	text, used, whole := line(b, ended)
	if !whole {
		return heard{}
	}
	_, rest, _ := strings.Cut(text, " ")
	if len(rest) < 3 || len(rest) > 3 && rest[3] != ' ' || strings.Trim(rest[:3], "0123456789") != "" {
		return heard{evidence.ReplyForeign, text, used}
	}
	switch c := rest[:3]; {
	case c == "400", c == "421", c == "429", c[0] == '5':
		return heard{evidence.ReplyError, text, used}
	}
	return heard{evidence.ReplyOK, text, used}
}

// sshVersion is the identification line of SSH; others may stand before it (RFC
// 4253 4.2). With these an OpenSSH server turns a client away.
func sshVersion(b []byte, ended bool) heard {
	for used, lines := 0, 0; ; lines++ {
		text, n, whole := line(b[used:], ended)
		if used += n; !whole {
			if ended || lines > 0 && used == 0 {
				return foreign(b, ended)
			}
			return heard{}
		}
		switch {
		case strings.HasPrefix(text, "SSH-"):
			return heard{evidence.ReplyOK, text, used}
		case strings.HasPrefix(text, "Exceeded MaxStartups"), strings.HasPrefix(text, "Not allowed at this time"):
			return heard{evidence.ReplyError, text, used}
		case lines > 50 || lines == 0 && (strings.HasPrefix(text, "HTTP/") || n > maxLine):
			return foreign(b, ended)
		}
	}
}

// mysqlGreeting is the first packet of a MySQL or MariaDB server: 3 bytes of
// length, a number, and protocol 10 with the server's version, or an error.
func mysqlGreeting(b []byte, ended bool) heard {
	if len(b) < 5 {
		if ended && len(b) > 0 {
			return foreign(b, ended)
		}
		return heard{}
	}
	size := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
	if size < 3 || size > evidence.MaxHeard || b[3] > 1 || b[4] != 10 && b[4] != 0xff {
		return foreign(b, ended)
	}
	if len(b) < 4+size {
		if ended {
			return foreign(b, ended)
		}
		return heard{}
	}
	body := b[5 : 4+size]
	if b[4] == 0xff {
		return heard{evidence.ReplyError, fmt.Sprintf("ERROR %d: %s", binary.LittleEndian.Uint16(body), body[2:]), 4 + size}
	}
	version, _, found := bytes.Cut(body, []byte{0})
	if !found {
		return foreign(b, ended)
	}
	return heard{evidence.ReplyOK, "protocol 10, version " + string(version), 4 + size}
}

// postgresReply is the answer to a StartupMessage: a request for authentication
// or an error. asStranger says that the user's name was made up: that there is no
// such role, database or password is then an answer.
func postgresReply(asStranger bool) hear {
	return func(b []byte, ended bool) heard {
		if len(b) > 0 && b[0] != 'R' && b[0] != 'E' {
			return foreign(b, ended)
		}
		if len(b) < 5 {
			if ended && len(b) > 0 {
				return foreign(b, ended)
			}
			return heard{}
		}
		size := int(binary.BigEndian.Uint32(b[1:]))
		if size < 8 || size > evidence.MaxHeard {
			return foreign(b, ended)
		}
		if len(b) < 1+size {
			if ended {
				return foreign(b, ended)
			}
			return heard{}
		}
		if b[0] == 'R' {
			return heard{evidence.ReplyOK, "asks for authentication: " + postgresAuth(binary.BigEndian.Uint32(b[5:])), 1 + size}
		}
		fields := map[byte]string{}
		for _, f := range bytes.Split(b[5:1+size], []byte{0}) {
			if len(f) > 1 {
				fields[f[0]] = string(f[1:])
			}
		}
		h := heard{evidence.ReplyError, fmt.Sprintf("%s: %s (SQLSTATE %s)", fields['S'], fields['M'], fields['C']), 1 + size}
		// InitializeSessionUserId looks the role up, once pg_hba.conf let the client in.
		switch c := fields['C']; {
		case asStranger && (c == "28P01" || c == "3D000" || c == "28000" && strings.HasPrefix(fields['R'], "InitializeSessionUserId")):
			h.reply = evidence.ReplyOK
		}
		return h
	}
}

func postgresAuth(kind uint32) string {
	switch kind {
	case 0:
		return "none needed"
	case 3:
		return "password"
	case 5:
		return "md5"
	case 10:
		return "SASL"
	}
	return fmt.Sprintf("method %d", kind)
}

// kindOf names the protocol that an answer looks like, or nothing.
func kindOf(b []byte) string {
	has := func(p string) bool { return bytes.HasPrefix(b, []byte(p)) }
	switch {
	case has("HTTP/"):
		return "HTTP"
	case has("SSH-"):
		return "SSH"
	case has("+OK"):
		return "POP3"
	case has("* OK"), has("* PREAUTH"), has("* BYE"):
		return "IMAP"
	case has("-ERR"), has("+PONG"), has("-NOAUTH"), has("-DENIED"):
		return "Redis"
	case len(b) > 2 && (b[0] == 0x15 || b[0] == 0x16) && b[1] == 3:
		return "TLS"
	case len(b) > 3 && code()(b, true).reply != evidence.ReplyForeign:
		return "FTP or SMTP"
	case mysqlGreeting(b, false).reply == evidence.ReplyOK:
		return "MySQL"
	}
	return ""
}
