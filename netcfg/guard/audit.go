// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"fmt"
	"log/syslog"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// audit writes one line: who does what to which namespace.
func audit(does string, r Record, outcome string) error {
	who := fmt.Sprintf("pid=%d", r.Who.PID)
	if r.User != "" {
		who += " user=" + r.User
	}
	line := fmt.Sprintf("%s id=%s %s: %s", who, r.ID, does, r.What)
	if outcome != "" {
		line += ": " + outcome
	}
	return writeAudit(strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, line))
}

func writeAudit(line string) error {
	_, dir := stateDir()
	if os.Getenv("PATHTRACE_STATE_DIR") == "" {
		if w, err := syslog.New(syslog.LOG_AUTH|syslog.LOG_NOTICE, "pathtrace"); err == nil {
			defer w.Close()
			return w.Notice(line)
		}
	}
	if err := makeDir(dir); err != nil {
		return err
	}
	// O_NOFOLLOW: a link would have us write elsewhere.
	f, err := os.OpenFile(filepath.Join(dir, "changes.log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s pathtrace[%d]: %s\n", time.Now().Format(time.RFC3339), os.Getpid(), line)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}
