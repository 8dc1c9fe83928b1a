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
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
)

// TestMain makes this binary serve as the agent that is carried to the other host.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "agent" {
		if err := Serve(context.Background(), os.Stdin, os.Stdout, Hello{Host: "there", PID: os.Getpid()}, &stub{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// stub is an agent that has seen what it was told of.
type stub struct{ order Order }

func (s *stub) Trace(_ context.Context, o Order, news func(News)) error {
	if o.Target.Protocol == "none" {
		return errors.New("this kernel is too old")
	}
	s.order = o
	news(Explained)
	return nil
}

func (s *stub) Read(_ context.Context, p evidence.Probe) (Case, error) {
	return Case{Start: 7, Case: evidence.Case{
		Target: s.order.Target, Probe: p,
		Namespaces: []evidence.Namespace{{Name: "init", Links: evidence.Have([]evidence.Link{{Name: "eth0"}})}},
	}}, nil
}

func (s *stub) Close() error { return nil }

// need returns a program's path, or skips.
func need(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip(name + " is not installed")
	}
	return path
}

// nothingLeft gives the script a directory of the test's own, and looks into it at the end.
func nothingLeft(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	t.Cleanup(func() {
		left, err := os.ReadDir(dir)
		if err != nil || len(left) > 0 {
			t.Errorf("files are left: %v %v", left, err)
		}
	})
}

// The program is carried through whatever shell there is, and talked with.
func TestDial(t *testing.T) {
	for name, shell := range map[string]string{
		"dash": "dash", "bash": "bash", "busybox": "busybox sh", "behind another": "sh -c 'echo Welcome; exec sh'",
		"that reads ahead": "busybox sh -s", "interactive": "bash --norc -i 2>/dev/null",
	} {
		t.Run(name, func(t *testing.T) {
			need(t, strings.Fields(shell)[0])
			nothingLeft(t)
			s, err := Dial(t.Context(), Shell(shell), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if s.Hello.Host != "there" || s.Bound <= 0 || s.Offset.Monotonic > int64(s.Bound) || -s.Offset.Monotonic > int64(s.Bound) {
				t.Errorf("hello %+v, clock %+v within %v; it is our own", s.Hello, s.Offset, s.Bound)
			}
			order := Order{Target: evidence.Target{Protocol: "tcp", Port: 80}}
			if err := s.Trace(t.Context(), order); err != nil {
				t.Fatal(err)
			}
			if n := <-s.News(); n != Explained {
				t.Errorf("news: %q", n)
			}
			got, err := s.Read(t.Context(), evidence.Probe{Outcome: evidence.Timeout})
			if err != nil {
				t.Fatal(err)
			}
			want := Case{Start: 7, Case: evidence.Case{Target: order.Target, Probe: evidence.Probe{Outcome: evidence.Timeout},
				Namespaces: []evidence.Namespace{{Name: "init", Links: evidence.Have([]evidence.Link{{Name: "eth0"}})}}}}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if err := s.Trace(t.Context(), Order{Target: evidence.Target{Protocol: "none"}}); err == nil || err.Error() != "this kernel is too old" {
				t.Errorf("an agent that cannot: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// What goes wrong is said in the words of whoever knows best.
func TestDialFails(t *testing.T) {
	long, short := 20*time.Second, 300*time.Millisecond
	for name, c := range map[string]struct{ command, want string }{
		"refused":              {"echo nothing >&2; echo ssh: connect to host web1 port 22: Connection refused >&2; exit 255", "ssh: connect to host web1 port 22: Connection refused"},
		"no word":              {"exit 3", "/bin/sh ended before it had a shell: exit status 3"},
		"no shell":             {"cat >/dev/null", "no shell answered for 300ms"},
		"another architecture": {"PATH=$D:$PATH; export PATH; printf '#!/bin/sh\\n[ $1 = -m ] && echo vax || echo Linux\\n' >$D/uname; chmod +x $D/uname; exec sh", "it is a vax, and this program is for "},
		"another system":       {"PATH=$D:$PATH; export PATH; printf '#!/bin/sh\\necho OpenBSD\\n' >$D/uname; chmod +x $D/uname; exec sh", "it runs OpenBSD, not Linux"},
		"no sudo":              {"PATH=$D:$PATH; export PATH; printf '#!/bin/sh\\necho 1000\\n' >$D/id; printf '#!/bin/sh\\necho sudo: a password is required; exit 1' >$D/sudo; chmod +x $D/*; exec sh", "tracing needs root: sudo: a password is required"},
		"nowhere to put it":    {"PATH=$D:$PATH; export PATH; printf '#!/bin/sh\\nexit 0\\n' >$D/chmod; chmod +x $D/*; exec sh", "none of /dev/shm, /tmp and /var/tmp takes a program"},
		"cut half-way":         {"dd bs=4000 count=2 2>/dev/null | sh", "the copy of this program did not arrive whole"},
		"stuck half-way":       {"(dd bs=4000 count=2 2>/dev/null; sleep 5) | sh", "it took nothing of this program for 300ms"},
		"an endless banner":    {"yes", "a line is longer than the protocol allows"},
		"no agent":             {"PATH=$D:$PATH; export PATH; printf '#!/bin/sh\\nsleep 5\\n' >$D/sha256sum; chmod +x $D/*; exec sh", "it took nothing of this program for 300ms"},
	} {
		t.Run(name, func(t *testing.T) {
			nothingLeft(t)
			limits := Limits{Ready: long, Reply: long}
			switch { // who waits for what
			case strings.HasPrefix(c.want, "no shell"):
				limits.Ready = short
			case strings.HasSuffix(c.want, short.String()):
				limits.Reply = short
			}
			s, err := Dial(t.Context(), Shell(strings.ReplaceAll("D="+t.TempDir()+"; "+c.command, "sleep 5", "exec sleep 5")), limits)
			if err == nil {
				s.Close()
				t.Fatal("no error")
			}
			if !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q, want %q", err, c.want)
			}
		})
	}
}

// stream is an agent that says one line of first at once and the next one
// whenever it is asked something, then again so many times, then ends, or stays silent.
type stream struct {
	first, again []byte
	times        int
	silent       chan struct{} // closed at the end; nil: it ends by itself
	asked        chan struct{}
	begun        bool
}

func (s *stream) Read(b []byte) (int, error) {
	if len(s.first) > 0 {
		if s.begun {
			select {
			case <-s.asked:
			case <-s.silent:
				return 0, io.EOF
			}
		}
		line, _, _ := bytes.Cut(s.first, []byte("\n"))
		n := copy(b, s.first[:min(len(line)+1, len(s.first))])
		s.begun = s.first[n-1] == '\n'
		s.first = s.first[n:]
		return n, nil
	}
	if s.times == 0 {
		if s.silent != nil {
			<-s.silent
		}
		return 0, io.EOF
	}
	s.times--
	return copy(b, s.again), nil
}

func (s *stream) Write(b []byte) (int, error) { s.asked <- struct{}{}; return len(b), nil }
func (s *stream) Close() error                { return nil }

// talk has a whole conversation with an agent that says what out holds.
func talk(out *stream, patience time.Duration, release func()) error {
	out.asked = make(chan struct{}, 64)
	s, err := Start(context.Background(), out, bufio.NewReader(out), Limits{Work: patience, Reply: patience}, func() error { release(); return nil })
	if err != nil {
		return err
	}
	if err = s.Trace(context.Background(), Order{}); err == nil {
		_, err = s.Read(context.Background(), evidence.Probe{})
	}
	s.Close()
	return err
}

// An agent that wants us harm gets an error, soon, and not our memory.
func TestHostile(t *testing.T) {
	const hello = `{"hello":{"protocol":1}}` + "\n"
	clocks := hello
	for i := range rounds {
		clocks += fmt.Sprintf(`{"id":%d,"clock":{}}`+"\n", i+1)
	}
	armed := clocks + fmt.Sprintf(`{"id":%d}`+"\n", rounds+1)
	read := armed + fmt.Sprintf(`{"id":%d,`, rounds+2)
	big := bytes.Repeat([]byte("x"), 64<<10)
	for name, c := range map[string]struct {
		s    stream
		want string
	}{
		"silence":                 {stream{}, "its agent said nothing for 200ms"},
		"silence after hello":     {stream{first: []byte(hello)}, "its agent did not answer for 200ms"},
		"silence when asked":      {stream{first: []byte(armed)}, "its agent did not answer for 200ms"},
		"a line of 100 MB":        {stream{first: []byte(hello), again: big, times: 25_600}, errLong.Error()},
		"endless lines":           {stream{first: []byte(clocks), again: []byte(strings.Repeat(`{"news":"accepted"}`+"\n", 100)), times: 1 << 20}, "it says more than the protocol allows"},
		"endless empty lines":     {stream{first: []byte(hello), again: bytes.Repeat([]byte("\n"), 4096), times: 1 << 20}, "a line is no message of the protocol"},
		"not JSON":                {stream{first: []byte("SSH-2.0-OpenSSH\n")}, "a line is no message of the protocol"},
		"another version":         {stream{first: []byte(`{"hello":{"protocol":2}}` + "\n")}, "its agent speaks version 2 of the protocol, this one 1"},
		"a million events":        {stream{first: []byte(read + `"case":{"events":[` + strings.Repeat("1,", 1e6) + "1]}}\n")}, errMany.Error()},
		"a thousand namespaces":   {stream{first: []byte(read + `"case":{"namespaces":[` + strings.Repeat("{},", 1e3) + "{}]}}\n")}, "a line is no message of the protocol: " + errMany.Error()},
		"a deep case":             {stream{first: []byte(read + `"case":` + strings.Repeat(`{"a":`, 1e4) + "\n")}, errMany.Error()},
		"nothing where a case is": {stream{first: []byte(read + "\"x\":1}\n")}, "its agent sent no case"},
	} {
		t.Run(name, func(t *testing.T) {
			c.s.silent = make(chan struct{})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			patience := 20 * time.Second
			if strings.HasPrefix(name, "silence") {
				patience = 200 * time.Millisecond
			}
			err := talk(&c.s, patience, func() { close(c.s.silent) })
			runtime.ReadMemStats(&after)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
			if used := int64(after.TotalAlloc-before.TotalAlloc) >> 20; used > 64 {
				t.Errorf("it had us allocate %d MiB", used)
			}
		})
	}
}

// What an agent holds beyond what the other end takes is left out, and said to be.
func TestFit(t *testing.T) {
	c := Case{Case: evidence.Case{
		Events:     make([]evidence.Event, maxEvents+3),
		Namespaces: []evidence.Namespace{{Routes: evidence.Have(make([]evidence.RouteItem, maxElements))}},
	}}
	got, err := fit(c)
	if err != nil {
		t.Fatal(err)
	}
	if got.Lost != 3 || len(got.Events) != maxEvents || got.Namespaces[0].Routes.Read() {
		t.Errorf("%d lost, %d events, routes unread: %s", got.Lost, len(got.Events), got.Namespaces[0].Routes.Why())
	}
	if !c.Namespaces[0].Routes.Read() {
		t.Error("what was given was changed")
	}
}

// The agent does three things, for whatever it is told, and ends when nobody tells it any more.
func TestAgent(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"another command":  {`{"id":1,"do":"run","order":{}}`, `{"id":1,"error":"not a request: \"run\""}`},
		"trace of nothing": {`{"id":2,"do":"trace"}`, `{"id":2,"error":"not a request: \"trace\""}`},
		"end":              {`{"id":3,"do":"end"}` + "\n" + `{"id":4,"do":"end"}`, `{"id":3}`},
	} {
		t.Run(name, func(t *testing.T) {
			in, out := io.Pipe()
			t.Cleanup(func() { out.Close() })
			var said bytes.Buffer
			done := make(chan error, 1)
			answered := writer(func(b []byte) { said.Write(b) })
			go func() { done <- Serve(t.Context(), in, answered, Hello{}, &stub{}) }()
			go func() {
				io.WriteString(out, c.in+"\n")
				out.Close()
			}()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if lines := strings.Split(said.String(), "\n"); len(lines) < 2 || lines[1] != c.want {
				t.Errorf("%q, want %q", lines, c.want)
			}
		})
	}
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

func TestSSH(t *testing.T) {
	for in, want := range map[string]string{
		"ssh://web1":                       "ssh -T -e none -o ClearAllForwardings=yes -o ConnectTimeout=5 -- web1 RUN",
		"ssh://ann@web1:2222":              "ssh -T -e none -o ClearAllForwardings=yes -o ConnectTimeout=5 -l ann -p 2222 -- web1 RUN",
		"ssh://[2001:db8::1]":              "ssh -T -e none -o ClearAllForwardings=yes -o ConnectTimeout=5 -- 2001:db8::1 RUN",
		"ssh://-oProxyCommand=x":           `"-oProxyCommand=x" is not a host`,
		"ssh://-l@web1":                    `"-l" is not a user`,
		"ssh://ann:secret@web1":            "ssh takes no password from a command line: it asks for it",
		"ssh://web1:0":                     `"0" is not a port`,
		"ssh://web1/etc":                   "not ssh://[USER@]HOST[:PORT]",
		"ssh://":                           `"" is not a host`,
		"web1":                             "not ssh://[USER@]HOST[:PORT]",
		"ssh://web1?x":                     "not ssh://[USER@]HOST[:PORT]",
		"ssh://we%20b":                     "not ssh://[USER@]HOST[:PORT]",
		"http://web1":                      "not ssh://[USER@]HOST[:PORT]",
		"ssh://" + strings.Repeat("[", 99): "not ssh://[USER@]HOST[:PORT]",
	} {
		w, err := SSH(in, 5)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = strings.Join(w.Command("RUN").Args, " ")
		}
		if got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func FuzzSession(f *testing.F) {
	f.Add([]byte(`{"hello":{"protocol":1}}` + "\n" + `{"id":1,"clock":{"monotonic_ns":5}}` + "\n"))
	var all bytes.Buffer
	all.WriteString(`{"hello":{"protocol":1,"host":"a"}}` + "\n")
	for i := range rounds {
		fmt.Fprintf(&all, `{"id":%d,"clock":{"monotonic_ns":1,"wall_ns":2}}`+"\n", i+1)
	}
	fmt.Fprintf(&all, `{"news":"accepted"}`+"\n"+`{"id":%d}`+"\n"+`{"id":%d,"case":{"events":[{"kind":"drop"}],"namespaces":[{"name":"x"}]}}`+"\n", rounds+1, rounds+2)
	f.Add(all.Bytes())
	f.Fuzz(func(_ *testing.T, b []byte) {
		over := make(chan struct{})
		_ = talk(&stream{first: b, silent: over}, 10*time.Millisecond, func() { close(over) }) // whatever it says
	})
}

func FuzzAgent(f *testing.F) {
	f.Add([]byte(`{"id":1,"do":"trace","order":{"target":{"protocol":"tcp"},"source":"10.0.0.1:5"}}` + "\n" + `{"id":2,"do":"read","probe":{}}` + "\n"))
	f.Add([]byte(`{"id":1,"do":"read","clock":true}` + "\n" + `{"do":"end"}` + "\n"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_ = Serve(context.Background(), bytes.NewReader(b), io.Discard, Hello{}, &stub{})
	})
}

func FuzzReply(f *testing.F) {
	f.Add([]byte(`{"id":2,"case":{"start_ns":5,"events":[{"kind":"drop","packet":{"family":4}}],"namespaces":[{"name":"x","links":{"items":[{"name":"eth0"}]}}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r reply
		if decode(b, &r) != nil || r.Case == nil {
			return
		}
		if len(r.Case.Events) > maxEvents || len(r.Case.Namespaces) > maxNamespaces {
			t.Errorf("%d events, %d namespaces", len(r.Case.Events), len(r.Case.Namespaces))
		}
		if _, err := fit(*r.Case); err != nil {
			t.Error(err)
		}
	})
}

// Under sudo ssh is run as the user who called it.
func TestAsCaller(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte("#!/bin/sh\necho $(id -u) $(id -G) $HOME $SSH_AUTH_SOCK >&2; exit 255\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) { // so that another user comes there
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Skip("there is no user nobody")
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("SUDO_UID", u.Uid)
	t.Setenv("SSH_AUTH_SOCK", "/run/agent")
	w, err := SSH("ssh://web1", 5)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Dial(t.Context(), w, Limits{})
	if want := fmt.Sprintf("%s %s %s /run/agent", u.Uid, u.Gid, u.HomeDir); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
