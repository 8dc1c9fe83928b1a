// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"strings"
	"testing"

	"github.com/pathtrace/pathtrace/evidence"
)

var hears = map[string]hear{
	"code": code("502"), "http": httpStatus, "ssh": sshVersion, "mysql": mysqlGreeting, "postgres": postgresReply(false), "stranger": postgresReply(true),
	"pop3": marked([]string{"+OK"}, []string{"-ERR"}), "redis": marked([]string{"+PONG", "-NOAUTH"}, []string{"-"}),
	"imap": marked([]string{"* OK", "* PREAUTH"}, []string{"* BYE"}),
}

func postgresError(fields ...string) string {
	body := strings.Join(fields, "\x00") + "\x00\x00"
	return "E\x00\x00\x00" + string(rune(len(body)+4)) + body
}

func TestHear(t *testing.T) {
	const ok, bad, foreign, more = evidence.ReplyOK, evidence.ReplyError, evidence.ReplyForeign, ""
	for _, c := range []struct {
		how, said   string
		ended       bool
		reply, line string
		used        int
	}{
		{"code", "220 ready\r\n", false, ok, "220 ready", 11},
		{"code", "220-one\r\n two\r\n220 end\r\nX", false, ok, "220-one", 24},
		{"code", "220-one\r\n", false, more, "", 0},
		{"code", "220-one\r\n", true, ok, "220-one", 9},
		{"code", "22", false, more, "", 0},
		{"code", "421 too many\r\n", false, bad, "421 too many", 14},
		{"code", "554-no\n554 never\n", false, bad, "554-no", 17},
		{"code", "502 what?\r\n", false, ok, "502 what?", 11},
		{"code", "SSH-2.0-x\r\n", false, foreign, "SSH-2.0-x", 11},
		{"code", "999 x\n", false, foreign, "999 x", 6},
		{"http", "HTTP/1.1 200 OK\r\nServer: x\r\n", false, ok, "HTTP/1.1 200 OK", 17},
		{"http", "HTTP/1.1 404 Not Found\r\n", false, ok, "HTTP/1.1 404 Not Found", 24},
		{"http", "HTTP/1.0 503\r\n", false, bad, "HTTP/1.0 503", 14},
		{"http", "HTTP/1.1 400 Bad Request\r\n", false, bad, "HTTP/1.1 400 Bad Request", 26},
		{"http", "HTTP/1.1 2", false, more, "", 0},
		{"http", "HT", false, more, "", 0},
		{"http", "HTTP/1.1 2000 x\n", false, foreign, "HTTP/1.1 2000 x", 16},
		{"http", "\x15\x03\x01\x00\x02\x02\x28", false, foreign, "\x15\x03\x01\x00\x02\x02\x28", 7},
		{"ssh", "SSH-2.0-OpenSSH_9.2p1\r\n", false, ok, "SSH-2.0-OpenSSH_9.2p1", 23},
		{"ssh", "hello\r\nSSH-2.0-x\r\n", false, ok, "SSH-2.0-x", 18},
		{"ssh", "hello\r\n", false, more, "", 0},
		{"ssh", "hello\r\n", true, foreign, "hello", 7},
		{"ssh", "Exceeded MaxStartups\r\n", true, bad, "Exceeded MaxStartups", 22},
		{"ssh", strings.Repeat("a\n", 60), false, foreign, "a", 2},
		{"pop3", "+OK dovecot\r\n", false, ok, "+OK dovecot", 13},
		{"pop3", "-ERR no\r\n", false, bad, "-ERR no", 9},
		{"imap", "* BYE busy\r\n", false, bad, "* BYE busy", 12},
		{"imap", "* O", false, more, "", 0},
		{"imap", "* XX\r\n", false, foreign, "* XX", 6},
		{"redis", "+PONG\r\n", false, ok, "+PONG", 7},
		{"redis", "-NOAUTH Authentication required.\r\n", false, ok, "-NOAUTH Authentication required.", 34},
		{"redis", "-LOADING\r\n", false, bad, "-LOADING", 10},
		{"mysql", "\x0a\x00\x00\x00\x0a8.0.36\x00\x01\x00", false, ok, "protocol 10, version 8.0.36", 14},
		{"mysql", "\x06\x00\x00\x00\xff\x15\x04abc", false, bad, "ERROR 1045: abc", 10},
		{"mysql", "\x06\x00\x00\x00\xff", false, more, "", 0},
		{"mysql", "\xff\xff\xff\x00\x0a", false, foreign, "\xff\xff\xff\x00", 5},
		{"postgres", "R\x00\x00\x00\x08\x00\x00\x00\x05salt", false, ok, "asks for authentication: md5", 9},
		{"postgres", "R\x00\x00", false, more, "", 0},
		{"postgres", "R\x7f\x00\x00\x08\x00", false, foreign, "R\x7f\x00\x00\x08\x00", 6},
		{"postgres", "N", false, foreign, "N", 1},
		{"postgres", postgresError("SFATAL", "C57P03", "Mstarting up"), false, bad, "FATAL: starting up (SQLSTATE 57P03)", 33},
		{"postgres", postgresError("SFATAL", "C28000", "Mno role", "RInitializeSessionUserId"), false, bad, "FATAL: no role (SQLSTATE 28000)", 54},
		{"stranger", postgresError("SFATAL", "C28000", "Mno role", "RInitializeSessionUserId"), false, ok, "FATAL: no role (SQLSTATE 28000)", 54},
		{"stranger", postgresError("SFATAL", "C28000", "Mno pg_hba", "RClientAuthentication"), false, bad, "FATAL: no pg_hba (SQLSTATE 28000)", 53},
	} {
		h := hears[c.how]([]byte(c.said), c.ended)
		if h.reply != c.reply || h.line != c.line || h.used != c.used {
			t.Errorf("%s of %q: %q %q %d, want %q %q %d", c.how, c.said, h.reply, h.line, h.used, c.reply, c.line, c.used)
		}
	}
}

// FuzzHear: no bytes crash a judge, none is judged beyond its end, and none is
// still undecided when it is over or without end.
func FuzzHear(f *testing.F) {
	for _, s := range []string{"220-a\r\n220 b\r\n", "HTTP/1.1 200 OK\r\n", "SSH-2.0-x\n", "\x0a\x00\x00\x00\x0a8\x00", "E\x00\x00\x00\x09Sx\x00\x00", "* OK\n", "-", "\x00\x0c\x00\x01\x84\x00\x00\x00\x00\x00\x00\x00\x00\x00"} {
		f.Add([]byte(s), true)
	}
	q, err := newQuestion("www.example")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte, over bool) {
		q.answer(b)
		kindOf(b)
		if len(b) == 0 {
			return // nobody asks
		}
		all := map[string]hear{"dns": q.stream}
		for name, h := range hears {
			all[name] = h
		}
		for name, judge := range all {
			h := judge(b, over)
			if h.used > len(b) || h.reply != "" && h.used <= 0 {
				t.Errorf("%s used %d of %d", name, h.used, len(b))
			}
			if over && h.reply == "" {
				t.Errorf("%s: undecided about %q", name, b)
			}
			if again := judge(append(b[:len(b):len(b)], "more\n"...), over); h.reply == evidence.ReplyOK && !over && again != h && name != "mysql" {
				t.Errorf("%s: %+v, and with more %+v", name, h, again)
			}
		}
	})
}

func TestDNSAnswer(t *testing.T) {
	q, err := newQuestion("www.example")
	if err != nil {
		t.Fatal(err)
	}
	query, err := q.pack()
	if err != nil {
		t.Fatal(err)
	}
	reply := func(code byte) []byte {
		b := append([]byte{}, query...)
		b[2] |= 0x80
		b[3] = code
		return b
	}
	for code, want := range map[byte]string{0: "ok NOERROR", 2: "error SERVFAIL", 3: "ok NXDOMAIN", 5: "error REFUSED"} {
		if h, ours := q.answer(reply(code)); !ours || h.reply+" "+h.line != want+" for www.example. A" {
			t.Errorf("code %d: %v %+v", code, ours, h)
		}
	}
	root, _ := newQuestion("")
	rootQuery, _ := root.pack()
	rootQuery[2], rootQuery[3] = rootQuery[2]|0x80, 5
	if h, ours := root.answer(rootQuery); !ours || h.reply != evidence.ReplyOK {
		t.Errorf("a server that refuses the root: %v %+v", ours, h)
	}
	other := reply(0)
	other[0] ^= 1
	if _, ours := q.answer(other); ours {
		t.Error("another's answer was taken")
	}
	if _, ours := q.answer(query); ours {
		t.Error("a question was taken for an answer")
	}
}
