// SPDX-License-Identifier: Apache-2.0

package report

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// readerEnv names the archive that this binary, started again, shall read.
const readerEnv = "PATHTRACE_TEST_READ"

// TestMain makes this binary serve as a program that only reads a bundle: the most
// memory that a process ever held says nothing while other tests share it.
func TestMain(m *testing.M) {
	if name := os.Getenv(readerEnv); name != "" {
		os.Exit(readAlone(name))
	}
	os.Exit(m.Run())
}

// readAlone reads a bundle and prints the peak of the memory that was in use (proc(5): VmHWM), and what came of it.
func readAlone(name string) int {
	f, err := os.Open(name)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	info, err := f.Stat()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_, outcome := ReadBundle(f, info.Size())
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kib, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	fmt.Printf("%s %v\n", kib, outcome)
	return 0
}

// caseWith is a case with inner within it.
func caseWith(inner string) entry {
	return entry{name: "case.json", data: []byte(`{"format_version":"1.0",` + inner + `}`)}
}

// sized is filler of n bytes.
func sized(n int) string { return strings.Repeat("x", max(0, n)) }

// worst are archives that pass the limits as closely as they can, or that promise more than they keep.
func worst(t *testing.T) map[string][]byte {
	list := func(head, one string, n int, tail string) entry {
		return caseWith(head + strings.Repeat(one+",", n-1) + one + tail)
	}
	small := entry{name: "case.json", data: []byte(smallCase)}
	bombs := []entry{small}
	for i := range maxUnpacked/maxBundleFile - 1 {
		bombs = append(bombs, entry{name: fmt.Sprintf("config/%d", i), data: make([]byte, maxBundleFile)})
	}
	many := []entry{small}
	for i := range maxFiles - 2 {
		many = append(many, entry{name: fmt.Sprintf("config/%0230d", i)})
	}
	parts := []entry{caseWith(`"unseen":["` + sized(maxBundleCase/1000-200) + `"]`)}
	for i := range 900 {
		parts = append(parts, entry{name: OtherCase(i), data: parts[0].data})
	}
	manifest, err := json.Marshal(Manifest{Files: []ManifestFile{{Name: sized(maxDirectory - 400)}}})
	if err != nil {
		t.Fatal(err)
	}
	events := list(`"events":[`, `{"packet":{}}`, maxTop-1, `]`)
	sockets := list(`"namespaces":[{"sockets":{"items":[`, `{}`, maxObjects/2-100, `]}}]`)
	decisions := list(`"namespaces":[{"libwrap":{"items":[`, `{}`, maxObjects/2-100, `]}}]`)
	zeros := list(`"namespaces":[{"libwrap":{"items":[`, `0`, maxObjects/3-100, `]}}]`)
	full := func(e entry) entry {
		inner := string(e.data[len(`{"format_version":"1.0",`) : len(e.data)-1])
		return caseWith(inner + `,"unseen":["` + sized(maxBundleCase-len(e.data)-400) + `"]`)
	}
	return map[string][]byte{
		"bombs":               archive(t, bombs...),
		"larger bomb":         archive(t, small, entry{name: "x", data: make([]byte, 2*maxBundleFile)}),
		"bombs that lie":      lie(t, archive(t, bombs...)),
		"many files":          archive(t, many...),
		"many cases":          archive(t, parts...),
		"large manifest":      archive(t, small, entry{name: manifestName, data: manifest}),
		"deep":                archive(t, caseWith(`"unseen":`+strings.Repeat("[", 60)+strings.Repeat("]", 60))),
		"deeper":              archive(t, caseWith(`"unseen":`+strings.Repeat("[", maxBundleCase-100))),
		"namespaces":          archive(t, list(`"namespaces":[`, `null`, maxTop-1, `]`)),
		"events":              archive(t, events),
		"events and words":    archive(t, full(events)),
		"sockets and words":   archive(t, full(sockets)),
		"decisions, words":    archive(t, full(decisions)),
		"zeros and words":     archive(t, full(zeros)),
		"namespaces, sockets": archive(t, full(list(`"namespaces":[`, `{"sockets":{"items":[null,null]}}`, maxTop-2, `]`))),
		"sockets":             archive(t, sockets),
		"nulls":               archive(t, list(`"namespaces":[{"sockets":{"items":[`, `null`, maxObjects/3-100, `]}}]`)),
		"chains":              archive(t, list(`"namespaces":[{"chains":{"items":[`, `{"rules":[null]}`, maxObjects/4-100, `]}}]`)),
		"processes":           archive(t, list(`"namespaces":[{"processes":{"items":[`, `null`, maxObjects/3-100, `]}}]`)),
		"words":               archive(t, caseWith(`"unseen":["`+sized(maxBundleCase-200)+`"]`)),
		"words of no meaning": archive(t, caseWith(`"later":["`+sized(maxBundleCase-200)+`"]`)),
		"escapes":             archive(t, caseWith(`"unseen":["`+strings.Repeat(`\u2028`, maxBundleCase/6-200)+`"]`)),
		"verdict":             archive(t, small, entry{name: verdictName, data: []byte(`{"cause":"x","proof":["` + sized(maxBundleCase-400) + `"]}`)}),
		"proofs":              archive(t, small, entry{name: verdictName, data: []byte(`{"cause":"x","where":{},"fixes":[` + strings.Repeat(`null,`, maxTop-100) + `null]}`)}),
	}
}

// TestReadBundlePeak: a process that reads the worst archives never holds more than 64 MiB, its own program included.
func TestReadBundlePeak(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range worst(t) {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "x.zip")
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), readerEnv+"="+file)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			number, outcome, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
			kib, err := strconv.Atoi(number)
			if err != nil {
				t.Fatalf("%s", out)
			}
			t.Logf("%s: %d KiB at most, %d bytes of archive: %s", name, kib, len(data), outcome)
			if kib > 64<<10 {
				t.Errorf("%d KiB", kib)
			}
		})
	}
}
