// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Way is how to come to a shell on the other host.
type Way struct {
	Text string // as the user wrote it
	Host string // as the user calls it; empty: only the host itself can tell
	// Command makes the process that carries the conversation. Run is what the
	// shell there is to run; where the process takes no command its shell reads it.
	Command func(run string) *exec.Cmd
	Reads   bool
	// Up is called once there is a shell that the program can be sent to; nil: nobody is told.
	Up func()
}

// Dial starts an agent on another host, and a conversation with it. Errors are one line.
func Dial(ctx context.Context, w Way, l Limits) (*Session, error) {
	l = l.orDefault()
	p, err := openProgram()
	if err != nil {
		return nil, err
	}
	defer p.file.Close()
	name := nonce()
	run := command(name, p.size, p.sum, p.machine)
	c := &carrier{cmd: w.Command(run)}
	if err := c.start(); err != nil {
		return nil, err
	}
	if w.Reads {
		_, err = io.WriteString(c.in, run+"\n")
	}
	if err == nil {
		err = p.upload(ctx, c.in, c.out, name, l, w.Up, c.kill)
	}
	if err != nil {
		_ = c.in.Close() // the shell's reason to end
		_ = c.end()
		return nil, c.explain(err)
	}
	s, err := Start(ctx, c.in, c.out, l, c.end)
	if err != nil {
		return nil, c.explain(err)
	}
	return s, nil
}

// carrier is the process that carries the conversation: ssh, or what the user named.
type carrier struct {
	cmd   *exec.Cmd
	in    *os.File
	out   *bufio.Reader
	pipes []*os.File // our ends
	tail  tail       // of what it said on standard error
	ended chan struct{}
	err   error // how it ended, once ended is closed
}

// farewell is how long a process may take to end once its input has.
const farewell = 2 * time.Second

// start gives the process pipes of ours: those of os/exec are closed behind the reader's back once it has ended.
func (c *carrier) start() error {
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	pipe := func() (r, w *os.File, err error) {
		if r, w, err = os.Pipe(); err == nil {
			c.pipes = append(c.pipes, r, w)
		}
		return r, w, err
	}
	inR, inW, err1 := pipe()
	outR, outW, err2 := pipe()
	errR, errW, err3 := pipe()
	if err := errors.Join(err1, err2, err3); err != nil {
		theirs = c.pipes
		return err
	}
	theirs, c.pipes = []*os.File{inR, outW, errW}, []*os.File{inW, outR, errR}
	c.in, c.out, c.ended = inW, bufio.NewReaderSize(outR, 64<<10), make(chan struct{})
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = inR, outW, errW
	if err := c.cmd.Start(); err != nil {
		theirs = append(theirs, c.pipes...)
		return err
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		_, _ = io.Copy(&c.tail, errR) // ends with the process, or when it is closed
	}()
	go func() {
		defer close(c.ended)
		c.err = c.cmd.Wait()
		select { // a child of it may hold the pipe open
		case <-heard:
		case <-time.After(farewell / 10):
		}
	}()
	return nil
}

// kill ends the process, and with it reads and writes that wait for it.
func (c *carrier) kill() {
	_ = c.cmd.Process.Kill() // it has ended already, or does now
	for _, f := range c.pipes {
		_ = f.Close()
	}
}

// end waits for the process, whose input was closed, and ends it where that takes too long.
func (c *carrier) end() error {
	select {
	case <-c.ended:
	case <-time.After(farewell):
	}
	c.kill()
	<-c.ended
	return nil
}

// explain prefers what the process itself said to what its end did to us.
func (c *carrier) explain(err error) error {
	last := c.tail.last()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.EPIPE):
		switch {
		case last != "":
			return errors.New(last)
		case c.err != nil:
			return fmt.Errorf("%s ended before it had a shell: %w", c.cmd.Args[0], c.err)
		}
		return fmt.Errorf("%s ended before it had a shell", c.cmd.Args[0])
	case errors.Is(err, context.Canceled), errors.As(err, new(failure)), last == "":
		return err
	}
	return fmt.Errorf("%w (%s)", err, last)
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	const most = 4 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b[max(0, len(b)-most):]...)
	if n := len(t.b) - most; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(b), nil
}

// last is the last line that says something.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := bytes.FieldsFunc(t.b, func(r rune) bool { return r == '\n' || r == '\r' })
	for i := len(lines) - 1; i >= 0; i-- {
		if s := strings.TrimSpace(string(lines[i])); s != "" {
			return s
		}
	}
	return ""
}
