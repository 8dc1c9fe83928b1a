// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/zip"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/report"
	"github.com/pathtrace/pathtrace/verdict"
)

// planted are the names and secrets that plant puts into a case. None of them is a word of ours.
var planted = []string{"db01", "acme", "web7", "bobby", "alice", "mx3", "example.net", "intranet-ca", "hunter2", "c00kie", "QWxhZGRpbg", "glpat-"}

const plantedMAC = "52:54:00:12:34:56"

// plant puts names and secrets wherever a case has text of others.
func plant(c *evidence.Case) {
	c.Host.Name = "db01.corp.acme"
	c.Target.Input = "https://bobby:hunter2@web7.corp.acme/private?token=hunter2"
	c.Probe.Banner += "\r\n220 DB01 ESMTP of mx3.corp.acme for alice@ops.example.net /home/alice/run\r\nSet-Cookie: sid=c00kie\r\npassword=hunter2\r\n"
	c.Unseen = append(c.Unseen, "DB01: not asked", "glpat-abcdefghijklmnopqrst12", "curl -H 'Authorization: Basic QWxhZGRpbg' https://bobby:hunter2@web7/ from "+plantedMAC)
	if c.Probe.Dialogue == nil {
		c.Probe.Dialogue = &evidence.Dialogue{}
	}
	d := c.Probe.Dialogue
	d.Said = append(d.Said, "USER bobby", "PASS hunter2", "Cookie: sid=c00kie", "Authorization: Bearer hunter2")
	if d.TLS == nil {
		d.TLS = &evidence.TLS{}
	}
	d.TLS.SNI = "web7.corp.acme"
	d.TLS.Certificates = append(d.TLS.Certificates, evidence.Certificate{Subject: "CN=web7,O=Acme", Issuer: "CN=intranet-ca", Names: []string{"web7", "*.corp.acme"}})
	for i := range c.Namespaces {
		n := &c.Namespaces[i]
		for j := range n.Links.Items {
			n.Links.Items[j].MAC = plantedMAC
		}
		for j := range n.Chains.Items {
			for k := range n.Chains.Items[j].Rules {
				n.Chains.Items[j].Rules[k].Text += ` comment "web7 token=hunter2 ` + plantedMAC + `"`
			}
		}
	}
}

// forms are the ways in which an address may be written.
func forms(a netip.Addr) []string {
	b := a.AsSlice()
	x := hex.EncodeToString(b)
	if a.Is6() {
		return []string{a.String(), a.StringExpanded(), x}
	}
	back := []byte{b[3], b[2], b[1], b[0]} // as /proc/net/tcp has it on these machines
	return []string{a.String(), strings.ReplaceAll(a.String(), ".", "-"), "0x" + x, strings.Replace("0x"+x, "0x0", "0x", 1), x, hex.EncodeToString(back)}
}

var addressLike = regexp.MustCompile(`(?i)\b\d{1,3}(?:\.\d{1,3}){3}\b|[0-9a-f]*:[0-9a-f:]*:[0-9a-f.:]*[0-9a-f]`)

// originalsIn are the addresses in some JSON that tell whose network it is.
func originalsIn(data []byte) map[netip.Addr]bool {
	all := map[netip.Addr]bool{}
	for _, s := range addressLike.FindAllString(string(data), -1) {
		a, err := netip.ParseAddr(s)
		if err != nil || a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.Is4() && (a.As4()[0] >= 240 || a.As4()[0] == 0 || a.As4()[3] == 0) {
			continue // 10.0.0.0 and the like are prefixes, and that a range is private stays
		}
		all[a.Unmap()] = true
	}
	return all
}

// toolsOf prints every address of a case in every form, as tools might.
func toolsOf(addresses map[netip.Addr]bool) toolTexts {
	var b strings.Builder
	for a := range addresses {
		fmt.Fprintf(&b, "ip saddr %s drop comment \"secret=hunter2 web7 %s\"\ndefault via %s dev enx525400123456 lladdr %s\n", a, strings.ToUpper(plantedMAC), a, plantedMAC)
		if a.Is4() {
			fmt.Fprintf(&b, "host ip-%s\n-m u32 --u32 \"0xc=0x%x\"\n@nh,96,32 0x%x\n", strings.ReplaceAll(a.String(), ".", "-"), a.AsSlice(), a.AsSlice())
		} else {
			fmt.Fprintf(&b, "%s/128\n", a.StringExpanded())
		}
	}
	return toolTexts{files: []report.File{{Name: "db01/nft.txt", Data: []byte(b.String())}}, unread: map[string]string{"db01/sysctls.txt": "web7: not installed"}}
}

// TestRedactedBundleOfEveryCause: a redacted bundle is judged to the same cause, and a
// search for what was there finds nothing, in no file and in no form.
func TestRedactedBundleOfEveryCause(t *testing.T) {
	files, err := filepath.Glob("../../verdict/testdata/cases/*/case.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	missing := map[string]bool{}
	for _, x := range verdict.Causes {
		missing[x.ID] = true
	}
	for _, name := range files {
		t.Run(filepath.Base(filepath.Dir(name)), func(t *testing.T) {
			c := caseOf(t, name)
			plant(&c)
			want := verdict.Judge(&c)
			delete(missing, want.Cause)
			whole, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			addresses := originalsIn(whole)
			p, err := pack([]result{{c, want}}, 0, toolsOf(addresses), true)
			if err != nil {
				t.Fatal(err)
			}
			var bundle bytes.Buffer
			if err := report.WriteBundle(&bundle, p.Bundle); err != nil {
				t.Fatal(err)
			}
			searched(t, bundle.Bytes(), addresses)
			back, err := report.ReadBundle(bytes.NewReader(bundle.Bytes()), int64(bundle.Len()))
			if err != nil {
				t.Fatal(err)
			}
			if got := verdict.Judge(&back.Case); got.Cause != want.Cause || got.Certainty != want.Certainty || got.Direction != want.Direction {
				t.Errorf("%s %s %s, was %s %s %s", got.Cause, got.Certainty, got.Direction, want.Cause, want.Certainty, want.Direction)
			}
		})
	}
	for id := range missing {
		t.Errorf("no bundle of %s was searched", id)
	}
}

func caseOf(t *testing.T, name string) evidence.Case {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := report.ReadCase(f)
	if err != nil {
		t.Fatal(err)
	}
	return s.Case
}

// searched looks through all that an archive holds.
func searched(t *testing.T, data []byte, addresses map[netip.Addr]bool) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	bare := strings.ReplaceAll(plantedMAC, ":", "")
	words := append([]string{plantedMAC, strings.ReplaceAll(plantedMAC, ":", "-"), bare, "5254.0012.3456"}, planted...)
	for a := range addresses {
		words = append(words, forms(a)...)
	}
	mac, _ := hex.DecodeString(bare)
	for _, f := range z.File {
		data, err := fs.ReadFile(z, f.Name)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ToLower(f.Name + "\n" + f.Comment + "\n" + string(data))
		for _, w := range words {
			if at := find(text, strings.ToLower(w)); at >= 0 {
				t.Errorf("%s: %s is there: …%q…", f.Name, w, text[max(0, at-60):min(len(text), at+60)])
			}
		}
		if f.Name != "packets.pcapng" {
			continue
		}
		if bytes.Contains(data, mac) {
			t.Errorf("%s: the link address is there", f.Name)
		}
		for a := range addresses {
			if bytes.Contains(data, a.AsSlice()) {
				t.Errorf("%s: %s is there, in network byte order", f.Name, a)
			}
		}
	}
}

// find returns where w is in text, other than as a part of a longer number.
func find(text, w string) int {
	part := func(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }
	for from := 0; ; {
		i := strings.Index(text[from:], w)
		if i < 0 {
			return -1
		}
		i += from
		end := i + len(w)
		longer := i > 0 && part(text[i-1]) && part(w[0]) || end < len(text) && part(text[end]) && part(w[len(w)-1])
		if !longer {
			return i
		}
		from = i + 1
	}
}

// TestSearchFinds: the search would find what an unredacted bundle holds.
func TestSearchFinds(t *testing.T) {
	c := caseOf(t, "../../verdict/testdata/cases/firewall-drop/case.json")
	plant(&c)
	p, err := pack([]result{{c, verdict.Judge(&c)}}, 0, toolTexts{}, false)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	var bundle bytes.Buffer
	if err := report.WriteBundle(&bundle, p.Bundle); err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(bundle.Bytes()), int64(bundle.Len()))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range z.File {
		data, err := fs.ReadFile(z, f.Name)
		if err != nil {
			t.Fatal(err)
		}
		files[f.Name] = string(data)
	}
	for _, name := range []string{"case.json", "report.html", "report.md", "packets.pcapng"} {
		if find(files[name], "10.77.2.2") < 0 {
			t.Errorf("%s does not hold the address", name)
		}
	}
	if a := netip.MustParseAddr("10.77.2.2"); !strings.Contains(files["packets.pcapng"], string(a.AsSlice())) {
		t.Error("the packets do not hold the address")
	}
}
