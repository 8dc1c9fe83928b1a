// SPDX-License-Identifier: Apache-2.0

package report

import (
	"archive/zip"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
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
	maxObjects    = 32_000  // JSON objects, and elements of lists, of the cases and the verdict
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
	// LeftOut says what [Trim] has left out of Document and Others.
	LeftOut []string
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
	LeftOut       []string          `json:"left_out,omitempty"` // of the cases, which would be too large
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

// WriteBundle writes the archive. What the tools printed is left out, the largest
// first, where all of it would be too large. Other than that it refuses what
// [ReadBundle] would not take.
func WriteBundle(w io.Writer, b Bundle) error {
	b.Unread = maps.Clone(b.Unread)
	for {
		var archive bytes.Buffer
		err := b.write(&archive)
		switch {
		case err == nil && archive.Len() <= MaxBundle:
			_, err := w.Write(archive.Bytes())
			return err
		case err != nil && !errors.Is(err, errTooMuch):
			return err
		case len(b.Config) == 0:
			return cmp.Or(err, fmt.Errorf("a bundle of more than %d MiB", MaxBundle>>20))
		}
		b.leaveOut()
	}
}

// leaveOut removes the largest quarter of what the tools printed.
func (b *Bundle) leaveOut() {
	bySize := slices.Clone(b.Config)
	slices.SortStableFunc(bySize, func(x, y File) int { return cmp.Compare(len(y.Data), len(x.Data)) })
	if b.Unread == nil {
		b.Unread = map[string]string{}
	}
	gone := bySize[:(len(bySize)+3)/4]
	for _, f := range gone {
		b.Unread[path.Join("config", f.Name)] = fmt.Sprintf("left out: with its %d bytes the bundle would be too large", len(f.Data))
	}
	b.Config = bySize[len(gone):]
	slices.SortFunc(b.Config, func(x, y File) int { return cmp.Compare(x.Name, y.Name) })
}

func (b Bundle) write(w io.Writer) error {
	files, err := b.files()
	if err != nil {
		return err
	}
	d := b.Document
	m := Manifest{FormatVersion: evidence.FormatVersion, Tool: d.Tool, Case: d.ID, Created: d.Probe.Started.UTC(),
		Redacted: b.Substituted != nil, Unread: b.Unread, LeftOut: b.LeftOut}
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

// errTooMuch is what leaving files out may mend.
var errTooMuch = errors.New("a bundle is too large")

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
			return fmt.Errorf("%w: of more than %d MiB unpacked", errTooMuch, maxUnpacked>>20)
		}
	}
	if len(files) >= maxFiles {
		return fmt.Errorf("%w: of more than %d files", errTooMuch, maxFiles)
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
