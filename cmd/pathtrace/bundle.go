// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/report"
	"github.com/pathtrace/pathtrace/report/redact"
	"github.com/pathtrace/pathtrace/verdict"
)

// save checks -o before anything is sent: nobody wants to learn after the trace that it is lost.
func (f *flags) save(o *Options) error {
	if o.Bundle == "" {
		return nil
	}
	switch info, err := os.Lstat(o.Bundle); {
	case err == nil && info.IsDir():
		return badUse("-o %s: is a directory", o.Bundle)
	case err == nil && !info.Mode().IsRegular() && info.Mode()&fs.ModeSymlink == 0:
		return badUse("-o %s: not a plain file", o.Bundle)
	}
	if err := unix.Access(filepath.Dir(o.Bundle), unix.W_OK|unix.X_OK); err != nil {
		return badUse("-o %s: %w", o.Bundle, err)
	}
	return nil
}

// save redacts and writes the bundle, as far as that was asked for. It returns
// what may be shown: with --redact nothing else is.
func (a *app) save(ctx context.Context, c evidence.Case, v verdict.Verdict, o Options) (evidence.Case, verdict.Verdict, error) {
	if o.Bundle == "" && !o.Redact {
		return c, v, nil
	}
	done := slowly(a.progress(o), "reading and packing the configuration")
	defer done()
	var texts toolTexts
	if o.Bundle != "" && a.config != nil {
		// What was seen is worth saving also when the user has lost patience.
		texts = a.config(context.WithoutCancel(ctx), &c)
	}
	p, err := pack(report.NewDocument(c, v), texts, o.Redact)
	if err != nil {
		return c, v, fmt.Errorf("no bundle: %w", err)
	}
	shown, judged := c, v
	if o.Redact {
		shown, judged = p.Document.Case, p.Document.Verdict
		if again := a.judge(&shown); again.Cause != v.Cause || again.Certainty != v.Certainty {
			return shown, judged, fmt.Errorf("no bundle: without its addresses and names this case is judged as %s, not %s", again.Cause, v.Cause)
		}
	}
	if o.Bundle == "" {
		return shown, judged, nil
	}
	owner := a.owner()
	err = writeFile(o.Bundle, owner, func(w io.Writer) error { return report.WriteBundle(w, p.Bundle) })
	if err == nil && o.Redact {
		err = writeFile(o.Bundle+".map", owner, func(w io.Writer) error { return writeMap(w, p.redactor.Map()) })
	}
	if err != nil {
		err = fmt.Errorf("no bundle: %w", err)
	}
	return shown, judged, err
}

// packed is a bundle, and who redacted it.
type packed struct {
	report.Bundle
	redactor *redact.Redactor // nil: nobody
}

// pack masks secrets, and substitutes the rest where that is asked for.
func pack(d report.Document, texts toolTexts, substitute bool) (packed, error) {
	copied, err := json.Marshal(d) // a deep copy: what is printed stays whole
	if err != nil {
		return packed{}, err
	}
	var p packed
	var failed error
	fill := func(text, input func(string) string) {
		p.Bundle = report.Bundle{Masked: map[string]map[string]int{}, Unread: map[string]string{}}
		if err := json.Unmarshal(copied, &p.Document); err != nil {
			failed = err
		}
		hidden := map[string]int{}
		p.Document.Target.Input = input(redact.Mask(p.Document.Target.Input, hidden))
		redact.Each(&p.Document, func(s string) string { return text(redact.Mask(s, hidden)) })
		p.mask("case.json", hidden)
		for _, f := range texts.files {
			hidden := map[string]int{}
			name := text(f.Name)
			p.Config = append(p.Config, report.File{Name: name, Data: []byte(text(redact.MaskLines(string(f.Data), hidden)))})
			p.mask("config/"+name, hidden)
		}
		for name, why := range texts.unread {
			p.Unread["config/"+text(name)] = text(why)
		}
	}
	same := func(s string) string { return s }
	if !substitute {
		fill(same, same)
		return p, failed
	}
	known := redact.Names(&d.Case)
	known.Users = append(known.Users, people()...)
	p.redactor = redact.Apply(known, func(r *redact.Redactor) { fill(r.Text, r.Input) })
	p.Substituted = p.redactor.Counts()
	return p, failed
}

// people are the users of this host that are no services (login.defs(5): UID_MIN, UID_MAX).
func people() []string {
	data, _ := os.ReadFile("/etc/passwd") // where there is none nobody is known
	var out []string
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(line, ":", 4)
		if len(f) < 4 {
			continue
		}
		if uid, err := strconv.Atoi(f[2]); err == nil && uid >= 1000 && uid <= 60000 {
			out = append(out, f[0])
		}
	}
	return out
}

func (p *packed) mask(name string, hidden map[string]int) {
	if len(hidden) > 0 {
		p.Masked[name] = hidden
	}
}

func writeMap(w io.Writer, m redact.Map) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(m)
}

// owner is who called sudo, or nobody: uid and gid are -1.
type owner struct{ uid, gid int }

func (a *app) owner() owner {
	uid, err1 := strconv.ParseUint(a.getenv("SUDO_UID"), 10, 31)
	gid, err2 := strconv.ParseUint(a.getenv("SUDO_GID"), 10, 31)
	if os.Geteuid() != 0 || err1 != nil || err2 != nil {
		return owner{-1, -1}
	}
	return owner{int(uid), int(gid)}
}

// writeFile writes a file of mode 0600 that appears whole or not at all, and
// belongs to o. It follows no link that stands in its place: root writes here
// where others may.
func writeFile(name string, o owner, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+strings.TrimPrefix(filepath.Base(name), ".")+".*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone when it was renamed
	err = write(f)
	if err == nil && o.uid >= 0 {
		err = f.Chown(o.uid, o.gid)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
