// SPDX-License-Identifier: Apache-2.0

package libwrap

import (
	"io/fs"
	"net/netip"
	"strings"
	"testing"
)

// trap is a pair of files that decide otherwise than they look.
type trap struct {
	name, allow, deny string // empty: no such file
	ask               string // DAEMON CLIENT [NAME [USER]]; port 21
	want              string // VERDICT [FILE:LINE]
}

const (
	v4   = "vsftpd 10.0.0.5"
	v6   = "vsftpd 2001:db8::1"
	all  = "ALL : ALL\n"
	long = "ALL : xx"
)

var traps = []trap{
	{"no files", "", "", v4, "granted"},
	{"empty files", "\n", "\n", v4, "granted"},
	{"first match in allow", "x:ALL\nvsftpd:10.0.0.5\n", all, v4, "granted allow:2"},
	{"denied", "sshd:ALL\n", all, v4, "denied deny:1"},
	{"case", "VSFTPD : aLL\n", all, v4, "granted allow:1"},

	{"deny: last line without newline", "", "x : ALL", v4, "denied deny:1"},
	{"deny: last comment without newline", "", "x : ALL\n# comment", v4, "denied deny:2"},
	{"deny: without newline, allowed", "ALL:ALL\n", "x : ALL", v4, "granted allow:1"},
	{"deny: ends in a backslash", "", "x : ALL\\\n", v4, "denied deny:1"},
	{"deny: the line above decides first", "", "ALL : ALL\nx : ALL", v4, "denied deny:1"},
	{"allow: last line without newline", "ALL:ALL", all, v4, "denied deny:1"},
	{"allow: without newline, nothing denies", "ALL:ALL:deny", "", v4, "granted"},
	{"deny: 2047 bytes", "", long + strings.Repeat("x", 2046-len(long)) + "\n", v4, "granted"},
	{"deny: 2048 bytes", "", long + strings.Repeat("x", 2047-len(long)) + "\n", v4, "denied deny:1"},
	{"deny: 2048 bytes joined", "", long + "\\\n" + strings.Repeat("x", 2047-len(long)) + "\n", v4, "denied deny:2"},
	{"allow: 2048 bytes", "ALL:ALL " + strings.Repeat("x", 2040) + "\nALL:ALL\n", all, v4, "denied deny:1"},
	{"a continued comment", "# c\\\nALL:ALL\n", all, v4, "denied deny:1"},
	{"continued lines count to the last", "vsftpd : \\\n10.0.0.5\\\n\n", all, v4, "granted allow:3"},
	{"carriage return stops a backslash", "vsftpd : \\\r\n10.0.0.5\r\n", all, v4, "denied deny:1"},
	{"carriage returns", "vsftpd : 10.0.0.5\r\n", "ALL : ALL\r\n", v4, "granted allow:1"},
	{"NUL joins lines", "x\x00:ALL\n : ALL\n", all, "x 10.0.0.5", "granted allow:1"},

	{"leading blank before a comment", " # c\nALL:ALL\n", all, v4, "granted allow:2"},
	{"comment behind a rule", "", "vsftpd : 10.9.0.1 # not ALL\n", v4, "denied deny:1"},
	{"comment behind an option", "ALL : ALL : allow # all\n", "", v4, "denied allow:1"},
	{"no colon", "ALL ALL\n", all, v4, "denied deny:1"},
	{"open bracket hides the colon", "[vsftpd : ALL\n", all, v4, "denied deny:1"},

	{"unknown option", "ALL:ALL:nonsense\n", "", v4, "denied allow:1"},
	{"allow not last", "ALL:ALL:allow:keepalive\n", "", v4, "denied allow:1"},
	{"colon at the end", "ALL:ALL:\n", "", v4, "denied allow:1"},
	{"allow and a colon", "ALL:ALL:allow:\n", "", v4, "denied allow:1"},
	{"severity authpriv", "ALL:ALL:severity authpriv.info\n", "", v4, "denied allow:1"},
	{"setenv A=B", "ALL:ALL:setenv A=B c\n", "", v4, "denied allow:1"},
	{"setenv of nothing", "ALL:ALL:setenv %q\n", "", v4, "denied allow:1"},
	{"umask 8", "ALL:ALL:umask 8\n", "", v4, "denied allow:1"},
	{"deny in hosts.allow", "ALL:ALL:deny\n", "", v4, "denied allow:1"},
	{"allow in hosts.deny", "", "ALL:ALL:spawn a\\:b:allow\n", v4, "granted deny:1"},
	{"twist", "", "ALL:ALL:twist /bin/echo no\n", v4, "delegated deny:1"},
	{"spawn", "", "ALL:ALL:spawn /bin/false\n", v4, "denied deny:1"},

	{"IPv6 without brackets", "vsftpd : 2001:db8::1\n", all, v6, "denied deny:1"},
	{"IPv6 without brackets and EXCEPT", "vsftpd : ALL EXCEPT 2001:db8::1\n", "", v4, "denied allow:1"},
	{"IPv6 in brackets", "vsftpd : [2001:DB8:0::1]\n", all, v6, "granted allow:1"},
	{"IPv6 net with host bits", "vsftpd : [2001:db8::1]/32\n", all, v6, "granted allow:1"},
	{"IPv6 prefix within brackets", "vsftpd : [2001:db8::/32]\n", all, v6, "denied deny:1"},
	{"IPv6 without prefix length", "vsftpd : [::]/\n", all, v6, "granted allow:1"},
	{"IPv6 glob in brackets", "vsftpd : [2001:*]\n", all, v6, "denied deny:1"},
	{"IPv6 of a daemon's host", "vsftpd@[2001:db8::fe] : ALL\n", all, v6, "granted allow:1"},
	{"IPv4-mapped pattern", "vsftpd : [::ffff:10.0.0.5]\n", all, "vsftpd ::ffff:10.0.0.5", "denied deny:1"},
	{"IPv4-mapped client", "vsftpd : 10.0.0.5\n", all, "vsftpd ::ffff:10.0.0.5", "granted allow:1"},
	{"IPv4-mapped client, net", "vsftpd : 10.0.0.0/24\n", all, "vsftpd ::ffff:10.0.0.5", "granted allow:1"},
	{"zones are not compared", "vsftpd : [fe80::1]\n", all, "vsftpd fe80::1%lo", "granted allow:1"},

	{"/255.255.255.255", "vsftpd : 10.0.0.5/255.255.255.255\n", all, v4, "denied deny:1"},
	{"/32", "vsftpd : 10.0.0.5/32\n", all, v4, "granted allow:1"},
	{"/0", "vsftpd : 0.0.0.0/0\n", all, v4, "denied deny:1"},
	{"/0.0.0.0", "vsftpd : 0.0.0.0/0.0.0.0\n", all, v4, "granted allow:1"},
	{"IPv4 net with host bits", "vsftpd : 10.0.0.5/24\n", all, v4, "denied deny:1"},
	{"octal net", "vsftpd : 012.0.0.0/8\n", all, v4, "granted allow:1"},
	{"prefix without dot", "vsftpd : 10.0.0\n", all, v4, "denied deny:1"},
	{"prefix", "vsftpd : 10.0.0.\n", all, v4, "granted allow:1"},
	{"glob", "vsftpd : 10.?.*\n", all, v4, "granted allow:1"},
	{"two stars need something", "vsftpd** : ALL\n", all, v4, "denied deny:1"},

	{"digits are a port", "2222 : ALL\n", all, "2222 10.0.0.5", "denied deny:1"},
	{"port", "21 : ALL\n", all, v4, "granted allow:1"},
	{"daemon@host", "vsftpd@10.0.0.254 : ALL\n", all, v4, "granted allow:1"},
	{"another daemon@host", "vsftpd@10.0.0.253 : ALL\n", all, v4, "denied deny:1"},
	{"EXCEPT nests to the right", "ALL : ALL EXCEPT 10. EXCEPT 10.0.0.5\n", all, v4, "granted allow:1"},
	{"EXCEPT daemons", "ALL EXCEPT vsftpd : ALL\n", all, v4, "denied deny:1"},

	{"name", "ALL : .example.com\n", all, v4 + " web.example.com", "granted allow:1"},
	{"no name", "ALL : LOCAL KNOWN .example.com\n", "ALL : UNKNOWN\n", v4 + " unknown", "denied deny:1"},
	{"paranoid", "ALL : LOCAL KNOWN\n", "ALL : PARANOID\n", v4 + " paranoid", "denied deny:1"},
	{"LOCAL", "ALL : LOCAL\n", all, v4 + " host", "granted allow:1"},
	{"user", "ALL : root@10.0.0.5\n", all, v4 + " host root", "granted allow:1"},
	{"no user", "ALL : KNOWN@10.0.0.5\n", all, v4 + " host unknown", "denied deny:1"},
	{"host file", "ALL : /hosts\n", all, v4, "granted allow:1"},
	{"comment of a host file", "", "ALL : /commented\n", v4, "denied deny:1"},
	{"no host file", "ALL : /none\n", all, v4, "denied deny:1"},
}

var trapFiles = map[string][]byte{"/hosts": []byte("192.168.\n\t10.0.0.5"), "/commented": []byte("# deny ALL of these\n"), "/self": []byte("/self /self")}

func (c trap) world() world {
	w := world{files: map[string][]byte{}}
	for name, data := range trapFiles {
		w.files[name] = data
	}
	for name, s := range map[string]string{"allow": c.allow, "deny": c.deny} {
		if s != "" {
			w.files[name] = []byte(s)
		}
	}
	f := append(strings.Fields(c.ask), "unknown", "unknown")
	r := Request{Daemon: f[0], Client: netip.MustParseAddr(f[1]), ClientName: f[2], User: f[3], ServerPort: 21, ServerName: unknown}
	r.ServerAddr = netip.MustParseAddr("10.0.0.254")
	if r.Client.Is6() && !r.Client.Is4In6() {
		r.ServerAddr = netip.MustParseAddr("2001:db8::fe")
	}
	w.asked = []Request{r}
	return w
}

func TestTraps(t *testing.T) {
	for _, c := range traps {
		w := c.world()
		d := Evaluate(w.tables(), w.asked[0])
		want := strings.Fields(c.want + " :0")
		file, line, _ := strings.Cut(want[1], ":")
		if string(d.Verdict) != want[0] || d.File != file || itoa(d.Line) != line || len(d.Reasons) > 0 {
			t.Errorf("%s: %+v, want %s", c.name, d, c.want)
		}
	}
}

func TestTrapsWithLibwrap(t *testing.T) {
	exe := buildOracle(t)
	var worlds []world
	for _, c := range traps {
		worlds = append(worlds, c.world())
	}
	for i, answers := range ask(t, exe, worlds) {
		d := Evaluate(worlds[i].tables(), worlds[i].asked[0])
		if s := differs(d, answers); s != "" {
			t.Errorf("%s: %s\nours %+v\nlibwrap %+v", traps[i].name, s, d, answers)
		}
	}
}

// TestOpen has what cannot be evaluated, and may decide or not.
func TestOpen(t *testing.T) {
	for name, c := range map[string]struct {
		allow, deny, want, reason string
	}{
		"netgroup":                 {"ALL:@staff\n", all, "unknown allow:1", "netgroup @staff"},
		"netgroup, either way":     {"ALL:@staff\n", "x:ALL\n", "granted :0", "netgroup @staff"},
		"netgroup, yes before":     {"ALL:@staff\nALL:ALL\n", all, "granted allow:2", "netgroup @staff"},
		"netgroup, matches anyway": {"ALL:@staff 10.0.0.5\n", all, "granted allow:1", ""},
		"except a netgroup":        {"ALL:ALL EXCEPT @bad\n", all, "unknown allow:1", "netgroup @bad"},
		"except, no match":         {"ALL:192.168. EXCEPT @bad\n", all, "denied deny:1", ""},
		"aclexec":                  {"ALL:ALL:aclexec /bin/test\n", all, "unknown allow:1", "/bin/test"},
		"aclexec in deny":          {"", "ALL:ALL:aclexec /bin/test\n", "unknown deny:1", "/bin/test"},
		"aclexec skips to deny":    {"ALL:ALL:aclexec /bin/test\nALL:ALL\n", all, "unknown allow:1", "/bin/test"},
		"aclexec, either way":      {"ALL:ALL:aclexec /bin/test\n", "", "granted :0", "/bin/test"},
		"aclexec and allow":        {"ALL:ALL:aclexec /bin/test:allow\n", all, "granted allow:1", "/bin/test"},
		"aclexec and a mistake":    {"ALL:ALL:aclexec /bin/test:x\n", "", "denied allow:1", "/bin/test"},
		"name":                     {"ALL:.example.com\n", all, "unknown allow:1", ".example.com"},
		"LOCAL":                    {"ALL:LOCAL\n", all, "unknown allow:1", "LOCAL"},
		"name of the server":       {"ALL@ftp.example.com:ALL\n", all, "unknown allow:1", "ftp.example.com"},
		"address of the server":    {"ALL@10.0.0.254:ALL\n", all, "unknown allow:1", "10.0.0.254"},
		"port":                     {"21:ALL\n", all, "unknown allow:1", "port 21"},
		"user":                     {"ALL:root@10.0.0.5\n", all, "unknown allow:1", "root"},
		"any user":                 {"ALL:ALL@10.0.0.5\n", all, "granted allow:1", ""},
		"user, other host":         {"ALL:root@10.0.0.6\n", all, "denied deny:1", ""},
		"user option":              {"ALL:ALL:user ftp\n", "", "granted allow:1", ""},
		"unknown user option":      {"ALL:ALL:user ldap\n", "", "unknown allow:1", "/etc/passwd"},
		"unknown group option":     {"ALL:ALL:user ftp.ldap\n", "", "unknown allow:1", "/etc/group"},
		"a file that names itself": {"ALL:/self\n", all, "unknown allow:1", "/self"},
		"unread file":              {"ALL:/locked\n", all, "unknown allow:1", "/locked"},
		"zone by name":             {"ALL:[fe80::1%eth9] 10.0.0.5\n", all, "granted allow:1", ""},
	} {
		tables := NewTables([]byte(c.allow), []byte(c.deny), func(name string) ([]byte, error) {
			switch name {
			case "/self":
				return trapFiles[name], nil
			case "/etc/passwd":
				return []byte("root:x:0:0\nftp:x:1:1\n"), nil
			case "/locked":
				return nil, fs.ErrPermission
			}
			return nil, fs.ErrNotExist
		})
		tables.Allow.Path, tables.Deny.Path = "allow", "deny"
		d := Evaluate(tables, Request{Daemon: "vsftpd", Client: netip.MustParseAddr("10.0.0.5")})
		if got := string(d.Verdict) + " " + d.File + ":" + itoa(d.Line); got != c.want {
			t.Errorf("%s: %s, want %s (%+v)", name, got, c.want, d)
		}
		if s := strings.Join(d.Reasons, "; "); !strings.Contains(s, c.reason) || (s == "") != (c.reason == "") {
			t.Errorf("%s: reasons %q", name, s)
		}
	}
}

func TestUnreadTables(t *testing.T) {
	r := Request{Daemon: "sshd", Client: netip.MustParseAddr("10.0.0.5")}
	for name, c := range map[string]struct {
		allow, deny Table
		want        Verdict
	}{
		"deny unread":            {Table{Err: fs.ErrNotExist}, Table{Err: fs.ErrPermission}, Unknown},
		"deny unread, allowed":   {Table{Data: []byte(all)}, Table{Err: fs.ErrPermission}, Granted},
		"allow unread":           {Table{Err: fs.ErrPermission}, Table{Data: []byte(all)}, Unknown},
		"server may not open it": {Table{Err: fs.ErrNotExist}, Table{Refused: true}, Denied},
		"nor hosts.allow":        {Table{Refused: true}, Table{Err: fs.ErrNotExist}, Granted},
	} {
		if d := Evaluate(Tables{Allow: c.allow, Deny: c.deny}, r); d.Verdict != c.want || d.Verdict == Unknown && len(d.Reasons) == 0 {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// TestAnyDaemon: a verdict about a server whose name is not known holds whatever that is.
func TestAnyDaemon(t *testing.T) {
	for name, c := range map[string]struct {
		allow, deny string
		want        Verdict
	}{
		"all":                        {"", "ALL : ALL\n", Denied},
		"all, and one let in":        {"x : ALL\n", "ALL : ALL\n", Unknown},
		"all, another client in":     {"x : 10.9.0.1\n", "ALL : ALL\n", Denied},
		"all but one":                {"", "ALL EXCEPT x : ALL\n", Unknown},
		"one":                        {"", "x : ALL\n", Unknown},
		"like one":                   {"", "*d : ALL\n", Unknown},
		"one, another client":        {"", "x : 10.9.0.1\n", Granted},
		"a port":                     {"", "21 : ALL\n", Unknown},
		"one, then all":              {"", "x : ALL\nALL : ALL\n", Denied},
		"one with an option":         {"x : ALL : deny\n", "ALL : ALL\n", Denied},
		"one that an option lets in": {"", "x : ALL : allow\nALL : ALL\n", Unknown},
	} {
		d := Evaluate(NewTables([]byte(c.allow), []byte(c.deny), nil), Request{AnyDaemon: true, Client: netip.MustParseAddr("10.0.0.5")})
		if d.Verdict != c.want || d.Verdict == Unknown && len(d.Reasons) == 0 {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// TestMatched: the patterns that decided, and what they looked at.
func TestMatched(t *testing.T) {
	r := Request{Daemon: "vsftpd", Client: netip.MustParseAddr("10.0.0.5"), ClientName: "web.example.com", ServerPort: 21, User: "root"}
	for rule, want := range map[string][2]Element{
		"ALL : ALL":               {{KindAll, "ALL"}, {KindAll, "ALL"}},
		"sshd vsftpd : 10.0.0.":   {{KindDaemon, "vsftpd"}, {KindAddress, "10.0.0."}},
		"21 : .example.com":       {{KindPort, "21"}, {KindName, ".example.com"}},
		"*d : 10.0.0.0/24":        {{KindDaemon, "*d"}, {KindAddress, "10.0.0.0/24"}},
		"ALL : root@ALL":          {{KindAll, "ALL"}, {KindUser, "root@ALL"}},
		"ALL : x /hosts":          {{KindAll, "ALL"}, {KindAddress, "/hosts"}},
		"ALL EXCEPT x : KNOWN":    {{KindAll, "ALL"}, {KindName, "KNOWN"}},
		"ALL : ALL EXCEPT 10.1.":  {{KindAll, "ALL"}, {KindAll, "ALL"}},
		"ALL : 10. EXCEPT .local": {{KindAll, "ALL"}, {KindAddress, "10."}},
	} {
		tables := NewTables(nil, []byte(rule+"\n"), func(string) ([]byte, error) { return trapFiles["/hosts"], nil })
		if d := Evaluate(tables, r); d.Verdict != Denied || d.Daemon != want[0] || d.Client != want[1] || d.Text != rule {
			t.Errorf("%s: %+v", rule, d)
		}
	}
}
