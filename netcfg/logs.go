// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

const (
	maxTail    = 64 << 10 // read of the end of a log file
	maxLogs    = 10       // lines taken
	maxLogLine = 500      // bytes kept of a line
	maxFiles   = 8        // log files of one process
)

// LogQuery says which lines of logs belong to an exchange: those of its time
// that name the process or the client.
type LogQuery struct {
	PID      int
	Clients  []string // addresses under which the server knows the client
	From, To time.Time
}

// Logs reads what the files that a process writes to, and systemd's journal, say
// about an exchange. A line without a time that can be read is left out. Logs
// are words of programs: context, and never proof. Secrets that are marked as such are masked.
func Logs(ctx context.Context, q LogQuery) []evidence.LogLine {
	out := []evidence.LogLine{}
	for _, path := range logFiles(q.PID) {
		out = append(out, q.pick(path, tail(path))...)
	}
	out = append(out, q.journal(ctx)...)
	slices.SortStableFunc(out, func(a, b evidence.LogLine) int { return a.Time.Compare(b.Time) })
	return out[max(0, len(out)-maxLogs):]
}

// logFiles are the regular files that a process has open to append to, as its own root shows them.
func logFiles(pid int) []string {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	seen := map[string]bool{}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		target, err := os.Readlink(path)
		if err != nil || seen[target] || !strings.HasPrefix(target, "/") || len(out) == maxFiles {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || !writes(pid, e.Name()) {
			continue
		}
		if strings.HasSuffix(target, ".log") || strings.Contains(filepath.Base(target), "log") || strings.HasPrefix(target, "/var/log/") {
			seen[target] = true
			out = append(out, path)
		}
	}
	return out
}

// writes reports whether a file descriptor is open for writing (proc(5), fdinfo).
func writes(pid int, fd string) bool {
	b, err := readSome(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, fd), 4096)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if flags, ok := strings.CutPrefix(line, "flags:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(flags), 8, 64)
			return err == nil && n&unix.O_ACCMODE != unix.O_RDONLY
		}
	}
	return false
}

// tail reads the end of a file.
func tail(path string) []byte {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > maxTail {
		f.Seek(-maxTail, io.SeekEnd)
	}
	b, _ := io.ReadAll(io.LimitReader(f, maxTail))
	return b
}

func (q LogQuery) pick(path string, text []byte) []evidence.LogLine {
	source := path
	if target, err := os.Readlink(path); err == nil {
		source = target
	}
	var out []evidence.LogLine
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\r\n")
		at, ok := logTime(line, q.To)
		if ok && q.during(at) && q.about(line) {
			out = append(out, evidence.LogLine{Source: source, Time: at, Text: mask(line)})
		}
	}
	return out
}

// during allows for the second in which logs count.
func (q LogQuery) during(t time.Time) bool {
	return !t.Before(q.From.Truncate(time.Second)) && !t.After(q.To.Add(time.Second))
}

// about reports whether the line names the client or the process.
func (q LogQuery) about(line string) bool {
	words := append([]string{strconv.Itoa(q.PID)}, q.Clients...)
	return slices.ContainsFunc(words, func(w string) bool { return w != "" && w != "0" && hasWord(line, w) })
}

// hasWord reports whether w stands in line by itself: 10.0.0.1 is not in 10.0.0.12.
func hasWord(line, w string) bool {
	in := func(b byte) bool { return b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' }
	for at := 0; ; {
		i := strings.Index(line[at:], w)
		if i < 0 {
			return false
		}
		start, end := at+i, at+i+len(w)
		if (start == 0 || !in(line[start-1]) && line[start-1] != '.') && (end == len(line) || !in(line[end]) && (line[end] != '.' || end+1 == len(line) || !in(line[end+1]))) {
			return true
		}
		at = start + 1
	}
}

// stamps are the forms of time that servers write, with where to look for them.
var stamps = []struct {
	find   *regexp.Regexp
	layout string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)`), time.RFC3339Nano},
	{regexp.MustCompile(`\d\d/[A-Z][a-z][a-z]/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}`), "02/Jan/2006:15:04:05 -0700"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`), "2006-01-02 15:04:05"},
	{regexp.MustCompile(`\d{4}/\d\d/\d\d \d\d:\d\d:\d\d`), "2006/01/02 15:04:05"},
	{regexp.MustCompile(`\d{4}\.\d\d\.\d\d \d\d:\d\d:\d\d`), "2006.01.02 15:04:05"},
	{regexp.MustCompile(`\d\d [A-Z][a-z][a-z] \d{4} \d\d:\d\d:\d\d`), "02 Jan 2006 15:04:05"},
	{regexp.MustCompile(`[A-Z][a-z][a-z] [ \d]\d \d\d:\d\d:\d\d \d{4}`), "Jan _2 15:04:05 2006"},
	{regexp.MustCompile(`[A-Z][a-z][a-z] [ \d]\d \d\d:\d\d:\d\d`), time.Stamp},
}

// logTime reads the time of a line. A form without a zone is local time, or UTC
// where only that is near; one without a year is of the year of near.
func logTime(line string, near time.Time) (time.Time, bool) {
	head := line[:min(len(line), 120)]
	for _, s := range stamps {
		text := s.find.FindString(head)
		if text == "" {
			continue
		}
		var best time.Time
		for _, zone := range []*time.Location{time.Local, time.UTC} {
			t, err := time.ParseInLocation(s.layout, text, zone)
			if err != nil {
				return time.Time{}, false
			}
			if t.Year() == 0 {
				t = t.AddDate(near.In(zone).Year(), 0, 0)
			}
			if best.IsZero() || t.Sub(near).Abs() < best.Sub(near).Abs() {
				best = t
			}
		}
		return best, true
	}
	return time.Time{}, false
}

var secret = regexp.MustCompile(`(?i)((?:pass(?:word|wd|phrase)?|token|secret|api[-_]?key|session(?:id)?|cookie|authorization)["']?\s*[:=]\s*["']?)((?:(?:basic|bearer|digest)\s+)?[^\s"'&;,]+)`)

// mask hides what is marked as a secret, and cuts a long line.
func mask(line string) string {
	line = strings.ToValidUTF8(secret.ReplaceAllString(line, "$1***"), "\uFFFD")
	if len(line) > maxLogLine {
		line = strings.ToValidUTF8(line[:maxLogLine], "") + "…"
	}
	return line
}

// journal asks systemd's journal for the lines of the process.
func (q LogQuery) journal(ctx context.Context) []evidence.LogLine {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	out, err := RunHere(ctx, []string{"journalctl", "-o", "json", "-q", "--no-pager", "-n", "200",
		fmt.Sprintf("--since=@%d", q.From.Unix()), fmt.Sprintf("--until=@%d", q.To.Unix()+1), fmt.Sprintf("_PID=%d", q.PID)})
	if err != nil {
		return nil
	}
	return parseJournal(out)
}

// parseJournal reads the form of "journalctl -o json": an object a line. A
// message that is no text comes as a list of bytes, and is left out.
func parseJournal(text []byte) []evidence.LogLine {
	var out []evidence.LogLine
	for line := range strings.Lines(string(text)) {
		var e struct {
			Message any    `json:"MESSAGE"`
			Time    string `json:"__REALTIME_TIMESTAMP"` // microseconds
			Unit    string `json:"_SYSTEMD_UNIT"`
		}
		if json.Unmarshal([]byte(line), &e) != nil {
			continue
		}
		message, ok := e.Message.(string)
		us, err := strconv.ParseInt(e.Time, 10, 64)
		if !ok || err != nil {
			continue
		}
		out = append(out, evidence.LogLine{Source: strings.TrimSpace("journal " + e.Unit), Time: time.UnixMicro(us), Text: mask(message)})
	}
	return out
}
