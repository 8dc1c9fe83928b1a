// SPDX-License-Identifier: Apache-2.0

package report

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/report/redact"
)

// Limits of a bundle. [WriteBundle] keeps to them, and [ReadBundle] takes no
// more, so that a stranger's archive cannot fill the memory.
const (
	MaxBundle     = 32 << 20 // bytes of the archive
	maxBundleCase = 8 << 20  // bytes of the cases and the verdict
	maxBundleFile = 16 << 20 // bytes of any other file, unpacked
	maxUnpacked   = 128 << 20
	maxFiles      = 1024
	maxDirectory  = 1 << 20 // bytes of the archive's table of contents
	maxObjects    = 60_000  // JSON objects, and elements of lists, of the cases and the verdict
	maxTop        = 10_000  // of these, elements of its own lists: events and namespaces
)

const (
	manifestName = "manifest.json"
	verdictName  = "verdict.json"
)

// File is a file of a bundle, by its path in it.
type File struct {
	Name string
	Data []byte
}

// Bundle is what [WriteBundle] writes beside what it makes from the document itself.
type Bundle struct {
	Document Document
	Others   []evidence.Case   // of the target's other addresses
	Config   []File            // below config/, as the tools printed it
	Unread   map[string]string // files that should be there, and why they are not
	// What was substituted in Document and Config, by kind; nil: nothing.
	Substituted map[string]int
	// What was masked in Document and Config, by file and kind.
	Masked map[string]map[string]int
}

// Manifest is manifest.json: what is in a bundle, to the byte.
type Manifest struct {
	FormatVersion string            `json:"format_version"`
	Tool          evidence.Tool     `json:"tool"`
	Case          string            `json:"case"`
	Created       time.Time         `json:"created"`
	Redacted      bool              `json:"redacted"`
	Files         []ManifestFile    `json:"files"`
	Unread        map[string]string `json:"unread,omitempty"`
}

// ManifestFile is a file of a bundle, with the SHA-256 of its bytes.
type ManifestFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// redaction is redaction.json.
type redaction struct {
	Redacted    bool                      `json:"redacted"`
	Substituted map[string]int            `json:"substituted"` // kind to how many different ones
	Masked      map[string]map[string]int `json:"masked"`      // file to kind of secret to how many
	Mask        string                    `json:"mask"`
}

// WriteBundle writes the archive. It refuses what [ReadBundle] would not take.
func WriteBundle(w io.Writer, b Bundle) error {
	files, err := b.files()
	if err != nil {
		return err
	}
	d := b.Document
	m := Manifest{FormatVersion: evidence.FormatVersion, Tool: d.Tool, Case: d.ID, Created: d.Probe.Started.UTC(),
		Redacted: b.Substituted != nil, Unread: b.Unread}
	for _, f := range files {
		sum := sha256.Sum256(f.Data)
		m.Files = append(m.Files, ManifestFile{f.Name, int64(len(f.Data)), hex.EncodeToString(sum[:])})
	}
	data, err := encoded(m)
	if err != nil {
		return err
	}
	z := zip.NewWriter(w)
	for _, f := range append([]File{{manifestName, data}}, files...) {
		h := &zip.FileHeader{Name: f.Name, Method: zip.Deflate, Modified: m.Created}
		h.SetMode(0o600)
		out, err := z.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := out.Write(f.Data); err != nil {
			return err
		}
	}
	return z.Close()
}

// OtherCase is the name of the case of Others[i].
func OtherCase(i int) string { return fmt.Sprintf("case-%d.json", i+2) }

// files makes every file but the manifest, the case first.
func (b Bundle) files() ([]File, error) {
	d := b.Document
	var files []File
	var failed error
	add := func(name string, make func(io.Writer) error) {
		var buf bytes.Buffer
		if err := make(&buf); err != nil && failed == nil {
			failed = fmt.Errorf("%s: %w", name, err)
		}
		files = append(files, File{name, buf.Bytes()})
	}
	report := redaction{b.Substituted != nil, b.Substituted, b.Masked, redact.Hidden}
	add("case.json", func(w io.Writer) error { return encode(w, d.Case) })
	add(verdictName, func(w io.Writer) error { return encode(w, d.Verdict) })
	add("report.md", func(w io.Writer) error { return Markdown(w, &d) })
	add("report.html", func(w io.Writer) error { return HTML(w, &d) })
	add("packets.pcapng", func(w io.Writer) error { return Capture(w, &d.Case, d.Verdict.Summary) })
	add("redaction.json", func(w io.Writer) error { return encode(w, report) })
	for i, c := range b.Others {
		add(OtherCase(i), func(w io.Writer) error { return encode(w, c) })
	}
	for _, f := range b.Config {
		files = append(files, File{path.Join("config", f.Name), f.Data})
	}
	if failed == nil {
		failed = checkFiles(files)
	}
	return files, failed
}

// checkFiles refuses what ReadBundle would not take.
func checkFiles(files []File) error {
	total := 0
	var n counter
	for _, f := range files {
		if parsed(f.Name) {
			if err := n.file(f); err != nil {
				return err
			}
		}
		total += len(f.Data)
		switch {
		case !cleanName(f.Name):
			return fmt.Errorf("%s: not a name for a file of a bundle", Clean(f.Name))
		case len(f.Data) > maxBundleFile:
			return fmt.Errorf("%s: larger than %d MiB", f.Name, maxBundleFile>>20)
		case total > maxUnpacked:
			return fmt.Errorf("a bundle of more than %d MiB", maxUnpacked>>20)
		}
	}
	if len(files) >= maxFiles {
		return fmt.Errorf("a bundle of more than %d files", maxFiles)
	}
	return nil
}

func encoded(v any) ([]byte, error) {
	var b bytes.Buffer
	err := encode(&b, v)
	return b.Bytes(), err
}

// cleanName reports whether name is a relative path that stays below where it
// is unpacked, on any system, and is written in one way only.
func cleanName(name string) bool {
	if name == "" || len(name) > 255 || path.Clean(name) != name || path.IsAbs(name) || strings.HasPrefix(name, "..") {
		return false
	}
	for _, r := range name {
		if r < ' ' || r > '~' || strings.ContainsRune(`\:*?"<>|`, r) {
			return false
		}
	}
	return true
}
