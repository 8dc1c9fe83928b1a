// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/pathtrace/pathtrace/netcfg"
)

// How often an undo is tried, and how long after the first time it is given up
// for now: another program may hold the lock of iptables, or replace the ruleset all the time.
const (
	firstPause = 10 * time.Millisecond
	lastPause  = 640 * time.Millisecond
)

// undo takes the change back in n, nil when that is gone, and removes its record, on success. The
// file is the locked record; the commands keep it open, so that nobody else begins before they have ended.
func (r Record) undo(n *netcfg.Netns, file *os.File, path, why string) Result {
	result := Result{Record: r, Why: why}
	var err error
	switch {
	case r.Boot != bootID():
		result.Note = "the host was started anew since"
	case n == nil:
		result.Note = "the namespace is gone"
	default:
		result.Note, err = r.restore(n, file)
	}
	if err == nil {
		err = os.Remove(path)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	outcome := result.Note
	if err != nil {
		result.Error = err.Error()
		outcome = "failed: " + result.Error
	}
	if logged := audit("takes back in "+r.Namespace.Name+" ("+why+")", r, outcome); logged != nil && result.Note == "" {
		result.Note = "audit: " + logged.Error()
	}
	return result
}

// restore runs the undo until it has succeeded, and until no rule bears the mark.
func (r Record) restore(n *netcfg.Netns, file *os.File) (note string, err error) {
	for pause := firstPause; ; pause *= 2 {
		if note, err = r.restoreOnce(n, file); err == nil || pause > lastPause {
			return note, err
		}
		time.Sleep(pause)
	}
}

func (r Record) restoreOnce(n *netcfg.Netns, file *os.File) (note string, err error) {
	if r.Mark != "" {
		switch there, err := n.Marked(r.Mark); {
		case err != nil:
			return "", err
		case !there:
			return "", nil // not made, or gone
		}
	}
	var failed error
	for _, c := range r.Undo {
		why, err := runIn(n, c, file)
		if err != nil && !settled(why) {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", c, err))
		} else if err != nil {
			note = why
		}
	}
	if r.Mark == "" {
		return note, failed
	}
	there, err := n.Marked(r.Mark)
	if err == nil && !there {
		return "", nil
	}
	return "", errors.Join(failed, err, fmt.Errorf("a rule with %q is still there", r.Mark))
}

// runIn runs a command line in n.
func runIn(n *netcfg.Netns, line string, file *os.File) (stderr string, err error) {
	doErr := n.Do(func() error {
		// Started from this thread, and waited for on it: the namespace is the thread's.
		stderr, err = shell(context.Background(), line, file)
		return nil
	})
	return stderr, errors.Join(doErr, err)
}

// settled reports whether a command of iproute2 has failed because there is
// nothing left to do: what it should remove is not there, what it should add is.
func settled(stderr string) bool {
	words := map[string]bool{
		"RTNETLINK answers: File exists": true, "RTNETLINK answers: No such process": true,
		"RTNETLINK answers: No such file or directory": true, "RTNETLINK answers: Cannot assign requested address": true,
	}
	any := false
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(line)
		if !words[line] && !strings.HasPrefix(line, "Cannot find device ") {
			return false
		}
		any = true
	}
	return any
}

// Replay takes back every change that was left behind: whose process and guard
// are both dead. It returns how each went; what failed stays recorded.
func Replay() ([]Result, error) {
	dir, _ := stateDir()
	names, drafts, err := records(dir)
	for _, name := range drafts {
		removeDraft(name)
	}
	var done []Result
	var failed error
	for _, name := range names {
		r, left, err := replay(name)
		switch {
		case errors.Is(err, fs.ErrNotExist): // somebody else was first
		case err != nil:
			failed = errors.Join(failed, fmt.Errorf("%s: %w", name, err))
		case left:
			done = append(done, r)
			failed = errors.Join(failed, r.err())
		}
	}
	return done, errors.Join(err, failed)
}

func replay(name string) (result Result, left bool, err error) {
	f, left, err := open(name)
	if err != nil {
		return result, false, err
	}
	defer f.Close()
	if !left {
		return result, false, nil
	}
	r, err := read(f)
	if err != nil {
		return result, false, err
	}
	var n *netcfg.Netns
	if r.Boot == bootID() {
		if n, err = r.Namespace.find(); err != nil && !errors.Is(err, netcfg.ErrNoNetns) {
			return result, false, err
		}
	}
	if n != nil {
		defer n.Close()
	}
	return r.undo(n, f, name, WhyLeft), true, nil
}

// removeDraft removes a file whose writer was killed before it became a record.
func removeDraft(name string) {
	info, err := os.Lstat(name)
	if err != nil || time.Since(info.ModTime()) < time.Minute { // its writer may not have locked it yet
		return
	}
	if f, left, err := open(name); err == nil {
		if left {
			os.Remove(name)
		}
		f.Close()
	}
}
