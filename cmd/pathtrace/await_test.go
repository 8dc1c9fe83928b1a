// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"net/netip"
	"regexp"
	"testing"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg"
)

// A probe that awaits an answer is not over when a process has accepted it:
// what comes late still counts, and silence lasts until the deadline.
func TestAcceptedIsNotAnswered(t *testing.T) {
	path := ownNetns(t)
	n, err := netcfg.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	listen := func(handle func(net.Conn)) netip.AddrPort {
		var l net.Listener
		if err := n.Do(func() (err error) { l, err = net.Listen("tcp", "127.0.0.1:0"); return err }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go handle(c)
			}
		}()
		return l.Addr().(*net.TCPAddr).AddrPort()
	}
	asked := make(chan struct{}, 1)
	late := listen(func(c net.Conn) {
		c.Read(make([]byte, 1)) // the question comes after the handshake, so the answer comes after accept()
		asked <- struct{}{}
		c.Write([]byte("220 late\r\n"))
	})
	silent := listen(func(c net.Conn) { c.Read(make([]byte, 100)); c.Read(make([]byte, 100)) })

	r := request{protocol: "tcp", netns: path, timeout: 10 * time.Second, send: []byte("hello"), wait: true, expect: regexp.MustCompile("^220")}
	r.target, r.input = late, late.String()
	c, v, err := r.run(context.Background(), &stopwatch{})
	if err != nil || v.Cause != "reachable" || c.Probe.Outcome != evidence.Answered {
		t.Errorf("a late answer: %s, %s, %v", v.Cause, c.Probe.Outcome, err)
	}
	<-asked

	r.target, r.input, r.timeout = silent, silent.String(), 700*time.Millisecond
	c, v, err = r.run(context.Background(), &stopwatch{})
	if err != nil || v.Cause != "app-silent" || c.Probe.DurationNS < int64(r.timeout) {
		t.Errorf("silence: %s after %v of %v, %v", v.Cause, time.Duration(c.Probe.DurationNS), r.timeout, err)
	}
}
