// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

func compile(t *testing.T, change func(any)) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(Schema))
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(doc)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("urn:pathtrace:report:1", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("urn:pathtrace:report:1")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// closed forbids every key that the schema does not name. The published schema
// lets them pass, since minor versions add keys; ours must know its own.
func closed(v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if k != "if" && k != "then" && k != "else" {
				closed(x)
			}
		}
		if p, ok := v["properties"].(map[string]any); ok && v["type"] == "object" && v["additionalProperties"] == nil && len(p) > 0 {
			v["additionalProperties"] = false
		}
	case []any:
		for _, x := range v {
			closed(x)
		}
	}
}

func validate(s *jsonschema.Schema, data []byte) error {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

func TestGoldensFitTheSchema(t *testing.T) {
	open, strict := compile(t, nil), compile(t, closed)
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) != len(stories) {
		t.Fatalf("%d goldens for %d stories, %v", len(files), len(stories), err)
	}
	for _, name := range files {
		if strings.Contains(name, "hostile") {
			continue // no kernel hands over such a hook
		}
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []*jsonschema.Schema{open, strict} {
			if err := validate(s, data); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestSchemaKnowsEveryKey fills each field of the types, so that a new one
// cannot be forgotten in the schema.
func TestSchemaKnowsEveryKey(t *testing.T) {
	var d Document
	fill(reflect.ValueOf(&d).Elem(), "")
	d.FormatVersion, d.Results[0].FormatVersion = evidence.FormatVersion, evidence.FormatVersion
	d.Verdict.Where.Rule.Number, d.Verdict.Where.Rule.Handle = 1, 1
	data, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(compile(t, closed), data); err != nil {
		t.Error(err)
	}
}

// enums are the values for fields that take only some.
var enums = map[string]string{
	"hook": "INPUT", "direction": "reply", "kind": "drop", "verdict": "drop", "backend": "nft", "family": "ip", "outcome": "refused", "errno": "EPERM",
	"answer": "rst", "reply": "ok", "protocol": "tcp", "hooks": "kprobe", "cause": "no-route", "certainty": "observed", "type": "nft",
	"scope": "netns", "port_state": "blocking", "by": "kprobe",
}

func fill(v reflect.Value, name string) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), name)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(0, 1)))
			return
		}
		for i := range v.NumField() {
			tag, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			if v.Field(i).CanSet() && tag != "-" {
				fill(v.Field(i), tag)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), name)
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]int64{"attach_ns": 1}))
	case reflect.String:
		s := "x"
		if e, ok := enums[name]; ok {
			s = e
		}
		v.SetString(s)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(4)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(4)
	}
}

// TestSchemaKnowsEveryWord compares the schema's lists with the constants and causes of the code.
func TestSchemaKnowsEveryWord(t *testing.T) {
	var s struct {
		Defs struct {
			Document, Event, Probe, Verdict struct {
				Properties map[string]struct{ Enum []string }
			}
			Hook struct{ Enum []string }
		} `json:"$defs"`
	}
	if err := json.Unmarshal([]byte(Schema), &s); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, list := range [][]string{s.Defs.Event.Properties["kind"].Enum, s.Defs.Event.Properties["direction"].Enum, s.Defs.Probe.Properties["outcome"].Enum,
		s.Defs.Verdict.Properties["certainty"].Enum, s.Defs.Document.Properties["scope"].Enum, s.Defs.Hook.Enum} {
		for _, w := range list {
			known[w] = true
		}
	}
	words := constants(t, "../evidence/event.go", "../evidence/case.go", "../verdict/verdict.go")
	if len(words) < 30 {
		t.Fatalf("only %d constants found", len(words))
	}
	for _, w := range words {
		if !known[w] && w != evidence.FormatVersion {
			t.Errorf("%q is not in the schema", w)
		}
	}
}

func constants(t *testing.T, files ...string) []string {
	t.Helper()
	var out []string
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if d, ok := n.(*ast.GenDecl); ok && d.Tok != token.CONST {
				return false
			}
			if s, ok := n.(*ast.ValueSpec); ok {
				for _, v := range s.Values {
					if l, ok := v.(*ast.BasicLit); ok && l.Kind == token.STRING {
						w, _ := strconv.Unquote(l.Value)
						out = append(out, w)
					}
				}
			}
			return true
		})
	}
	return out
}

// TestSchemaCanFail changes one thing at a time in a document that fits.
func TestSchemaCanFail(t *testing.T) {
	s := compile(t, nil)
	for name, spoil := range map[string]func(d *Document){
		"unknown cause":               func(d *Document) { d.Verdict.Cause = "gremlins" },
		"unknown certainty":           func(d *Document) { d.Verdict.Certainty = "perhaps" },
		"a cause that is not certain": func(d *Document) { d.Verdict.Certainty = verdict.None },
		"unexplained, but observed":   func(d *Document) { d.Verdict.Cause = "unexplained" },
		"no rule":                     func(d *Document) { d.Verdict.Where.Rule = nil },
		"no namespace":                func(d *Document) { d.Verdict.Where.Netns = "" },
		"unknown hook":                func(d *Document) { d.Verdict.Where.Hook = "input" },
		"a summary of two lines":      func(d *Document) { d.Verdict.Summary = "a\nb" },
		"null for a list":             func(d *Document) { d.Verdict.Proof = nil },
		"null for the events":         func(d *Document) { d.Events = nil },
		"unknown outcome":             func(d *Document) { d.Probe.Outcome = "meh" },
		"unknown kind":                func(d *Document) { d.Events[0].Kind = "seen" },
		"another major version":       func(d *Document) { d.FormatVersion = "2.0" },
		"port 70000":                  func(d *Document) { d.Target.Port = 70000 },
		"a policy with a number":      func(d *Document) { d.Verdict.Cause = "firewall-policy" },
		"a rule numbered from 0":      func(d *Document) { d.Verdict.Where.Rule.Number = -1 },
		"errno as a sentence":         func(d *Document) { d.Probe.Errno = "connection refused" },
	} {
		c := nftDrop()
		d := NewDocument(c.c, c.v)
		rule := *d.Verdict.Where.Rule
		d.Verdict.Where.Rule = &rule
		if err := validate(s, marshal(t, d)); err != nil {
			t.Fatal(err)
		}
		spoil(&d)
		if validate(s, marshal(t, d)) == nil {
			t.Errorf("%s: the schema lets it pass", name)
		}
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestErrorJSON(t *testing.T) {
	var b bytes.Buffer
	if err := ErrorJSON(&b, "no-btf", "this kernel has no BTF <here>"); err != nil {
		t.Fatal(err)
	}
	if err := validate(compile(t, nil), b.Bytes()); err != nil {
		t.Error(err)
	}
	if !strings.Contains(b.String(), "<here>") {
		t.Errorf("got %s", b.String())
	}
}
