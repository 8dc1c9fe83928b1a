// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	bigint "math/big" // another file has a big of its own
	"net/netip"
	"slices"
	"strings"
	"time"
)

// tables are hosts.allow and hosts.deny of a server.
type tables struct{ allow, deny string }

// wrapped makes a fault of a server that asks tcp wrappers, and of rules that deny.
type wrapped struct {
	name   string
	tool   string
	comm   string // of the process that asks
	run    func(family int, t tables) Program
	scheme string   // "ftp://": the server speaks first
	args   []string // otherwise: what it is told, and answers if it serves
}

// sayHello is what one says to cat, and hears again.
var sayHello = []string{"--send", "hello", "--expect", "hello"}

var (
	wrapVsftpd  = wrapped{name: "vsftpd", tool: "vsftpd", comm: "vsftpd", run: vsftpd("tcp_wrappers=YES\n"), scheme: "ftp://"}
	wrapInetd   = wrapped{name: "inetd", tool: "inetd", comm: "inetd", run: inetd("/bin/cat cat", "-l"), args: sayHello}
	wrapTcpd    = wrapped{name: "inetd-tcpd", tool: "inetd", comm: "tcpd", run: inetd("/usr/sbin/tcpd /bin/cat"), args: sayHello}
	wrapXinetd  = wrapped{name: "xinetd", tool: "xinetd", comm: "xinetd", run: xinetd("server = /bin/cat"), args: sayHello}
	wrapXtcpd   = wrapped{name: "xinetd-tcpd", tool: "xinetd", comm: "tcpd", run: xinetd("server = /usr/sbin/tcpd\n server_args = /bin/cat", "NAMEINARGS", "NOLIBWRAP"), args: sayHello}
	wrapStunnel = wrapped{name: "stunnel", tool: "stunnel4", comm: "stunnel4", run: stunnel}
	wrapSSH     = wrapped{name: "sshd", tool: "sshd", comm: "sshd", run: sshd, scheme: "ssh://"}
)

// denied is a fault for each family: the line of hosts.deny that matches is the one of that number.
func (w wrapped) denied(variant, summary string, t func(family int) tables, file string, line int) []Fault {
	return both(func(f int) Fault {
		rules := t(f)
		text := rules.deny
		if file == "/etc/hosts.allow" {
			text = rules.allow
		}
		return Fault{
			Name: "libwrap-" + w.name + variant, Cause: "libwrap-denied", Summary: summary, Tools: w.tools(),
			Setup:  w.setup(f, rules),
			Target: w.target(f), Args: w.args,
			Want: Want{Certainty: observed, Direction: reply, Role: Server, Comm: w.comm,
				File: &File{file, line, strings.TrimSpace(strings.Split(text, "\n")[line-1])}},
			Fix: true,
		}
	})
}

// allowed is a control for each family: the rules let the client in.
func (w wrapped) allowed(variant, twin, summary string, t func(family int) tables) []Fault {
	return both(func(f int) Fault {
		return Fault{
			Name: "control-libwrap-" + w.name + variant, Twin: "libwrap-" + w.name + twin, Cause: "reachable", Summary: summary, Tools: w.tools(),
			Setup:  w.setup(f, t(f)),
			Target: w.target(f), Args: w.args,
			Want: Want{Role: Server},
		}
	})
}

func (w wrapped) tools() []string {
	if strings.HasSuffix(w.name, "-tcpd") {
		return []string{w.tool, "tcpd"}
	}
	return []string{w.tool}
}

func (w wrapped) setup(family int, t tables) func(*Lab) error {
	return func(l *Lab) error { return l.RunServer(Server, w.run(family, t)) }
}

func (w wrapped) target(family int) func(*Lab) string {
	return func(l *Lab) string { return w.scheme + at(l.Addr(Server, family)) }
}

// same are rules for both families.
func same(allow, deny string) func(int) tables {
	return func(int) tables { return tables{allow, deny} }
}

// of is same with %net, %client and %other, an address that is not the client's, as hosts_access(5) writes them.
func of(allow, deny string) func(int) tables {
	return func(family int) tables {
		r := strings.NewReplacer(
			"%net", pick(family, "198.18.4.0/255.255.255.0", "[fd5c:7e1a:4::]/64"), "%client", pick(family, "198.18.4.10", "[fd5c:7e1a:4::10]"),
			"%other", pick(family, "198.18.4.11", "[fd5c:7e1a:4::11]"),
		)
		return tables{r.Replace(allow), r.Replace(deny)}
	}
}

func libwrapFaults() []Fault {
	return slices.Concat(
		wrapVsftpd.denied("", "hosts.deny has a line for the FTP server, and one for a part of the network", of("", "# nobody\nsshd : ALL\nvsftpd : %net\n"), "/etc/hosts.deny", 3),
		wrapVsftpd.denied("-name", "hosts.deny shuts out a domain", same("", "ALL : .branch.example\n"), "/etc/hosts.deny", 1),
		wrapVsftpd.denied("-option", "a line of hosts.allow denies", of("vsftpd : %client : deny\nALL : ALL\n", ""), "/etc/hosts.allow", 1),
		wrapInetd.denied("", "hosts.deny shuts out all but one address", of("", "ALL EXCEPT sshd : ALL EXCEPT %other\n"), "/etc/hosts.deny", 1),
		wrapTcpd.denied("", "inetd starts tcpd, which denies", same("", "c?t : ALL\n"), "/etc/hosts.deny", 1),
		wrapXinetd.denied("", "xinetd has its server refused", same("sshd : ALL\n", "cat : ALL\n"), "/etc/hosts.deny", 1),
		wrapXtcpd.denied("", "xinetd starts tcpd, which denies", same("", "ALL : ALL\n"), "/etc/hosts.deny", 1),
		wrapStunnel.denied("", "hosts.deny names a service of stunnel", of("", "mail : %client\n"), "/etc/hosts.deny", 1),
		wrapSSH.denied("", "hosts.deny shuts out a network", of("", "sshd : %net\n"), "/etc/hosts.deny", 1),
		wrapOptions(),
	)
}

// wrapOptions are rules that do more than deny, hosts_options(5).
func wrapOptions() []Fault {
	words := []string{"--send", "hello", "--expect", "."} // any will do, also those of libwrap itself
	ftp, cat := wrapVsftpd, wrapTcpd
	ftp.scheme, ftp.args, cat.args = "", words, words
	twist := wrapTcpd.denied("-twist", "tcpd runs another program for whom it denies", same("", "cat : ALL : twist /bin/echo gone for lunch\n"), "/etc/hosts.deny", 1)
	for i := range twist {
		twist[i].Want.Certainty = "inferred"
	}
	return slices.Concat(twist,
		ftp.denied("-banners", "tcp wrappers have words of their own for whom they deny", same("", "vsftpd : ALL : banners /etc/banners\n"), "/etc/hosts.deny", 1),
		cat.denied("-banners", "tcpd has words of its own for whom it denies", same("", "cat : ALL : banners /etc/banners\n"), "/etc/hosts.deny", 1),
		wrapTcpd.denied("-spawn", "a line of hosts.deny runs a command beside", same("", "cat : ALL : spawn (/bin/true %a) &\n"), "/etc/hosts.deny", 1),
	)
}

func libwrapControls() []Fault {
	everyone := same("", "")
	return slices.Concat(
		wrapVsftpd.allowed("", "", "hosts.allow lets the client in whom hosts.deny shuts out", of("vsftpd : %client\n", "ALL : ALL\n")),
		wrapInetd.allowed("", "", "hosts.deny shuts out all but the client", of("", "ALL : ALL EXCEPT %client\n")),
		wrapTcpd.allowed("", "", "hosts.deny is about another daemon", same("", "rat : ALL\n")),
		wrapXinetd.allowed("", "", "hosts.deny is about another address", of("", "cat : %other\n")),
		wrapXtcpd.allowed("", "", "no rules", everyone),
		wrapStunnel.allowed("", "", "hosts.deny is about another service", same("", "news : ALL\n")),
		wrapSSH.allowed("", "", "a pattern with * that does not fit", same("", "sshd : *.elsewhere.example\n")),
		ownRefusals(),
	)
}

// ownRefusals are servers that map libwrap, have rules to deny, and refuse for another reason.
func ownRefusals() []Fault {
	full := func(name, summary, wrappers string, t tables) []Fault {
		return both(func(f int) Fault {
			return Fault{Name: "control-libwrap-" + name, Twin: "libwrap-vsftpd", Cause: "app-error", Summary: summary, Tools: []string{"vsftpd"},
				Setup: steps(wrapped{run: vsftpd("max_clients=1\n" + wrappers)}.setup(f, t),
					func(l *Lab) error { return l.Hold(Client, Connect{To: serverAt(f), Count: 1}) }),
				Target: wrapVsftpd.target(f),
				Want:   Want{Certainty: observed, Direction: reply, Role: Server, Comm: "vsftpd"}}
		})
	}
	return slices.Concat(
		full("max-clients", "the FTP server has too many clients; it asks tcp wrappers, which let them in", "tcp_wrappers=YES\n", tables{"vsftpd : ALL\n", "ALL : ALL\n"}),
		full("not-asked", "the FTP server has too many clients; it does not ask tcp wrappers, which would deny", "tcp_wrappers=NO\n", tables{"", "ALL : ALL\n"}),
		both(func(f int) Fault {
			return Fault{Name: "control-libwrap-only-from", Twin: "libwrap-xinetd", Cause: "closed-by-app", Summary: "xinetd refuses by its own list", Tools: []string{"xinetd"},
				Setup: wrapped{run: xinetd("server = /bin/cat\n only_from = localhost")}.setup(f, tables{"", "sshd : ALL\n"}),
				Args:  sayHello, Want: Want{Direction: reply, Role: Server, Comm: "xinetd"}}
		}),
	)
}

// hosts has the client's name, so that no server asks for it in vain.
func (t tables) files(more map[string]string) map[string]string {
	files := map[string]string{
		"/etc/hosts":       "127.0.0.1 localhost\n198.18.4.10 pc.branch.example\nfd5c:7e1a:4::10 pc.branch.example\n",
		"/etc/hosts.allow": t.allow, "/etc/hosts.deny": t.deny, "/etc/banners/vsftpd": "members only\n", "/etc/banners/cat": "members only\n",
	}
	for name, text := range more {
		files[name] = text
	}
	return files
}

func serverAt(family int) netip.AddrPort { return netip.AddrPortFrom(addr(Server, family), Port) }

func vsftpd(more string) func(int, tables) Program {
	return func(family int, t tables) Program {
		config := fmt.Sprintf("%s=YES\n%s=NO\nbackground=NO\n%s=%s\nlisten_port=%d\nanonymous_enable=YES\nlocal_enable=NO\nsecure_chroot_dir=/run/empty\n",
			pick(family, "listen", "listen_ipv6"), pick(family, "listen_ipv6", "listen"), pick(family, "listen_address", "listen_address6"), addr(Server, family), Port)
		return Program{Argv: []string{"vsftpd", "/etc/vsftpd.conf"}, Dirs: []string{"/run/empty"}, Addr: serverAt(family),
			Files: t.files(map[string]string{"/etc/vsftpd.conf": config + more})}
	}
}

func inetd(program string, flags ...string) func(int, tables) Program {
	return func(family int, t tables) Program {
		line := fmt.Sprintf("%s:%d stream %s nowait root %s\n", pick(family, addr(Server, 4).String(), "["+addr(Server, 6).String()+"]"), Port, pick(family, "tcp4", "tcp6"), program)
		argv := append(append([]string{"inetd", "-i"}, flags...), "/etc/inetd.conf")
		return Program{Argv: argv, Addr: serverAt(family), Files: t.files(map[string]string{"/etc/inetd.conf": line})}
	}
}

func xinetd(server string, flags ...string) func(int, tables) Program {
	return func(family int, t tables) Program {
		config := fmt.Sprintf("service lab\n{\n type = UNLISTED\n socket_type = stream\n protocol = tcp\n wait = no\n user = root\n port = %d\n bind = %s\n flags = %s\n %s\n}\n",
			Port, addr(Server, family), strings.Join(append([]string{pick(family, "IPv4", "IPv6")}, flags...), " "), server)
		return Program{Argv: []string{"xinetd", "-dontfork", "-f", "/etc/lab.conf", "-pidfile", "/run/lab.pid"}, Addr: serverAt(family),
			Files: t.files(map[string]string{"/etc/lab.conf": config})}
	}
}

func stunnel(family int, t tables) Program {
	config := fmt.Sprintf("foreground = yes\npid =\nlibwrap = yes\n[mail]\ncert = /etc/lab_key\naccept = %s:%d\nconnect = %s:%d\n", addr(Server, family), Port, addr(Server, family), Port+1)
	key, cert := newKey()
	return Program{Argv: []string{"stunnel4", "/etc/stunnel.conf"}, Addr: serverAt(family),
		Files: t.files(map[string]string{"/etc/stunnel.conf": config, "/etc/lab_key": key + cert})}
}

func sshd(family int, t tables) Program {
	key, _ := newKey()
	config := fmt.Sprintf("ListenAddress %s\nHostKey /etc/lab_key\nUsePAM no\nPidFile none\nUseDNS no\n", netip.AddrPortFrom(addr(Server, family), Port))
	return Program{Argv: []string{"/usr/sbin/sshd", "-D", "-e", "-f", "/etc/sshd_config"}, Dirs: []string{"/run/sshd"}, Addr: serverAt(family),
		Files: t.files(map[string]string{"/etc/sshd_config": config, "/etc/lab_key": key})}
}

// newKey is a private key for a server, in PEM, and a certificate with it.
func newKey() (key, certificate string) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // crypto/rand never fails
	}
	template := &x509.Certificate{SerialNumber: bigint.NewInt(1), NotAfter: time.Now().AddDate(1, 0, 0)}
	cert, err1 := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	der, err2 := x509.MarshalECPrivateKey(k)
	if err := errors.Join(err1, err2); err != nil {
		panic(err) // it is a key of that curve
	}
	encode := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return encode("EC PRIVATE KEY", der), encode("CERTIFICATE", cert)
}
