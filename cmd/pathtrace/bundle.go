// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
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

	"github.com/pathtrace/pathtrace/report"
	"github.com/pathtrace/pathtrace/report/redact"
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

// save redacts the results and writes the worst of them, as far as that was
// asked for. It returns what may be shown: with --redact nothing else is.
func (a *app) save(ctx context.Context, results []result, o Options) ([]result, error) {
	packing := o.Bundle != "" || o.Attach != nil
	if !packing && !o.Redact && o.Export == nil {
		return results, nil
	}
	done := slowly(a.progress(o), "reading and packing what was seen")
	defer done()
	at := worst(results)
	var texts toolTexts
	if packing && a.config != nil {
		// What was seen is worth saving also when the user has lost patience.
		texts = a.config(context.WithoutCancel(ctx), &results[at].c)
	}
	small, leftOut := results, []string(nil)
	if packing {
		small, leftOut = a.trim(results)
	}
	p, err := pack(small, at, texts, o.Redact)
	if err != nil {
		return nil, fmt.Errorf("no bundle: %w", err)
	}
	p.LeftOut = leftOut
	for _, what := range leftOut {
		fmt.Fprintln(a.stderr, "pathtrace: left out of the bundle, which would be too large: "+report.Clean(what))
	}
	if o.Redact {
		for i, r := range p.results {
			if again := a.judge(&r.c); again.Cause != results[i].v.Cause || again.Certainty != results[i].v.Certainty {
				return p.results, fmt.Errorf("no bundle: without its addresses and names this case is judged as %s, not %s", again.Cause, results[i].v.Cause)
			}
		}
		results = p.results
	}
	a.export(ctx, p.results, o)
	if !packing {
		return results, nil
	}
	var bundle bytes.Buffer
	if err := report.WriteBundle(&bundle, p.Bundle); err != nil {
		return results, fmt.Errorf("no bundle: %w", err)
	}
	done()
	return results, errors.Join(a.keep(p, bundle.Bytes(), o), attach(ctx, bundle.Bytes(), o))
}

// trim returns the results as they fit into a bundle together.
func (a *app) trim(results []result) (small []result, leftOut []string) {
	for _, r := range results {
		c, gone := report.Trim(r.c, r.v, len(results), a.judge)
		if len(gone) > 0 {
			leftOut = append(leftOut, fmt.Sprintf("of %s: %s", c.Target.Address, strings.Join(gone, ", ")))
		}
		small = append(small, result{c, r.v})
	}
	return small, leftOut
}

// export sends the probes to a collector. That this fails is said, and changes nothing.
func (a *app) export(ctx context.Context, masked []result, o Options) {
	if o.Export == nil {
		return
	}
	docs := make([]report.Document, 0, len(masked))
	for _, r := range masked {
		docs = append(docs, report.NewDocument(r.c, r.v))
	}
	done := slowly(a.progress(o), "sending the trace")
	err := o.Export(ctx, docs)
	done()
	if err != nil {
		fmt.Fprintln(a.stderr, "pathtrace: "+report.Clean(strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
}

// keep writes the bundle, and beside it the map of what was substituted.
func (a *app) keep(p packed, bundle []byte, o Options) error {
	if o.Bundle == "" {
		return nil
	}
	owner := a.owner()
	err := writeFile(o.Bundle, owner, func(w io.Writer) error { _, err := w.Write(bundle); return err })
	if err == nil && o.Redact {
		err = writeFile(o.Bundle+".map", owner, func(w io.Writer) error { return writeMap(w, p.redactor.Map()) })
	}
	if err != nil {
		return fmt.Errorf("no bundle: %w", err)
	}
	return nil
}

func attach(ctx context.Context, bundle []byte, o Options) error {
	if o.Attach == nil {
		return nil
	}
	return o.Attach(ctx, bundle)
}

// packed is a bundle, and who redacted it.
type packed struct {
	report.Bundle
	results  []result         // masked, and redacted where that was asked for
	redactor *redact.Redactor // nil: nobody
}

// pack masks secrets, and substitutes the rest where that is asked for. The
// bundle is about results[at].
func pack(results []result, at int, texts toolTexts, substitute bool) (packed, error) {
	docs := make([]report.Document, 0, len(results))
	for _, r := range results {
		docs = append(docs, report.NewDocument(r.c, r.v))
	}
	whole, err := json.Marshal(docs) // for deep copies: what is printed stays whole
	if err != nil {
		return packed{}, err
	}
	var p packed
	var failed error
	fill := func(r *redact.Redactor) {
		p = packed{Bundle: report.Bundle{Masked: map[string]map[string]int{}, Unread: map[string]string{}}}
		var copied []report.Document
		if err := json.Unmarshal(whole, &copied); err != nil {
			failed = err
			return
		}
		for i := range copied {
			hidden := map[string]int{}
			redact.Each(&copied[i], func(s string) string { return redact.Mask(s, hidden) })
			r.Document(&copied[i])
			copied[i].Target.Input = r.Input(redact.Mask(copied[i].Target.Input, hidden))
			p.mask(caseName(i, at), hidden)
			p.results = append(p.results, result{copied[i].Case, copied[i].Verdict})
			if i != at {
				p.Others = append(p.Others, copied[i].Case)
			}
		}
		p.Document = document(p.results, at)
		p.config(texts, r)
	}
	if !substitute {
		fill(nil)
		return p, failed
	}
	known := redact.Known{Users: people()}
	for i := range results {
		k := redact.Names(&results[i].c)
		known.Hosts, known.Users = append(known.Hosts, k.Hosts...), append(known.Users, k.Users...)
	}
	r := redact.Apply(known, fill)
	p.redactor, p.Substituted = r, r.Counts()
	return p, failed
}

// config adds what the tools printed.
func (p *packed) config(texts toolTexts, r *redact.Redactor) {
	for _, f := range texts.files {
		hidden := map[string]int{}
		name := r.Text(f.Name)
		p.Config = append(p.Config, report.File{Name: name, Data: []byte(r.Text(redact.MaskLines(string(f.Data), hidden)))})
		p.mask("config/"+name, hidden)
	}
	for name, why := range texts.unread {
		p.Unread["config/"+r.Text(name)] = r.Text(why)
	}
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

// caseName is what [report.WriteBundle] calls the case of results[i], of which results[at] is the bundle's own.
func caseName(i, at int) string {
	switch {
	case i == at:
		return "case.json"
	case i < at:
		return report.OtherCase(i)
	}
	return report.OtherCase(i - 1)
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
