// SPDX-License-Identifier: Apache-2.0

package libwrap

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// world is what the oracle and the evaluator are asked about.
type world struct {
	files map[string][]byte // allow, deny and those that patterns name; nil: may not be opened
	asked []Request
}

func (w world) tables() Tables {
	t := NewTables(nil, nil, func(name string) ([]byte, error) {
		switch data, ok := w.files[name]; {
		case !ok:
			return nil, fs.ErrNotExist
		case data == nil:
			return nil, syscall.EACCES
		default:
			return data, nil
		}
	})
	t.Allow.Path, t.Deny.Path = "allow", "deny"
	for _, p := range []*Table{&t.Allow, &t.Deny} {
		data, ok := w.files[p.Path]
		if ok {
			p.Data, p.Err, p.Refused = data, nil, data == nil
		}
	}
	return t
}

// answer is what the real libwrap says.
type answer struct {
	verdict    Verdict
	file       string
	line       int
	complaints []string
}

// buildOracle compiles a program around the real libwrap. It skips the test
// where there is no compiler or no libwrap; not on a machine that must have both.
func buildOracle(t *testing.T) string {
	t.Helper()
	missing := ""
	if _, err := exec.LookPath("gcc"); err != nil {
		missing = "gcc"
	} else if out, err := exec.Command("gcc", "-print-file-name=libwrap.so").Output(); err != nil || !strings.Contains(string(out), "/") {
		missing = "libwrap.so"
	}
	if missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing: install gcc, libc6-dev and libwrap0-dev", missing)
		}
		t.Skipf("%s is missing: gcc, libc6-dev and libwrap0-dev are needed to ask the real libwrap", missing)
	}
	exe := filepath.Join(t.TempDir(), "oracle")
	out, err := exec.Command("gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-rdynamic", "-o", exe, "testdata/oracle.c", "-lwrap").CombinedOutput()
	if err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	return exe
}

// ask puts every request of every world to the oracle, with every host in no netgroup and then in all.
func ask(t *testing.T, exe string, worlds []world) [][]answer {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = []string{"LC_ALL=C"}
	var questions, stderr bytes.Buffer
	for _, w := range worlds {
		w.write(&questions)
	}
	cmd.Stdin, cmd.Stderr = &questions, &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewScanner(stdout)
	in.Buffer(nil, 1<<20)
	var all [][]answer
	for _, w := range worlds {
		var answers []answer
		for range 2 * len(w.asked) {
			answers = append(answers, readAnswer(t, in))
		}
		all = append(all, answers)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("oracle: %v %s", err, stderr.String())
	}
	return all
}

func (w world) write(b *bytes.Buffer) {
	b.WriteString("clear\n")
	for name, data := range w.files {
		size := len(data)
		if data == nil {
			size = -1
		}
		fmt.Fprintf(b, "file\t%s\t%d\n%s", name, size, data)
	}
	for _, r := range w.asked {
		c, s := r.client(), r.server()
		user := r.User
		if user == "" {
			user = unknown
		}
		for group := range 2 {
			fmt.Fprintf(b, "ask\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%d\n", r.Daemon, c.addr, cmpOr(c.name), s.addr, cmpOr(s.name), r.ServerPort, user, group)
		}
	}
}

func cmpOr(name string) string {
	if name == "" {
		return unknown
	}
	return name
}

func readAnswer(t *testing.T, in *bufio.Scanner) answer {
	t.Helper()
	var a answer
	if !in.Scan() {
		t.Fatal("the oracle has ended")
	}
	words := strings.Fields(in.Text())
	if len(words) != 3 {
		t.Fatalf("the oracle says %q", in.Text())
	}
	a.verdict, a.file = Verdict(words[0]), words[1]
	a.line, _ = strconv.Atoi(words[2])
	for in.Scan() && in.Text() != "." {
		a.complaints = append(a.complaints, in.Text())
	}
	return a
}
