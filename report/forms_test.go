// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// told returns every story and every recorded case with its verdict.
func told(t testing.TB) map[string]*story {
	all := map[string]*story{}
	for name, tell := range stories {
		all["story-"+name] = tell()
	}
	for name, c := range recorded(t) {
		all[name] = &story{c: c, v: verdict.Judge(&c)}
	}
	return all
}

// TestMarkdownIsShort: at most 15 lines, and nothing of others outside of code spans.
func TestMarkdownIsShort(t *testing.T) {
	for name, s := range told(t) {
		var b bytes.Buffer
		if err := Markdown(&b, s.document()); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		if len(lines) > 15 || len(lines) < 5 {
			t.Errorf("%s: %d lines", name, len(lines))
		}
		if !strings.Contains(b.String(), "`"+s.v.Cause+"`") || !strings.HasPrefix(lines[0], "**pathtrace: ") {
			t.Errorf("%s:\n%s", name, b.String())
		}
		for _, l := range lines {
			if out := outside(l); strings.ContainsAny(out, "<>[]@#!`_|") || strings.ContainsFunc(out, func(r rune) bool { return r < ' ' }) {
				t.Errorf("%s: markup outside of a code span: %q of %q", name, out, l)
			}
		}
	}
}

// outside returns what of a line stands in no code span, as CommonMark finds them.
func outside(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); {
		if s[i] != '`' {
			out.WriteByte(s[i])
			i++
			continue
		}
		n := 0
		for i+n < len(s) && s[i+n] == '`' {
			n++
		}
		rest, end := s[i+n:], -1
		for j := 0; j < len(rest); {
			if rest[j] != '`' {
				j++
				continue
			}
			k := j
			for k < len(rest) && rest[k] == '`' {
				k++
			}
			if k-j == n {
				end = j
				break
			}
			j = k
		}
		if end < 0 {
			out.WriteString(s[i:])
			break
		}
		i += n + end + n
	}
	return out.String()
}

func TestCodeSpans(t *testing.T) {
	for in, want := range map[string]string{
		"a": "`a`", "a`b": "`` a`b ``", "``": "``` `` ```", "": "-", " ": "-", "a\nb": "`a\\nb`",
	} {
		if got := code(in); got != want || outside(got) != strings.Trim(want, "`ab\\n ") {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

var outer = regexp.MustCompile(`(?i)<script|<link|<img|<iframe|\son\w+=|url\(|@import|https?://|<base|<form`)

// TestHTMLStandsAlone: one page that needs nothing else, with every part there,
// and well-formed although what is in it is hostile.
func TestHTMLStandsAlone(t *testing.T) {
	for name, s := range told(t) {
		page := htmlOf(t, s.document())
		if m := outer.FindString(strings.ReplaceAll(page, "http-equiv", "")); m != "" && name != "story-hostile" {
			t.Errorf("%s: %q", name, m)
		}
		d := xml.NewDecoder(strings.NewReader(page))
		d.Strict, d.AutoClose, d.Entity = false, []string{"meta"}, xml.HTMLEntity
		for {
			tok, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if e, ok := tok.(xml.StartElement); ok && slices.Contains([]string{"script", "img", "b", "a"}, e.Name.Local) && name == "story-hostile" && e.Name.Local != "b" {
				t.Errorf("%s: <%s> came in", name, e.Name.Local)
			}
		}
		for _, want := range []string{"<title>", "prefers-color-scheme", "@media print", s.v.Cause, "Station by station", "Timeline: all", "pathtrace judge"} {
			if !strings.Contains(page, want) {
				t.Errorf("%s: no %q", name, want)
			}
		}
		for _, p := range s.v.Proof {
			if !strings.Contains(page, phrase(p).markup()) {
				t.Errorf("%s: proof is missing: %s", name, p)
			}
		}
		for _, f := range s.v.Fixes {
			for _, x := range slices.Concat(f.Commands, f.Undo) {
				if !strings.Contains(page, phrase(x).markup()) {
					t.Errorf("%s: command is missing: %s", name, x)
				}
			}
		}
		if len(s.c.Events) > 0 && !strings.Contains(page, "<svg") {
			t.Errorf("%s: no picture", name)
		}
		if strings.Contains(page, "<svg") && word(s.v) == "not reachable" && !strings.Contains(page, `<circle class="died"`) {
			t.Errorf("%s: the picture does not show where %s ended", name, s.v.Cause)
		}
	}
}

func htmlOf(t testing.TB, d *Document) string {
	t.Helper()
	var b bytes.Buffer
	if err := HTML(&b, d); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestRuleAmongNeighbours: the deciding rule is marked, and no other.
func TestRuleAmongNeighbours(t *testing.T) {
	page := htmlOf(t, told(t)["firewall-drop"].document())
	_, chain, _ := strings.Cut(page, `<table class="chain">`)
	chain, _, _ = strings.Cut(chain, "</table>")
	rows := strings.Split(strings.TrimSpace(chain), "\n")
	if len(rows) != 6 || !strings.Contains(rows[1], "ct state established,related accept") || strings.Count(chain, "died") != 1 ||
		!strings.Contains(rows[3], `<tr class="died"><td class="when">3</td><td><code>tcp dport 80 counter drop</code>`) || !strings.Contains(rows[4], "policy accept") {
		t.Errorf("%s", strings.Join(rows, "\n"))
	}
}

// overflow is run by the browser: it says what is wider than the window, and
// which text leaves the picture.
const overflow = `<script>
addEventListener("load", () => {
  const out = [];
  for (const f of document.querySelectorAll("iframe")) {
    const d = f.contentDocument, w = d.documentElement;
    const bad = [];
    if (w.scrollWidth > w.clientWidth) bad.push("wider than the window: " + w.scrollWidth);
    const svg = d.querySelector("svg");
    if (svg) for (const x of svg.querySelectorAll("text")) {
      const b = x.getBBox();
      if (b.x < 0 || b.x + b.width > 401) bad.push("leaves the picture: " + x.textContent);
    }
    if (!d.querySelector("h1") || d.body.innerText.length < 300) bad.push("is empty");
    out.push(f.name + " " + f.width + " " + (bad.join("; ") || "ok"));
  }
  document.body.innerHTML = "<pre>" + out.join("\n").replaceAll("<", "&lt;") + "\n</pre>";
});
</script>`

// TestHTMLInBrowser lays every page out in a real browser, as wide as a telephone and as a desk.
func TestHTMLInBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	dir := t.TempDir()
	var index strings.Builder
	index.WriteString("<!DOCTYPE html><meta charset=utf-8><body>" + overflow)
	want := 0
	for name, s := range told(t) {
		widths := []int{360}
		if _, story := strings.CutPrefix(name, "story-"); story {
			widths = []int{360, 1000}
		} else if name != s.v.Cause {
			continue // another case of a cause
		}
		if err := os.WriteFile(filepath.Join(dir, name+".html"), []byte(htmlOf(t, s.document())), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, width := range widths {
			fmt.Fprintf(&index, `<iframe name="%s" width=%d height=500 src="%s.html"></iframe>`, name, width, name)
			want++
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte(index.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), chromium, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
		"--user-data-dir="+t.TempDir(), "--dump-dom", "file://"+filepath.Join(dir, "index.html"))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	ok := 0
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(strings.NewReplacer("<pre>", "", "</pre>", "").Replace(line))
		switch {
		case strings.HasSuffix(line, "0 ok"):
			ok++
		case strings.Contains(line, ";") || strings.Contains(line, ": "):
			t.Error(line)
		}
	}
	if ok != want {
		t.Errorf("%d pages of %d are sound:\n%s", ok, want, out[max(0, len(out)-2000):])
	}
}

func captureOf(t testing.TB, s *story) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Capture(&b, &s.c, s.v.Summary); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// frame is a packet of a capture, read back.
type frame struct {
	face         string
	at           time.Time
	kept, length int
	comment      string
}

// frames reads a little-endian pcapng file of one section.
func frames(t *testing.T, data []byte) []frame {
	t.Helper()
	le := binary.LittleEndian
	options := func(b []byte) map[uint16]string {
		m := map[uint16]string{}
		for len(b) >= 4 && le.Uint16(b) != 0 {
			n := int(le.Uint16(b[2:]))
			m[le.Uint16(b)] = string(b[4 : 4+n])
			b = b[4+(n+3)/4*4:]
		}
		return m
	}
	var out []frame
	var faces []map[uint16]string
	for len(data) > 0 {
		n := int(le.Uint32(data[4:]))
		if n%4 != 0 || n > len(data) || le.Uint32(data[n-4:]) != uint32(n) {
			t.Fatalf("a block of %d bytes, %d are left", n, len(data))
		}
		body := data[8 : n-4]
		switch le.Uint32(data) {
		case blockInterface:
			faces = append(faces, options(body[8:]))
		case blockPacket:
			face := faces[le.Uint32(body)]
			if face[optResolution] != "\x09" {
				t.Fatalf("resolution %q", face[optResolution])
			}
			kept := int(le.Uint32(body[12:]))
			out = append(out, frame{face: face[optName], kept: kept, length: int(le.Uint32(body[16:])),
				at: time.Unix(0, int64(le.Uint32(body[4:]))<<32|int64(le.Uint32(body[8:]))), comment: options(body[20+(kept+3)/4*4:])[optComment]})
		}
		data = data[n:]
	}
	return out
}

// TestCapture: every event with a packet is there, in order, at its interface and to the nanosecond.
func TestCapture(t *testing.T) {
	for name, s := range told(t) {
		var want []*evidence.Event
		for i := range s.c.Events {
			if p := s.c.Events[i].Packet; p != nil && drawable(p) {
				want = append(want, &s.c.Events[i])
			}
		}
		got := frames(t, captureOf(t, s))
		if len(got) != len(want) {
			t.Errorf("%s: %d packets, want %d", name, len(got), len(want))
			continue
		}
		for i, f := range got {
			e := want[i]
			if !f.at.Equal(s.c.Probe.Started.Add(time.Duration(e.At))) {
				t.Errorf("%s: packet %d at %v", name, i, f.at)
			}
			if !strings.HasPrefix(f.face, Clean(or(e.Netns, "?"))+"/") || e.Hook != "" && !strings.HasSuffix(f.face, " "+Clean(e.Hook)) {
				t.Errorf("%s: packet %d on %q, want %s %s %s", name, i, f.face, e.Netns, e.Device, e.Hook)
			}
			if f.length != max(e.Packet.Length, f.kept) && e.Packet.Protocol != "arp" {
				t.Errorf("%s: packet %d: length %d", name, i, f.length)
			}
			if e.Kind == evidence.Drop && (!strings.HasPrefix(f.comment, "✗ ") || !strings.Contains(f.comment, Clean(e.Reason))) {
				t.Errorf("%s: packet %d: %q", name, i, f.comment)
			}
		}
	}
}

// TestCaptureInTshark: the program that people use shows every packet, with its comment, and finds nothing wrong.
func TestCaptureInTshark(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not installed")
	}
	var all []byte
	want := 0
	for _, s := range told(t) { // sections of one file: one process for all
		all = append(all, captureOf(t, s)...)
		want += len(attach(&s.c))
	}
	file := filepath.Join(t.TempDir(), "all.pcapng")
	if err := os.WriteFile(file, all, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), tshark, "-n", "-r", file, "-T", "fields", "-E", "separator=\t", "-e", "frame.number",
		"-e", "frame.interface_name", "-e", "_ws.malformed", "-e", "ip.checksum.status", "-e", "frame.protocols", "-e", "frame.comment")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil || strings.Contains(errs.String(), "tshark:") {
		t.Fatalf("%v: %s", err, errs.String())
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != want {
		t.Errorf("%d packets, want %d", len(lines), want)
	}
	for _, l := range lines {
		f := strings.Split(l, "\t")
		if len(f) < 6 || f[1] == "" || f[2] != "" || f[3] == "0" || f[5] == "" || !strings.Contains(f[4], "ip") && !strings.Contains(f[4], "arp") {
			t.Errorf("%q", l)
		}
	}
}
