// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// Behaviour is what a service does with a connection that came in.
type Behaviour string

// Behaviours of a service. The zero value keeps the connection and reads from it.
const (
	Hold        Behaviour = ""             // accept, say the banner if there is one, read until the other end closes
	Echo        Behaviour = "echo"         // accept, send back what comes
	NeverAccept Behaviour = "never-accept" // leave connections in the accept queue
	CloseAtOnce Behaviour = "close"        // accept, then close
	ResetAtOnce Behaviour = "reset"        // accept, then reset
	CloseFirst  Behaviour = "close-first"  // close the first connection, keep the others
	CloseSoon   Behaviour = "close-soon"   // accept, compute for a while, then close
	CloseAfter  Behaviour = "close-after"  // accept, read once, say the banner, then close
	Recover     Behaviour = "recover"      // accept once a connection was turned away because the queue was full
	NeverRead   Behaviour = "never-read"   // of UDP: start with a full receive buffer, and leave it so
	ExitAtOnce  Behaviour = "exit"         // accept, then end with exit code 3
	DieAtOnce   Behaviour = "die"          // accept, then be killed
	Stopped     Behaviour = "stopped"      // listen, and be stopped before anything is accepted
)

// Filter is what is attached to a service's socket.
type Filter string

// Filters of a service's socket. Those of BPF drop or take every packet.
const (
	NoFilter    Filter = ""
	ClassicDrop Filter = "classic-drop" // SO_ATTACH_FILTER
	ClassicPass Filter = "classic-pass"
	ProgramDrop Filter = "program-drop" // SO_ATTACH_BPF
)

// Listen is a service of a lab: a process of its own that listens on a port.
type Listen struct {
	Network   string // tcp4 (the default), tcp6, udp4 or udp6
	Addr      netip.AddrPort
	Comm      string // name of the process, "labd" by default
	Backlog   int    // 128 by default
	Behaviour Behaviour
	Banner    string
	Dual      bool   // a tcp6 or udp6 socket takes IPv4 too
	Device    string // SO_BINDTODEVICE
	Filter    Filter
	MD5       netip.Addr // this peer must sign its segments
	MinTTL    int        // IP_MINTTL

	Transparent bool // IP_TRANSPARENT: it takes connections to addresses and ports of others
}

// Connect holds TCP connections open.
type Connect struct {
	From  netip.AddrPort // any when not valid
	To    netip.AddrPort
	Count int
	Ended bool   // let the connections end before it is ready: the side that closes first is left in TIME_WAIT
	First bool   // of Ended: close first
	ISN   uint32 // of the connections, where not 0
}

// Flood sends packets, without an answer to await, from one address to the port of another.
type Flood struct {
	From  netip.Addr
	To    netip.AddrPort
	Count int   // 0: for ever, until the lab is closed
	UDP   bool  // datagrams instead of TCP segments
	Flags uint8 // of the TCP segments; SYN when 0
	Ports int   // how many source ports it uses, one after the other; 20000 when 0
	Rate  int   // packets a second; 1000 when 0
}

// Reader reads a netfilter queue and says the same about every packet.
type Reader struct {
	Queue uint16
	Drop  bool
}

// job is what a helper process is told to do, as JSON in its one argument.
type job struct {
	Listen  *Listen  `json:",omitempty"`
	Filled  int      `json:",omitempty"` // of Listen: report "full" when so many connections wait in the accept queue
	Connect *Connect `json:",omitempty"`
	Flood   *Flood   `json:",omitempty"`
	Reader  *Reader  `json:",omitempty"`
	Try     *Try     `json:",omitempty"`
	Reap    *reap    `json:",omitempty"`
	Program *Program `json:",omitempty"`
	Enter   *Program `json:",omitempty"` // the same, within its namespaces
}

// service is a running helper process. It ends when its stdin is closed, so also when we are killed.
type service struct {
	cmd   *exec.Cmd
	stdin io.Closer
	said  *bufio.Reader
	pipe  io.Closer
}

func (s *service) stop() {
	s.stdin.Close()
	s.cmd.Process.Kill()
	s.cmd.Wait()
	s.pipe.Close()
}

// expect waits until the helper says word.
func (s *service) expect(word string) error {
	line, err := s.said.ReadString('\n')
	line = strings.TrimSpace(line)
	switch {
	case line == word:
		return nil
	case line != "":
		return errors.New(line)
	case err != nil:
		return fmt.Errorf("it ended without a word: %w", err)
	}
	return fmt.Errorf("it said nothing where %q was awaited", word)
}

// start runs a helper in a namespace and returns when it is ready.
func (l *Lab) start(r Role, j job) (*service, error) {
	s, err := l.spawn(r, j)
	if err != nil {
		return nil, fmt.Errorf("start a helper in %s: %w", l.Netns(r), err)
	}
	l.mu.Lock()
	closed := l.closed
	if !closed {
		l.services = append(l.services, s)
	}
	l.mu.Unlock()
	if closed {
		s.stop()
		return nil, errors.New("the lab is closed")
	}
	if err := s.expect("ready"); err != nil {
		return nil, fmt.Errorf("helper in %s: %w", l.Netns(r), err)
	}
	return s, nil
}

func (l *Lab) spawn(r Role, j job) (*service, error) {
	arg, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	said, tell, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer tell.Close()
	cmd := exec.Command("/proc/self/exe", string(arg))
	cmd.Env = append(os.Environ(), helperEnv+"=1")
	cmd.ExtraFiles = []*os.File{tell}
	if dir := l.cgroups[r]; dir != "" {
		cgroup, err := os.Open(dir)
		if err != nil {
			return nil, err
		}
		defer cgroup.Close()
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
	}
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = within(l.ns[r], cmd.Start)
	}
	if err != nil {
		said.Close()
		return nil, err
	}
	return &service{cmd: cmd, stdin: stdin, said: bufio.NewReader(said), pipe: said}, nil
}

// Serve starts a service in a namespace and returns when it listens.
func (l *Lab) Serve(r Role, what Listen) error {
	_, err := l.start(r, job{Listen: &what})
	return err
}

// ServeFull starts a service that never accepts, fills its accept queue with connections
// from another namespace, and returns when the queue is full.
func (l *Lab) ServeFull(r Role, what Listen, from Role) error {
	what.Behaviour = or(what.Behaviour, NeverAccept)
	connections := what.Backlog + 1 // the kernel lets one more in than was asked for
	s, err := l.start(r, job{Listen: &what, Filled: connections})
	if err != nil {
		return err
	}
	if _, err := l.start(from, job{Connect: &Connect{To: what.Addr, Count: connections}}); err != nil {
		return err
	}
	if err := s.expect("full"); err != nil {
		return fmt.Errorf("fill the accept queue of %s: %w", what.Addr, err)
	}
	return nil
}

// Hold keeps TCP connections open from a namespace, or has them ended when it returns.
func (l *Lab) Hold(r Role, c Connect) error {
	_, err := l.start(r, job{Connect: &c})
	return err
}

// ReadQueue starts a reader of a netfilter queue and returns when it is bound to it.
func (l *Lab) ReadQueue(r Role, q Reader) error {
	_, err := l.start(r, job{Reader: &q})
	return err
}

// Flood sends packets from a namespace; it returns when the first, or all of a counted flood, have left.
func (l *Lab) Flood(r Role, f Flood) error {
	_, err := l.start(r, job{Flood: &f})
	return err
}
