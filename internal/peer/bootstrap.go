// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// script is what the other host's shell runs with a name, the size and SHA-256
// of the program that follows on standard input, and the machine it is for
// (uname -m). It needs a POSIX shell, chmod, head, id, rm, uname, and sha256sum or openssl.
//
// The file has lost its name before the program is in it, so that nothing is
// left however this ends: it lives as long as descriptor 4 of the shell, and is
// run through that. A file that is open for writing cannot be run. Whether its
// filesystem lets programs run is tried with an empty one. Nothing may follow
// the program until the agent has said hello: head may read ahead.
//
// One line without single quotes, backslashes or exclamation marks: the login
// shell it is quoted for may be a csh or fish.
var script = strings.Join([]string{
	`set -f; umask 077`,
	`say() { echo "pathtrace-$n $*"; }`,
	`die() { say fail "$*"; exit 1; }`,
	`n=$1; p=/proc/$$/fd; s=; f=`,
	`[ "$(uname -s)" = Linux ] || die it runs $(uname -s), not Linux`,
	`[ "$(uname -m)" = "$4" ] || die "it is a $(uname -m), and this program is for $4"`,
	`if [ "$(id -u)" != 0 ]; then w=$(sudo -n true 2>&1) || die "tracing needs root: $w"; s="sudo -n"; fi`,
	`for d in "$XDG_RUNTIME_DIR" /dev/shm /tmp /var/tmp; do`,
	`f=$d/.pathtrace-$n; [ -n "$d" ] && (set -C; : >"$f") 2>/dev/null || { f=; continue; }`,
	`exec 3<>"$f" 4<"$f"; rm -f "$f"; chmod 700 "$p/3"; echo "#!/bin/sh" >&3; exec 3>&-`,
	`if "$p/4" </dev/null >/dev/null 2>&1; then break; fi`,
	`exec 4<&-; f=`,
	`done`,
	`[ -n "$f" ] || die none of /dev/shm, /tmp and /var/tmp takes a program`,
	`exec 3>"$p/4"; say ready; head -c "$2" >&3; exec 3>&-`,
	`if command -v sha256sum >/dev/null; then h=$(sha256sum <"$p/4"); else h=$(openssl dgst -sha256 -r <"$p/4"); fi`,
	`case $h in "$3"*) ;; *) die the copy of this program did not arrive whole;; esac`,
	`say run; [ -n "$s" ] || exec "$p/4" agent; $s "$p/4" agent`,
}, "; ")

// oneLine makes a line of the script's parts: no ; may follow do.
func oneLine(s string) string { return strings.ReplaceAll(s, "do; ", "do ") }

// command is the line that runs the script.
func command(name string, size int64, sum, machine string) string {
	return fmt.Sprintf("exec sh -c '%s' pathtrace %s %d %s %s", oneLine(script), name, size, sum, machine)
}

// program is this program, to be sent.
type program struct {
	file    *os.File
	size    int64
	sum     string
	machine string // uname -m
}

func openProgram() (*program, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("read our own program: %w", err)
	}
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	var u unix.Utsname
	if err == nil {
		err = unix.Uname(&u)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("read our own program: %w", err)
	}
	return &program{f, n, hex.EncodeToString(h.Sum(nil)), unix.ByteSliceToString(u.Machine[:])}, nil
}

// nonce names one attempt; nobody can guess it, so that nobody can put a file or a word in its place.
func nonce() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// failure is why the script gave up.
type failure string

func (f failure) Error() string { return string(f) }

var controls = regexp.MustCompile(`[\x00-\x1f\x7f]+`)

// await reads what the script says, until it says word.
func await(out *bufio.Reader, name, word string) error {
	for left := maxBanner; ; {
		line, err := readLine(out, left)
		if err != nil {
			return err
		}
		left -= len(line) + 1
		_, said, ours := strings.Cut(string(line), "pathtrace-"+name+" ")
		switch what, rest, _ := strings.Cut(said, " "); {
		case !ours: // a banner
		case what == word:
			return nil
		case what == "fail":
			return failure(strings.TrimSpace(controls.ReplaceAllString(rest, " ")))
		}
		if left <= 0 {
			return errLong
		}
	}
}

// upload sends the program once the shell is ready for it, which up is told, and returns when the
// agent is being started there. A stall of either lasts as long as l allows.
func (p *program) upload(ctx context.Context, in io.Writer, out *bufio.Reader, name string, l Limits, up, hangUp func()) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(ctx, hangUp)()
	alarm := time.AfterFunc(l.Ready, func() { stop(fmt.Errorf("no shell answered for %s", l.Ready)) })
	defer alarm.Stop()
	err := await(out, name, "ready")
	if err == nil {
		alarm.Stop()
		if up != nil {
			up()
		}
		stalled := time.AfterFunc(l.Reply, func() { stop(fmt.Errorf("it took nothing of this program for %s", l.Reply)) })
		defer stalled.Stop()
		_, err = io.Copy(in, io.TeeReader(io.LimitReader(p.file, p.size), progress(func() { stalled.Reset(l.Reply) })))
		// What the shell says says more than that it does not take more.
		if told := await(out, name, "run"); err == nil || told != nil && !errors.Is(told, io.EOF) {
			err = told
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// progress is told whenever something is written to it.
type progress func()

func (p progress) Write(b []byte) (int, error) { p(); return len(b), nil }
