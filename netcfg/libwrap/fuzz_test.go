// SPDX-License-Identifier: Apache-2.0

package libwrap

import (
	"io/fs"
	"net/netip"
	"strings"
	"testing"
)

// FuzzTables looks for a panic, for an endless search, and for lines that are not in the file.
func FuzzTables(f *testing.F) {
	for _, c := range traps {
		w := c.world()
		f.Add([]byte(c.allow), []byte(c.deny), w.asked[0].Daemon, "web.example.com", w.asked[0].Client.AsSlice())
	}
	stars := strings.Repeat("*a", 1000)
	f.Add([]byte(stars+" : "+stars+"\n"), []byte("ALL : /self\n"), strings.Repeat("a", 127), strings.Repeat("a", 127), []byte{10, 0, 0, 5})
	f.Fuzz(func(t *testing.T, allow, deny []byte, daemon, name string, address []byte) {
		client, _ := netip.AddrFromSlice(address)
		tables := NewTables(allow, deny, func(path string) ([]byte, error) {
			if path == "/self" {
				return deny, nil
			}
			return nil, fs.ErrNotExist
		})
		_, warnings := Parse(tables)
		for _, w := range warnings {
			within(t, tables, w.File, w.Line)
		}
		for _, r := range []Request{{Daemon: daemon, Client: client, ClientName: name, User: name, NoServer: true}, {Daemon: daemon, Client: client}} {
			d := Evaluate(tables, r)
			if d.File != "" {
				within(t, tables, d.File, d.Line)
				within(t, tables, d.File, d.First)
			}
			if (d.Verdict == Unknown) && len(d.Reasons) == 0 {
				t.Errorf("unknown without a reason: %+v", d)
			}
			rule := AllowLine(r)
			tables.Allow.Data = append([]byte(rule+"\n"), allow...)
			if d := Evaluate(tables, r); rule != "" && (d.Verdict != Granted || d.Line != 1) {
				t.Errorf("%q does not let %+v pass: %+v", rule, r, d)
			}
			tables.Allow.Data = allow
		}
	})
}

func within(t *testing.T, tables Tables, file string, line int) {
	t.Helper()
	data := tables.Allow.Data
	if file == tables.Deny.Path {
		data = tables.Deny.Data
	}
	if last := strings.Count(string(data), "\n") + 1; line < 0 || line > last {
		t.Errorf("%s has no line %d", file, line)
	}
}

// TestManyStars: libwrap itself would not come to an end.
func TestManyStars(t *testing.T) {
	stars := strings.Repeat("*a", 1000)
	r := Request{Daemon: strings.Repeat("a", 127), Client: netip.MustParseAddr("10.0.0.5"), ClientName: strings.Repeat("a", 127)}
	rules := strings.Repeat(stars+"b : ALL\n", 50)
	if d := Evaluate(NewTables([]byte(rules), []byte("ALL : "+stars[:200]+"\n"), nil), r); d.Verdict != Denied {
		t.Errorf("%+v", d)
	}
}
