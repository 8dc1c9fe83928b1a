// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pathtrace/pathtrace/internal/lab"
	"github.com/pathtrace/pathtrace/netcfg"
)

// TestRealServers: healthy, stopped and killed, of each server that is installed.
func TestRealServers(t *testing.T) {
	needRoot(t)
	bin := build(t)
	two := make(chan struct{}, 2) // as for the faults
	for i, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			two <- struct{}{}
			defer func() { <-two }()
			if s.bin == "" {
				found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
				if len(found) > 0 {
					s.bin = found[len(found)-1]
				}
			}
			_, err := os.Stat(s.bin)
			if s.needs != "" && err == nil {
				_, err = os.Stat(s.needs)
			}
			if err != nil {
				if os.Getenv("CI") == "true" {
					t.Fatalf("not installed: %v", err)
				}
				t.Skipf("not installed: %v", err)
			}
			s.try(t, bin, startLab(t, lab.Fault{Name: s.name, Family: 4, Setup: func(*lab.Lab) error { return nil }}, 900+i))
		})
	}
}

func (s server) try(t *testing.T, bin string, l *lab.Lab) {
	pid, ended := s.start(t, l)
	f := lab.Fault{
		Args:   append([]string{"-w", "10s"}, s.flags...),
		Target: func(l *lab.Lab) string { return fmt.Sprintf(s.url, l.Addr(lab.Server, 4)) },
	}
	a := trace(t, bin, l, f)
	want := "reachable"
	if strings.Contains(s.banner, " 503") {
		want = "app-error"
	}
	// one that has answered and closed before it could be looked at is known by the listener alone
	if a.Verdict.Cause != want || !s.has(a.Verdict.Where.Process.Comm) || !strings.Contains(a.raw, s.banner) {
		t.Errorf("healthy: %s by %q\n%s", a.Verdict.Cause, a.Verdict.Where.Process.Comm, brief(a))
	}

	f.Args[1] = "400ms"
	signal(t, pid, syscall.SIGSTOP)
	a = trace(t, bin, l, f)
	if a.Verdict.Cause != "app-silent" || !s.has(a.Verdict.Where.Process.Comm) || !strings.Contains(a.raw, "is stopped") || a.exit != 1 {
		t.Errorf("stopped: %s by %q, exit %d\n%s", a.Verdict.Cause, a.Verdict.Where.Process.Comm, a.exit, brief(a))
	} else {
		shell(t, a.Verdict.Fixes[0].Commands)
		signal(t, pid, syscall.SIGSTOP)
	}

	signal(t, pid, syscall.SIGKILL)
	<-ended
	a = trace(t, bin, l, f)
	// Nobody writes down that a process was killed which no systemd has started: that it is there no more is all that can be known.
	gone, unit := fmt.Sprintf(", and no process in %s runs %s", l.Netns(lab.Server), s.bin), "systemd says that "+filepath.Base(s.bin)
	if a.Verdict.Cause != "no-listener" || a.exit != 1 || !strings.Contains(a.proof(), gone) && !strings.Contains(a.proof(), unit) {
		t.Errorf("killed: %s, exit %d, want %q\n%s", a.Verdict.Cause, a.exit, gone, brief(a))
	}
}

func (s server) has(comm string) bool { return comm == s.comm || s.master != "" && comm == s.master }

func (a *answer) proof() string {
	var d struct{ Verdict struct{ Proof []string } }
	_ = json.Unmarshal([]byte(a.raw), &d)
	return strings.Join(d.Verdict.Proof, "\n")
}

// brief is the answer without what was seen and read on the way.
func brief(a *answer) string {
	var d struct{ Probe, Verdict any }
	if err := json.Unmarshal([]byte(a.raw), &d); err != nil {
		return a.raw
	}
	out, _ := json.MarshalIndent(d, "", " ")
	return string(out)
}

// signal sends to the server and all its children.
func signal(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(-pid, s); err != nil {
		t.Fatalf("%v to %d: %v", s, pid, err)
	}
}

// start returns when the server listens. It dies with the test.
func (s server) start(t *testing.T, l *lab.Lab) (pid int, ended chan struct{}) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ptserver")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	keys(t, dir)
	if s.setup != nil {
		s.setup(t, s, dir)
	}
	for name, text := range s.files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "DIR", dir)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	argv := []string{"netns", "exec", l.Netns(lab.Server), s.bin}
	for _, a := range s.args {
		argv = append(argv, strings.ReplaceAll(a, "DIR", dir))
	}
	if s.user != "" {
		argv = append(append(argv[:3:3], "setpriv", "--reuid="+s.user, "--regid="+s.user, "--clear-groups", "--"), argv[3:]...)
	}
	log, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	cmd := exec.Command("ip", argv...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the signal comes when this thread ends
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	t.Cleanup(func() {
		once.Do(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); <-ended })
	})
	s.await(t, l, ended, log.Name())
	return cmd.Process.Pid, ended
}

// await looks until somebody listens on the port.
func (s server) await(t *testing.T, l *lab.Lab, ended chan struct{}, log string) {
	t.Helper()
	n, err := netcfg.Open(l.Netns(lab.Server))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	protocol := "tcp"
	if s.udp {
		protocol = "udp"
	}
	tick, late := time.NewTicker(20*time.Millisecond), time.After(30*time.Second)
	defer tick.Stop()
	for {
		if found := n.Sockets(protocol, s.port); len(found.Items) > 0 {
			return
		}
		select {
		case <-tick.C:
			continue
		case <-ended:
		case <-late:
		}
		said, _ := os.ReadFile(log)
		t.Fatalf("%s does not listen on %d/%s:\n%s", s.bin, s.port, protocol, said)
	}
}

// keys writes a self-signed certificate with its key, and the key alone.
func keys(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "web.example"}, DNSNames: []string{"web.example"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})
	for name, text := range map[string][]byte{"key.pem": block, "cert.pem": append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), block...)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// sshdSetup makes the directory that sshd wants to be there.
func sshdSetup(t *testing.T, _ server, _ string) {
	t.Helper()
	if err := os.Mkdir("/run/sshd", 0o755); err == nil {
		t.Cleanup(func() { os.Remove("/run/sshd") })
	}
}

// own gives the directory to a user.
func own(t *testing.T, dir, name string) (uid, gid int) {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ = strconv.Atoi(u.Uid)
	gid, _ = strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	return uid, gid
}

// must runs a command that has to succeed.
func must(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func initdb(t *testing.T, s server, dir string) {
	t.Helper()
	uid, gid := own(t, dir, "postgres")
	cmd := exec.Command(filepath.Join(filepath.Dir(s.bin), "initdb"), "-D", filepath.Join(dir, "db"), "-N", "-A", "trust", "--no-instructions", "-E", "UTF8", "--locale=C")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	hba, err := os.OpenFile(filepath.Join(dir, "db", "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer hba.Close()
	if _, err := io.WriteString(hba, "host all all 0.0.0.0/0 trust\n"); err != nil {
		t.Fatal(err)
	}
}
