// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
)

// maxHeard bounds what is read of an answer that comes to no end or does not match.
const maxHeard = 64 << 10

// talk says what is to be said and judges what is heard.
func (t *tcp) talk(ctx context.Context, p *evidence.Probe, deadline time.Time) string {
	s := &stream{socket: &t.socket, ctx: ctx, until: deadline, probe: p}
	c := conversation{cfg: &t.cfg, stream: s, conn: s, probe: p}
	if sp := t.cfg.Speech; sp.Any() {
		p.Expected = true
		p.Dialogue = &evidence.Dialogue{Protocol: sp.Protocol, Reply: evidence.ReplyNone}
		if sp.Protocol == "" {
			p.Dialogue.Protocol = "tls"
		}
		if sp.TLS {
			if outcome := c.secure(); outcome != "" {
				return outcome
			}
		}
	}
	sc, err := t.cfg.script(s.socket.Local())
	switch {
	case err != nil:
		return failed(p, err)
	case t.cfg.Send != nil || t.cfg.Expect != nil || !t.cfg.Speech.Any():
		return c.free(sc)
	case t.cfg.Speech.Protocol == "": // TLS alone
		p.Dialogue.Reply = evidence.ReplyOK
		return evidence.Answered
	}
	return c.follow(sc)
}

// conversation is one dialogue in progress.
type conversation struct {
	cfg    *Config
	stream *stream
	conn   net.Conn // the stream, or TLS on top of it
	probe  *evidence.Probe
	heard  []byte // not yet used up
}

// more reads once and keeps what came.
func (c *conversation) more() error {
	buf := make([]byte, 4096)
	n, err := c.conn.Read(buf)
	c.heard = append(c.heard, buf[:n]...)
	if room := evidence.MaxHeard - len(c.probe.Banner); room > 0 {
		c.probe.Banner += string(buf[:min(n, room)])
	}
	if n > 0 {
		return nil // an error comes again
	}
	return err
}

// free says --send, or the first words of the protocol, and awaits --expect, or
// whatever comes; where neither is asked for, until a process has had time to accept.
func (c *conversation) free(sc script) string {
	p, words := c.probe, c.cfg.Send
	if words == nil && len(sc.steps) > 0 {
		words = sc.steps[0].say
	}
	if len(words) > 0 {
		if _, err := c.conn.Write(words); err != nil {
			return c.end(err)
		}
	}
	wanted := c.cfg.Expect != nil || c.cfg.Speech.Any()
	if !c.cfg.Wait && !wanted {
		if u := time.Now().Add(AcceptWait); u.Before(c.stream.until) {
			c.stream.until = u
		}
	}
	for {
		err := c.more()
		switch {
		case err == nil:
		case c.refused(err):
			return evidence.Answered
		case !wanted && errors.Is(err, os.ErrDeadlineExceeded):
			return evidence.Connected
		default:
			p.Unmatched = len(c.heard) > 0
			return c.end(err)
		}
		if c.cfg.Expect == nil || c.cfg.Expect.Match(c.heard) {
			c.reply(heard{reply: evidence.ReplyOK})
			return evidence.Answered
		}
		if len(c.heard) > maxHeard {
			p.Unmatched = true
			return evidence.Answered
		}
	}
}

// follow goes through the steps of a protocol.
func (c *conversation) follow(sc script) string {
	for i, st := range sc.steps {
		if st.said != "" {
			c.probe.Dialogue.Said = append(c.probe.Dialogue.Said, st.said)
		}
		if len(st.say) > 0 {
			if _, err := c.conn.Write(st.say); err != nil {
				return c.end(err)
			}
		}
		h, err := c.listen(st.hear)
		switch {
		case c.refused(err):
			return evidence.Answered
		case h.reply == "":
			return c.end(err)
		}
		if i == 0 || h.reply != evidence.ReplyOK { // the greeting says most, unless something goes wrong
			c.reply(h)
		}
		if h.reply != evidence.ReplyOK {
			return c.turnedAway()
		}
		c.heard = c.heard[min(h.used, len(c.heard)):]
	}
	if sc.bye != "" {
		// the answer is known: a server that has gone may miss it
		_, _ = io.WriteString(c.conn, sc.bye)
	}
	return evidence.Answered
}

// listen reads until the answer can be judged. Without an answer it returns why there is none.
func (c *conversation) listen(judge hear) (heard, error) {
	for {
		if len(c.heard) > 0 {
			if h := judge(c.heard, false); h.reply != "" {
				return h, nil
			}
		}
		if len(c.heard) > maxHeard {
			h := foreign(c.heard, true)
			h.line = fmt.Sprintf("more than %d bytes and no end: %s", maxHeard, h.line)
			return h, nil
		}
		if err := c.more(); err != nil {
			if len(c.heard) == 0 || !errors.Is(err, io.EOF) {
				return heard{}, err
			}
			return judge(c.heard, true), err
		}
	}
}

func (c *conversation) reply(h heard) {
	d := c.probe.Dialogue
	if d == nil {
		return
	}
	d.Reply, d.Line = h.reply, h.line
	if len(d.Line) > maxLine {
		d.Line = d.Line[:maxLine]
	}
	if kind := kindOf(c.heard); h.reply == evidence.ReplyForeign && kind != "" {
		d.Line = kind + ": " + d.Line
	}
	if d.Protocol == "http" && h.line != "" && h.reply != evidence.ReplyForeign && c.cfg.Expect == nil {
		c.probe.Banner = h.line + "\r\n" // what follows may hold cookies and other secrets
	}
}

// turnedAway waits a moment for the close that follows an answer which is an error.
func (c *conversation) turnedAway() string {
	c.probe.Unmatched = true
	if u := time.Now().Add(AcceptWait); u.Before(c.stream.until) {
		c.stream.until = u
	}
	rest := make([]byte, 4096)
	for total := 0; total < maxHeard; {
		n, err := c.conn.Read(rest)
		total += n
		switch {
		case errors.Is(err, io.EOF):
			return evidence.Closed
		case err != nil:
			c.probe.Syscall = ""
			return evidence.Answered
		}
	}
	return evidence.Answered
}

// end says how the probe ended without a whole answer.
func (c *conversation) end(err error) string {
	if err == nil {
		err = io.EOF
	}
	if outcome, ok := ended(c.probe, err); ok {
		return outcome
	}
	c.probe.Unmatched = true
	c.reply(heard{reply: evidence.ReplyForeign, line: "no TLS that can be understood: " + strings.TrimPrefix(strings.TrimPrefix(err.Error(), "local error: "), "tls: ")})
	return evidence.Answered
}
