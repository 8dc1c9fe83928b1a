// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLogs(t *testing.T) {
	now := time.Now()
	file, err := os.OpenFile(filepath.Join(t.TempDir(), "web.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	pid := os.Getpid()
	said := []string{
		now.Format("2006-01-02 15:04:05") + " refused 10.0.0.1 token=abc123 password: hunter2",
		now.Format("2006/01/02 15:04:05") + fmt.Sprintf(" [error] %d#0: no", pid),
		now.Add(-time.Hour).Format("2006-01-02 15:04:05") + " an hour ago 10.0.0.1",
		now.Format("2006-01-02 15:04:05") + " another client 10.0.0.12",
		"no time 10.0.0.1",
		now.Format("Mon Jan _2 15:04:05 2006") + ` [pid 3] CONNECT: Client "::ffff:10.0.0.1"`,
	}
	for range 3000 { // only the end is read
		fmt.Fprintln(file, now.Add(-time.Hour).Format(time.RFC3339), "long ago, for 10.0.0.1")
	}
	for _, s := range said {
		fmt.Fprintln(file, s)
	}
	var got []string
	for _, l := range Logs(t.Context(), LogQuery{PID: pid, Clients: []string{"10.0.0.1"}, From: now, To: now}) {
		if l.Source != file.Name() {
			t.Errorf("from %s", l.Source)
		}
		got = append(got, l.Text)
	}
	all := strings.Join(got, "\n")
	if len(got) != 3 || strings.Contains(all, "abc123") || strings.Contains(all, "hunter2") || !strings.Contains(all, "refused 10.0.0.1 token=***") ||
		!strings.Contains(all, "#0: no") || !strings.Contains(all, "CONNECT") {
		t.Errorf("%d lines:\n%s", len(got), all)
	}
}

func TestLogTime(t *testing.T) {
	at := time.Date(2026, 11, 22, 22, 45, 28, 0, time.UTC)
	for _, line := range []string{
		"2026-11-22T22:45:28Z x", "2026-11-22T23:45:28.000+01:00 x", `10.0.0.1 - - [22/Nov/2026:22:45:28 +0000] "GET /"`, "2026-11-22 22:45:28.123 UTC [1] FATAL",
		"2026/11/22 22:45:28 [error]", "2026.11.22 22:45:28 LOG5[0]:", "123:M 22 Nov 2026 22:45:28.123 * x", "Sun Nov 22 22:45:28 2026 [pid 2] CONNECT", "Nov 22 22:45:28 host sshd[1]:",
	} {
		if got, ok := logTime(line, at); !ok || !got.Equal(at) {
			t.Errorf("%q: %v %v", line, got, ok)
		}
	}
	if _, ok := logTime("nothing of the kind", at); ok {
		t.Error("a time was read where there is none")
	}
}

func TestJournal(t *testing.T) {
	got := parseJournal([]byte(`{"MESSAGE":"Bearer authorization: Bearer xyz","__REALTIME_TIMESTAMP":"1700000000000000","_SYSTEMD_UNIT":"ssh.service"}
{"MESSAGE":[1,2],"__REALTIME_TIMESTAMP":"1"}
no json
`))
	if len(got) != 1 || got[0].Source != "journal ssh.service" || strings.Contains(got[0].Text, "xyz") || got[0].Time.Unix() != 1700000000 {
		t.Errorf("%+v", got)
	}
}

func FuzzLogLine(f *testing.F) {
	f.Add("2026-11-22 22:45:28 10.0.0.1 password=x")
	f.Add(`{"MESSAGE":"x","__REALTIME_TIMESTAMP":"1"}`)
	f.Fuzz(func(_ *testing.T, s string) {
		logTime(s, time.Unix(1<<30, 0))
		q := LogQuery{PID: 1, Clients: []string{"10.0.0.1"}, To: time.Unix(1<<30, 0)}
		q.pick("x", []byte(s))
		parseJournal([]byte(s))
	})
}
