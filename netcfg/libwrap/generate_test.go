// SPDX-License-Identifier: Apache-2.0

package libwrap

import (
	"math/rand/v2"
	"net/netip"
	"strings"
)

// gen makes rule files and requests that meet often enough to matter.
type gen struct{ *rand.Rand }

func newGen(seed uint64) gen { return gen{rand.New(rand.NewPCG(seed, 1))} }

func (g gen) one(words ...string) string { return words[g.IntN(len(words))] }
func (g gen) in(percent int) bool        { return g.IntN(100) < percent }

var (
	daemons = []string{"vsftpd", "sshd", "in.tftpd", "2222", "unknown", "ALL", "a"}
	clients = []string{"10.0.0.5", "10.0.1.255", "192.168.7.1", "127.0.0.1", "255.255.255.255", "2001:db8::1", "2001:db8:0:1::25",
		"::1", "::", "::ffff:10.0.0.5", "::102:304", "fe80::1%lo", "fe80::25"}
	hostNames = []string{"web.example.com", "WEB.Example.COM", "host", "localhost", "10.example.com", "a.b.c.d.example.org", unknown, paranoid, "mail.test"}
	users     = []string{unknown, "root", "Joe", "nobody"}
)

func (g gen) request() Request {
	r := Request{Daemon: g.one(daemons...), ServerPort: []uint16{21, 22, 80, 2222, 0}[g.IntN(5)], User: g.one(users...),
		Client: netip.MustParseAddr(g.one(clients...)), ClientName: g.one(hostNames...),
		ServerAddr: netip.MustParseAddr(g.one(clients...)), ServerName: g.one(hostNames...)}
	r.NoServer = r.ServerPort == 0
	return r
}

// forget leaves out some of what libwrap is told.
func (g gen) forget(r Request) Request {
	if g.in(50) {
		r.ClientName = ""
	}
	if g.in(50) {
		r.User = ""
	}
	if g.in(50) {
		r.ServerName = ""
	}
	if g.in(30) && !r.NoServer {
		r.ServerPort, r.ServerAddr = 0, netip.Addr{}
	}
	return r
}

func (g gen) daemonToken() string {
	return g.one("vsftpd", "sshd", "SSHD", "ALL", "ALL", "all", "KNOWN", "UNKNOWN", "in.*", "*d", "v?ftpd", "**", "s**d", ".tftpd", "in.",
		"22", "2222", "+21", "80x", "65536", "4294967318", "-1", "21", "LOCAL", "[sshd]", "a", "*", "?", "un*n", ".", "0x50", "1")
}

func (g gen) hostToken() string {
	return g.one("ALL", "ALL", "all", "KNOWN", "UNKNOWN", "PARANOID", "LOCAL", "unknown", ".example.com", ".com", "example.com", "web.example.com",
		"WEB.*", "*.example.*", "host", "ho?t", "10.", "10.0.0.", "10.0", "10.0.0.5", "10.0.0.05", "010.0.0.5", "10.*", "10.0.?.5", "*.5", ".5", "***", "*?", "?*",
		"10.0.0.0/24", "10.0.0.5/24", "10.0.0.5/32", "10.0.0.5/255.255.255.255", "10.0.0.0/255.255.255.0", "0.0.0.0/0", "0.0.0.0/0.0.0.0", "10.0.0.0/0",
		"10.0.0.0/8", "10.0.0.0/08", "012.0.0.0/8", "0xa.0.0.0/8", "10.0.0.0/24x", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/4294967304", "10/8", "10.0.0/24",
		"10.0.0.4/255.0.255.254", "255.255.255.255/32", "[2001:db8::1]", "[2001:DB8:0::1]", "[2001:db8::]/32", "[2001:db8::1]/32", "[2001:db8::1/32]",
		"[2001:db8::]/33", "[2001:db8::]/0", "[::]/0", "[::]/", "[2001:db8::]/129", "[2001:db8::1]/128", "[2001:db8::2]/127", "[2001:db8:*]", "2001:db8::1",
		"2001:*", "2001?db8?*", "[::ffff:10.0.0.5]", "[::ffff:0:0]/96", "[10.0.0.5]", "[::1]", "[::]", "::1", "[::1.2.3.4]", "::1.2.3.4", "[fe80::1]", "[fe80::1%lo]",
		"[fe80::1%none]", "[fe80::]/10", "[fe80::%lo]/64", "[", "]", "[]", "[x]", "/hosts", "/more", "/none", "/shut", "/", "@group", "@", "EXCEPT", "#", "x@", "?.0.0.5",
		"*.*.*.5", "::ffff:10.0.0.5", "::FFFF:10.*", ".", "..", "/hosts/24", "2001:", "10.0.0.0/24.", "127.1", "paranoid", "*.d.*.org", "[2001:db8::1", "2001:db8::1]")
}

func (g gen) clientToken() string {
	if g.in(12) {
		return g.one("ALL", "root", "joe", "KNOWN", "UNKNOWN", "*", "r?ot", "@x", "", ".oe", "no.") + "@" + g.hostToken()
	}
	return g.hostToken()
}

func (g gen) list(token func() string) string {
	var b strings.Builder
	for i := range 1 + g.IntN(3) {
		if i > 0 {
			b.WriteString(g.one(" ", " ", ",", ", ", "\t", " EXCEPT ", " except ", "\\\n", " \\\r\n"))
		}
		b.WriteString(token())
	}
	return b.String()
}

func (g gen) option() string {
	return g.one("allow", "deny", "ALLOW", "Deny", "allow", "deny", "twist /bin/echo %h %Z", "twist = /bin/false", "spawn (/bin/true)", "spawn a\\:b %z%%",
		"spawn", "keepalive", "keepalive on", "linger 5", "linger -5", "linger 5x", "linger=10", "nice", "nice 5", "nice x", "nice = -4", "umask 022", "umask 22 ",
		"umask 8", "umask 1777", "rfc931", "rfc931 10", "rfc931 0", "severity mail.info", "severity info", "severity authpriv.info", "severity warn", "severity x.y",
		"setenv A b", "setenv A=B c", "setenv A", "setenv %q x", "setenv", "banners /", "user root", "group root", "user root.root", "nonsense", "", " ", "=", "allow =",
		"allow x", "deny # why", "severity .info", "umask +7", "linger 4294967297", "aclexec /bin/false", "user nosuch", "group nosuch", "\\:", "al\\low", "deny\\", "user root.")
}

func (g gen) line() string {
	end := g.one("\n", "\n", "\n", "\n", "\n", "\n", "\n", "\n", "\r\n", " \n", "\\\n")
	switch n := g.IntN(100); {
	case n < 4:
		return g.one("", " ", "\t", "\r", "\v", "\\") + end
	case n < 9:
		return g.one("", " ", "\t", "\\\n") + "# a comment: with words" + end
	case n < 11:
		return g.one("no separator", "vsftpd 10.0.0.5", "[vsftpd : ALL", "]: ALL") + end
	case n < 12:
		return strings.Repeat(g.one("ALL ", "# ", "x,", "ab\\\n"), 400+g.IntN(400)) + ": ALL" + end
	case n < 13:
		return exactLine(2044+g.IntN(8)) + "\n"
	}
	s := g.one("", "", "", "", " ") + g.list(func() string {
		if g.in(12) {
			return g.daemonToken() + "@" + g.hostToken()
		}
		return g.daemonToken()
	})
	s += g.one(":", " : ", ": ", " :") + g.list(g.clientToken)
	for g.in(35) {
		s += g.one(":", " : ", ": ") + g.option()
	}
	return s + end
}

// exactLine is a rule of n bytes.
func exactLine(n int) string { return "ALL : " + strings.Repeat("x", n-10) + " ALL" }

func (g gen) table() []byte {
	if g.in(2) {
		return nil
	}
	var b strings.Builder
	for range g.IntN(7) {
		b.WriteString(g.line())
	}
	s := b.String()
	if g.in(4) {
		s = strings.TrimSuffix(s, "\n")
	}
	out := []byte(s)
	for g.in(12) && len(out) > 0 {
		at := g.IntN(len(out))
		out[at] = g.one(":", "[", "]", "@", "#", "\\", "\n", "\r", "\t", " ", "/", ",", "?", ".", "\x00", "%", "=", "0", "\xff")[0]
	}
	return out
}

func (g gen) hostFile() []byte {
	var b strings.Builder
	for range g.IntN(5) {
		b.WriteString(g.one("", "# the ", "x@") + g.hostToken() + g.one(" ", "\n", "\r\n", "\v", "\f"))
	}
	return []byte(strings.ReplaceAll(strings.ReplaceAll(b.String(), "/hosts", "/hots"), "/more", "/mre")) // none that names itself
}

func (g gen) world() world {
	w := world{files: map[string][]byte{"/hosts": append(g.hostFile(), "/more"...), "/more": g.hostFile(), "/shut": nil, "/etc/passwd": []byte("root:x:0\n"), "/etc/group": []byte("root:x:0\n")}}
	for _, name := range []string{"allow", "deny"} {
		if !g.in(5) {
			w.files[name] = g.table()
		}
	}
	for range 3 {
		w.asked = append(w.asked, g.request())
	}
	return w
}
