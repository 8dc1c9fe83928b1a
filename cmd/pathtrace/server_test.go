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

// server is a real one, of a Debian package, with a configuration of its own.
type server struct {
	name   string
	bin    string // "" : the newest of PostgreSQL's
	port   uint16
	udp    bool
	url    string            // %s: the server's address
	files  map[string]string // below DIR, which is replaced in them and in args
	args   []string
	user   string // runs as this user; empty: root
	setup  func(t *testing.T, s server, dir string)
	banner string // part of what it says
	comm   string
	flags  []string
}

var servers = []server{
	{
		name: "vsftpd", bin: "/usr/sbin/vsftpd", port: 2121, url: "ftp://%s:2121", banner: "220 ", comm: "vsftpd",
		files: map[string]string{"conf": "listen=YES\nlisten_port=2121\nbackground=NO\nanonymous_enable=NO\nlocal_enable=YES\nsecure_chroot_dir=DIR\n"}, args: []string{"DIR/conf"},
	}, {
		name: "openssh-server", bin: "/usr/sbin/sshd", port: 2222, url: "ssh://%s:2222", banner: "SSH-2.0-OpenSSH", comm: "sshd",
		files: map[string]string{"conf": "Port 2222\nHostKey DIR/key.pem\nPidFile DIR/sshd.pid\nUsePAM no\n"}, args: []string{"-D", "-e", "-f", "DIR/conf"},
		setup: sshdSetup,
	}, {
		name: "xinetd", bin: "/usr/sbin/xinetd", port: 13, url: "tcp://%s:13", flags: []string{"--expect", "20[0-9][0-9]"}, banner: " 20", comm: "xinetd",
		files: map[string]string{"conf": "defaults\n{\n}\nservice daytime\n{\ntype = INTERNAL\nid = daytime-stream\nsocket_type = stream\nprotocol = tcp\nuser = root\nwait = no\n}\n"},
		args:  []string{"-dontfork", "-f", "DIR/conf", "-pidfile", "DIR/pid"},
	}, {
		name: "stunnel4", bin: "/usr/bin/stunnel4", port: 4433, url: "tls://%s:4433", banner: "", comm: "stunnel4",
		files: map[string]string{"conf": "foreground=yes\npid=\n[web]\naccept=4433\nconnect=127.0.0.1:1\ncert=DIR/cert.pem\n"}, args: []string{"DIR/conf"},
	}, {
		name: "nginx", bin: "/usr/sbin/nginx", port: 8088, url: "http://%s:8088/", banner: "HTTP/1.1 200 OK", comm: "nginx",
		files: map[string]string{"conf": "pid DIR/pid;\nerror_log DIR/error.log;\nworker_processes 1;\nevents {}\nhttp { access_log DIR/access.log;\nclient_body_temp_path DIR/a; proxy_temp_path DIR/b; fastcgi_temp_path DIR/c; uwsgi_temp_path DIR/d; scgi_temp_path DIR/e;\nserver { listen 8088; location / { return 200 fine; } } }\n"},
		args:  []string{"-c", "DIR/conf", "-g", "daemon off;"},
	}, {
		name: "nginx-tls", bin: "/usr/sbin/nginx", port: 8443, url: "https://%s:8443/", banner: "HTTP/1.1 503", comm: "nginx",
		files: map[string]string{"conf": "pid DIR/pid;\nerror_log DIR/error.log;\nworker_processes 1;\nevents {}\nhttp { access_log off;\nclient_body_temp_path DIR/a; proxy_temp_path DIR/b; fastcgi_temp_path DIR/c; uwsgi_temp_path DIR/d; scgi_temp_path DIR/e;\nserver { listen 8443 ssl; ssl_certificate DIR/cert.pem; ssl_certificate_key DIR/cert.pem; location / { return 503; } } }\n"},
		args:  []string{"-c", "DIR/conf", "-g", "daemon off;"},
	}, {
		name: "redis-server", bin: "/usr/bin/redis-server", port: 6379, url: "redis://%s", banner: "+PONG", comm: "redis-server",
		files: map[string]string{"conf": "port 6379\nbind 0.0.0.0\nprotected-mode no\ndir DIR\nsave \"\"\n"}, args: []string{"DIR/conf"},
	}, {
		name: "postgresql", port: 5432, url: "postgresql://%s", banner: "role \\\"pathtrace\\\" does not exist", comm: "postgres", user: "postgres",
		setup: initdb, args: []string{"-D", "DIR/db", "-c", "listen_addresses=0.0.0.0", "-c", "unix_socket_directories=DIR", "-c", "fsync=off"},
	}, {
		name: "dnsmasq", bin: "/usr/sbin/dnsmasq", port: 53, url: "dns+tcp://%s/web.example", banner: "NOERROR for web.example. A, 1 answers", comm: "dnsmasq",
		args: []string{"-k", "-C", "/dev/null", "-R", "-h", "-x", "DIR/pid", "-u", "root", "--address=/web.example/192.0.2.7"},
	}, {
		name: "unbound", bin: "/usr/sbin/unbound", port: 53, udp: true, url: "dns://%s/web.example", banner: "NOERROR for web.example. A, 1 answers", comm: "unbound",
		files: map[string]string{"conf": "server:\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n directory: DIR\n pidfile: DIR/pid\n use-syslog: no\n interface: 0.0.0.0\n access-control: 0.0.0.0/0 allow\n num-threads: 1\n local-data: \"web.example A 192.0.2.7\"\nremote-control:\n control-enable: no\n"},
		args:  []string{"-d", "-c", "DIR/conf"},
	}, {
		name: "exim4", bin: "/usr/sbin/exim4", port: 2525, url: "smtp://%s:2525", banner: "220 mx.example ESMTP", comm: "exim4",
		files: map[string]string{"conf": "primary_hostname = mx.example\nkeep_environment =\nspool_directory = DIR\nlog_file_path = DIR/%slog\npid_file_path = DIR/pid\nacl_smtp_rcpt = deny\nhost_lookup =\nrfc1413_query_timeout = 0s\nhosts_treat_as_local =\nbegin acl\ndeny:\n deny\n"},
		args:  []string{"-bdf", "-oX", "2525", "-C", "DIR/conf"},
		setup: func(t *testing.T, _ server, dir string) { own(t, dir, "Debian-exim") },
	},
}

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
			if _, err := os.Stat(s.bin); err != nil {
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
	if a.Verdict.Cause != want || a.Verdict.Where.Process.Comm != s.comm || !strings.Contains(a.raw, s.banner) {
		t.Errorf("healthy: %s by %q\n%s", a.Verdict.Cause, a.Verdict.Where.Process.Comm, brief(a))
	}

	f.Args[1] = "400ms"
	signal(t, pid, syscall.SIGSTOP)
	a = trace(t, bin, l, f)
	if a.Verdict.Cause != "app-silent" || a.Verdict.Where.Process.Comm != s.comm || !strings.Contains(a.raw, "is stopped") || a.exit != 1 {
		t.Errorf("stopped: %s by %q, exit %d\n%s", a.Verdict.Cause, a.Verdict.Where.Process.Comm, a.exit, brief(a))
	} else {
		shell(t, a.Verdict.Fixes[0].Commands)
		signal(t, pid, syscall.SIGSTOP)
	}

	signal(t, pid, syscall.SIGKILL)
	<-ended
	a = trace(t, bin, l, f)
	if a.Verdict.Cause != "no-listener" || a.exit != 1 || !strings.Contains(a.proof(), filepath.Base(s.bin)) {
		t.Errorf("killed: %s, exit %d\n%s", a.Verdict.Cause, a.exit, brief(a))
	}
}

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
