// SPDX-License-Identifier: Apache-2.0

package report

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/pathtrace/pathtrace/verdict"
)

// IsBundle reports whether head, the first bytes of a file, are a zip archive's.
func IsBundle(head []byte) bool { return bytes.HasPrefix(head, []byte("PK")) }

// ReadBundle reads the cases of a bundle of size bytes. It believes nothing: every
// file must be named in the manifest, no larger than the limits, and have the
// SHA-256 that the manifest gives. It writes nothing, and holds less than 64 MiB.
// Errors are one line.
func ReadBundle(r io.ReaderAt, size int64) (Saved, error) {
	reading.Lock()
	defer reading.Unlock()
	defer sparing()()
	s, err := readBundle(r, size)
	if err != nil {
		return Saved{}, fmt.Errorf("not a sound bundle: %w", err)
	}
	return s, nil
}

// reading is held by who reads a bundle: the bound on memory is for the process, and so is what sparing sets.
var reading sync.Mutex

// sparing makes the collector run sooner, until the function that it returns is called: lists grow by
// copies while they are decoded, and by default what is left behind lies until there is as much of it as of what is held.
func sparing() func() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	percent := debug.SetGCPercent(10)
	limit := debug.SetMemoryLimit(int64(m.Sys-m.HeapReleased) + 24<<20)
	return func() {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(percent)
	}
}

func readBundle(r io.ReaderAt, size int64) (Saved, error) {
	var none Saved
	if size > MaxBundle {
		return none, fmt.Errorf("larger than %d MiB", MaxBundle>>20)
	}
	m := &meter{r: r, left: maxDirectory}
	z, err := zip.NewReader(m, size)
	switch {
	case errors.Is(err, errDirectory):
		return none, errDirectory
	case err != nil:
		return none, errors.New("the archive is damaged or cut off")
	}
	m.left = -1
	files, err := contents(z)
	if err != nil {
		return none, err
	}
	manifest, err := readManifest(files)
	if err != nil {
		return none, err
	}
	var found []File // cases, and the verdict
	for _, want := range manifest.Files {
		f := files[want.Name]
		if f == nil {
			return none, fmt.Errorf("%s is missing", show(want.Name))
		}
		delete(files, want.Name)
		var keep bytes.Buffer
		if err := verify(f, want, &keep); err != nil {
			return none, fmt.Errorf("%s: %w", show(want.Name), err)
		}
		if keep.Len() > 0 {
			found = append(found, File{want.Name, keep.Bytes()})
		}
	}
	for name := range files {
		if name != manifestName {
			return none, fmt.Errorf("%s is not in the manifest", show(name))
		}
	}
	return parseSaved(found)
}

// parseSaved makes of the files that are JSON what they say. Their limits are for all of them together.
func parseSaved(files []File) (Saved, error) {
	var n counter
	byName := map[string][]byte{}
	for _, f := range files {
		byName[f.Name] = f.Data
		if err := n.file(f); err != nil {
			return Saved{}, err
		}
	}
	if byName["case.json"] == nil {
		return Saved{}, errors.New("case.json is missing")
	}
	var s Saved
	var err error
	if s.Case, err = parseCase(byName["case.json"]); err != nil {
		return Saved{}, err
	}
	for i := 0; ; i++ {
		data := byName[OtherCase(i)]
		if data == nil {
			break
		}
		c, err := parseCase(data)
		if err != nil {
			return Saved{}, fmt.Errorf("%s: %w", OtherCase(i), err)
		}
		s.Others = append(s.Others, c)
	}
	if data := byName[verdictName]; data != nil {
		var v verdict.Verdict
		if json.Unmarshal(data, &v) == nil && v.Cause != "" { // a later version's may be of another form
			s.Verdict = &v
		}
	}
	return s, nil
}

var errDirectory = errors.New("its table of contents is too large")

// meter bounds what is read while left is not negative: an archive may claim a
// table of contents as large as itself.
type meter struct {
	r    io.ReaderAt
	left int64
}

func (m *meter) ReadAt(p []byte, off int64) (int, error) {
	n, err := m.r.ReadAt(p, off)
	if m.left >= 0 {
		if m.left -= int64(n); m.left < 0 {
			m.left = 0
			return 0, errDirectory
		}
	}
	return n, err
}

// contents lists the files by name, and refuses what no bundle of ours has.
func contents(z *zip.Reader) (map[string]*zip.File, error) {
	if len(z.File) > maxFiles {
		return nil, fmt.Errorf("more than %d files", maxFiles)
	}
	files := map[string]*zip.File{}
	folded := map[string]bool{}
	var total, cases uint64
	for _, f := range z.File {
		low := strings.ToLower(f.Name)
		switch {
		case !cleanName(f.Name):
			return nil, fmt.Errorf("a file is called %s", show(f.Name))
		case folded[low]:
			return nil, fmt.Errorf("%s is there twice", show(f.Name))
		case !f.Mode().IsRegular():
			return nil, fmt.Errorf("%s is not a plain file", show(f.Name))
		case f.Flags&1 != 0:
			return nil, fmt.Errorf("%s is encrypted", show(f.Name))
		case f.Method != zip.Deflate && f.Method != zip.Store:
			return nil, fmt.Errorf("%s is packed in an unknown way", show(f.Name))
		case f.UncompressedSize64 > limit(f.Name):
			return nil, fmt.Errorf("%s is larger than %d MiB", show(f.Name), limit(f.Name)>>20)
		}
		if total += f.UncompressedSize64; total > maxUnpacked {
			return nil, fmt.Errorf("more than %d MiB unpacked", maxUnpacked>>20)
		}
		if parsed(f.Name) {
			if cases += f.UncompressedSize64; cases > maxBundleCase {
				return nil, fmt.Errorf("cases of more than %d MiB", maxBundleCase>>20)
			}
		}
		folded[low] = true
		files[f.Name] = f
	}
	return files, nil
}

func limit(name string) uint64 {
	switch {
	case parsed(name):
		return maxBundleCase
	case name == manifestName:
		return maxDirectory
	}
	return maxBundleFile
}

// parsed reports whether a file is one of those that [ReadBundle] understands.
func parsed(name string) bool {
	return name == verdictName || name == "case.json" || strings.HasPrefix(name, "case-") && strings.HasSuffix(name, ".json")
}

func readManifest(files map[string]*zip.File) (Manifest, error) {
	var m Manifest
	f := files[manifestName]
	if f == nil {
		return m, errors.New("manifest.json is missing")
	}
	data, err := unpack(f)
	if err != nil {
		return m, fmt.Errorf("manifest.json: %w", err)
	}
	if json.Unmarshal(data, &m) != nil || len(m.Files) > maxFiles {
		return m, errors.New("manifest.json is not a manifest")
	}
	return m, nil
}

// unpack reads a small file whole.
func unpack(f *zip.File) ([]byte, error) {
	in, err := f.Open()
	if err != nil {
		return nil, errDamaged
	}
	defer in.Close()
	data, err := io.ReadAll(io.LimitReader(in, int64(limit(f.Name))+1))
	if err != nil || uint64(len(data)) > limit(f.Name) {
		return nil, errDamaged
	}
	return data, nil
}

var errDamaged = errors.New("damaged")

// verify reads a file to its end and compares it with the manifest. It keeps the bytes of what will be parsed.
func verify(f *zip.File, want ManifestFile, keep *bytes.Buffer) error {
	if uint64(want.Size) != f.UncompressedSize64 {
		return fmt.Errorf("%d bytes, the manifest says %d", f.UncompressedSize64, want.Size)
	}
	in, err := f.Open()
	if err != nil {
		return errDamaged
	}
	defer in.Close()
	sum := sha256.New()
	out := io.Writer(sum)
	if parsed(want.Name) {
		keep.Grow(int(want.Size)) // at most its limit, see contents
		out = io.MultiWriter(sum, keep)
	}
	// One byte more than was promised shows a size that lies; the reader checks the CRC at the end.
	n, err := io.Copy(out, io.LimitReader(in, want.Size+1))
	if err != nil || n != want.Size {
		return errDamaged
	}
	if hex.EncodeToString(sum.Sum(nil)) != want.SHA256 {
		return errors.New("changed after it was written: its SHA-256 is not that of the manifest")
	}
	return nil
}

// counter bounds what decoding cases can make of their bytes: two bytes of JSON
// may become a structure of half a KiB.
type counter struct {
	objects, top int
	bytes        int
}

// file counts a file, and refuses one that is too much.
func (n *counter) file(f File) error {
	n.bytes += len(f.Data)
	inString, escaped := false, false
	depth := 0
	var lists [64]bool // by depth: a list, so that each comma begins an element
	begun := false     // an element of a list has, and nothing of it was seen
	for _, b := range f.Data {
		if begun && b > ' ' {
			begun = false
			if b != '{' && b != '[' && b != ']' {
				n.objects += 2 // 0 where {} is expected takes as much room, and an error
			}
		}
		switch {
		case escaped:
			escaped = false
		case inString:
			escaped, inString = b == '\\', b != '"'
		case b == '"':
			inString = true
		case b == '{' || b == '[':
			n.objects++
			if depth++; depth == len(lists) {
				return fmt.Errorf("%s is nested too deep", f.Name)
			}
			lists[depth] = b == '['
			begun = lists[depth]
		case b == '}' || b == ']':
			depth = max(0, depth-1)
		case b == ',' && lists[depth]:
			n.objects++
			begun = true
			if depth <= 2 {
				n.top++
			}
		}
		if n.objects > maxObjects || n.top > maxTop {
			return fmt.Errorf("%s has more than %d events, or %d objects in all", f.Name, maxTop, maxObjects)
		}
	}
	if n.bytes > maxBundleCase {
		return fmt.Errorf("cases of more than %d MiB", maxBundleCase>>20)
	}
	return nil
}

func show(name string) string { return short(Clean(name), 80) }
