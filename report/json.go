// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	_ "embed"
	"encoding/json"
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
	// Timing says where our own time went: step to nanoseconds, keys end in _ns.
	Timing map[string]int64 `json:"timing,omitempty"`
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
	Code    string `json:"code"`
	Message string `json:"message"`
}

// ErrorJSON prints why there is no verdict, in one write. The code is for
// programs and stays as it is; the message is for people.
func ErrorJSON(w io.Writer, code, message string) error {
	return encode(w, errorDocument{errorBody{code, message}})
}

func encode(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // rules and commands are full of < > &
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}
