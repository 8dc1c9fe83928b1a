// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// Schema is the JSON Schema (2020-12) of what [JSON] and [ErrorJSON] print.
//
//go:embed schema/pathtrace.schema.json
var Schema string

// Document is what --json prints: the case, and the verdict about it.
type Document struct {
	evidence.Case
	Verdict verdict.Verdict `json:"verdict"`
	// Results of each address, where the target's name has several; the rest is that of the worst.
	Results []Result `json:"results,omitempty"`
	// Recorded is the verdict that Tool gave when it gathered the case, where it is
	// another than JudgedBy gives now; both are nil where it is not.
	Recorded *verdict.Verdict `json:"recorded_verdict,omitempty"`
	JudgedBy *evidence.Tool   `json:"judged_by,omitempty"`
	// Timing says where our own time went: step to nanoseconds, keys end in _ns.
	Timing map[string]int64 `json:"timing,omitempty"`
}

// Result is what came of one address.
type Result struct {
	evidence.Case
	Verdict verdict.Verdict `json:"verdict"`
}

// NewResult joins the case of one address and its verdict, as [NewDocument] does.
func NewResult(c evidence.Case, v verdict.Verdict) Result {
	d := NewDocument(c, v)
	return Result{d.Case, d.Verdict}
}

// NewDocument joins a case and its verdict. Lists that are empty are [] in the
// JSON, never null; c and v are left as they are.
func NewDocument(c evidence.Case, v verdict.Verdict) Document {
	list(&c.Events)
	list(&c.Namespaces)
	list(&c.Unseen)
	list(&c.Host.Missing)
	list(&v.Proof)
	list(&v.Unseen)
	v.Fixes = slices.Clone(v.Fixes)
	list(&v.Fixes)
	for i := range v.Fixes {
		list(&v.Fixes[i].Commands)
		list(&v.Fixes[i].Undo)
	}
	if t := c.Counterfactual; t != nil {
		copied := *t
		list(&copied.Commands)
		list(&copied.Undo)
		c.Counterfactual = &copied
	}
	if v.Where.Rule != nil {
		r := *v.Where.Rule
		list(&r.Path)
		v.Where.Rule = &r
	}
	return Document{Case: c, Verdict: v}
}

func list[T any](s *[]T) {
	if *s == nil {
		*s = []T{}
	}
}

// JSON prints the document, in one write.
func JSON(w io.Writer, d Document) error { return encode(w, d) }

// errorDocument is what --json prints when there is no case to judge.
type errorDocument struct {
	Error errorBody `json:"error"`
}

type errorBody struct {
	Code     string   `json:"code"`
	Message  string   `json:"message"`
	Steps    []string `json:"steps,omitempty"`    // of looking a name up
	Resolver *Result  `json:"resolver,omitempty"` // what became of a question to a name server that did not answer
}

// UnresolvedJSON is ErrorJSON for a name without an address: with the steps that
// were taken, and the trace of the way to its name server, if there is one.
func UnresolvedJSON(w io.Writer, code, message string, steps []string, resolver *Result) error {
	return encode(w, errorDocument{errorBody{Code: code, Message: message, Steps: steps, Resolver: resolver}})
}

// ErrorJSON prints why there is no verdict, in one write. The code is for
// programs and stays as it is; the message is for people.
func ErrorJSON(w io.Writer, code, message string) error {
	return encode(w, errorDocument{errorBody{Code: code, Message: message}})
}

func encode(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // rules and commands are full of < > &
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(visible(b.Bytes()))
	return err
}

// visible writes the characters that steer a terminal, and that JSON lets stand,
// as JSON's own escapes: they can only be within strings.
func visible(b []byte) []byte {
	steers := func(r rune) bool {
		return r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x200e || r == 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
	}
	if !bytes.ContainsFunc(b, steers) {
		return b
	}
	var out bytes.Buffer
	for _, r := range string(b) {
		if steers(r) {
			fmt.Fprintf(&out, "\\u%04x", r)
		} else {
			out.WriteRune(r)
		}
	}
	return out.Bytes()
}
