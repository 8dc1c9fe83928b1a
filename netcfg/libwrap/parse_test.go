// SPDX-License-Identifier: Apache-2.0

package libwrap

import (
	"io/fs"
	"strconv"
	"strings"
	"testing"
)

func itoa(n int) string { return strconv.Itoa(n) }

// TestWarnings has one line each; the same lines are silent once they are right.
func TestWarnings(t *testing.T) {
	for text, want := range map[string]string{
		"ALL : ALL":                                 "no newline at its end: everyone is denied",
		"ALL : ALL \\\n":                            "ends in a backslash",
		"# " + strings.Repeat("x", 2046) + "\n":     "longer than 2046 bytes",
		" # comment\n":                              "first column",
		"\v\n":                                      "no colon",
		"ALL ALL\n":                                 "no colon",
		"[vsftpd : ALL\n":                           "do not pair",
		"# c \\\nALL : 10.0.0.1\n":                  "next line is part of it",
		"ALL : 10.0.0.1 \\ \n":                      "not the last byte",
		"ALL : 10.0.0.1 \\\r\n":                     "not the last byte",
		"ALL : 10.0.0.1\x00\n\n":                    "NUL byte",
		"ALL : 10.0.0.1 : nonsense\n":               `bad option name: "nonsense"`,
		"ALL : 10.0.0.1 : deny : keepalive\n":       "must be at end",
		"ALL : 10.0.0.1 :\n":                        "missing option name",
		"ALL : 10.0.0.1 : deny # why\n":             "requires no value",
		"ALL : 10.0.0.1 : severity authpriv.info\n": "bad syslog facility",
		"ALL : 10.0.0.1 : spawn echo %z\n":          "unrecognized %z",
		"ALL : [2001:db8::1] # ALL\n":               "begins no comment",
		"ALL : 10.0.0.5/255.255.255.255\n":          "write /32",
		"ALL : 10.0.0.0/0\n":                        "0.0.0.0/0.0.0.0",
		"ALL : 10.0.0.5/24\n":                       "the network is 10.0.0.0/24",
		"ALL : 10.0.0.0/33\n":                       "1 to 32",
		"ALL : 10.0/16\n":                           "four groups",
		"ALL : 010.0.0.0/8\n":                       "octal: the network is 8.0.0.0",
		"ALL : 10.0.0\n":                            "ends in a dot",
		"ALL : 10.0.0.05\n":                         "not how an IPv4 address",
		"ALL : [2001:db8::/32]\n":                   "behind the brackets",
		"ALL : [2001:db8::*]\n":                     "square brackets",
		"ALL : [::ffff:10.0.0.1]\n":                 "IPv4-mapped",
		"ALL : [::ffff:0:0]/96\n":                   "IPv4-mapped",
		"ALL : [2001:db8::]/129\n":                  "0 to 128",
		"ALL : [2001:db8::]/64x\n":                  "read as 64",
		"ALL : [x]\n":                               "no IPv6 address",
		"2222 : ALL\n":                              "port 2222",
		"LOCAL : ALL\n":                             "no wildcard",
		"ALL :\n":                                   "list of clients is empty",
		": ALL\n":                                   "list of daemons is empty",
		"ALL : /none\n":                             "does not exist",
		"ALL : /commented\n":                        "no comments",
		"ALL : /locked\n":                           "not read",
		"ALL : *a*b*c*d*e*f*g*h*i\n":                "double",
		"ALL@10.0.0.5/24 : ALL\n":                   "the network is 10.0.0.0/24",
	} {
		tables := NewTables(nil, []byte(text), openTrap)
		if _, w := Parse(tables); len(w) != 1 || !strings.Contains(w[0].Message, want) || w[0].Line != 1 || w[0].File != DenyPath {
			t.Errorf("%q: %+v, want %s", text, w, want)
		}
	}
}

func openTrap(name string) ([]byte, error) {
	switch data := trapFiles[name]; {
	case name == "/locked":
		return nil, fs.ErrPermission
	case data != nil:
		return data, nil
	}
	return nil, fs.ErrNotExist
}

func TestUnbracketed(t *testing.T) {
	for text, want := range map[string]bool{
		"sshd : 2001:db8::1": true, "sshd:2001:db8::1": true, "sshd : 10. 2001:db8::/32 : allow": true, "sshd : ::1": true, "sshd : fe80: : allow": false,
		"sshd : 2001:db8:": true, "sshd@2001:db8::1 : ALL": true, "sshd : ALL EXCEPT 2001:db8::1": true, "sshd : root@::1": true,
		"sshd : [2001:db8::1] : allow": false, "sshd:ALL:allow": false, "21:10.0.0.1:deny": false, "sshd : ALL : spawn echo ::1": false,
		"abc:bad:deny": false, "sshd : [::1]/128:allow": false, "sshd : ALL : setenv A fe80::1 : allow": false,
	} {
		_, warnings := Parse(NewTables([]byte(text+"\n"), nil, nil))
		got := false
		for _, w := range warnings {
			got = got || strings.Contains(w.Message, "needs square brackets")
		}
		if got != want {
			t.Errorf("%s: %+v", text, warnings)
		}
	}
}

func TestSilent(t *testing.T) {
	text := "# all is well: here\n\nvsftpd, sshd : 10.0.0.5, 10.1. 10.2.0.0/16 10.3.0.0/255.255.0.0 [2001:db8::1] [2001:db8::]/32 .example.com \\\n  EXCEPT *.bad.example.com : severity auth.info : spawn echo %h\\: no : deny\r\n" +
		"ALL@10.0.0.1 : root@ALL, @netgroup, /hosts, KNOWN\n"
	tables := NewTables([]byte(text), []byte(text), openTrap)
	rules, w := Parse(tables)
	if len(w) > 0 || len(rules) != 4 {
		t.Fatalf("%d rules, %+v", len(rules), w)
	}
	if r := rules[0]; r.First != 3 || r.Line != 4 || r.File != AllowPath || r.Daemons != "vsftpd, sshd " {
		t.Errorf("%+v", r)
	}
}

// TestWarningsOfUnreadFiles: what was not read is said, what is not there is not.
func TestWarningsOfUnreadFiles(t *testing.T) {
	_, w := Parse(Tables{Allow: Table{Path: AllowPath, Err: fs.ErrNotExist}, Deny: Table{Path: DenyPath, Err: fs.ErrPermission}})
	if len(w) != 1 || w[0].Message != "not read: permission denied" {
		t.Errorf("%+v", w)
	}
	_, w = Parse(Tables{Deny: Table{Path: DenyPath, Refused: true}})
	if len(w) != 1 || !strings.Contains(w[0].Message, "everyone is denied") {
		t.Errorf("%+v", w)
	}
}
