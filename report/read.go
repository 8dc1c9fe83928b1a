// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/verdict"
)

// MaxCase is the largest case that [ReadCase] takes, in bytes.
const MaxCase = 64 << 20

// Saved is what was saved of a trace. The caller judges it anew: see [Saved.Document].
type Saved struct {
	evidence.Case
	Others []evidence.Case // of the target's other addresses
	// Verdict is the one that was given when the case was gathered; nil: it is
	// not there, or not understood. It is never believed, only compared.
	Verdict *verdict.Verdict
}

// ReadCase reads what --json printed, or a case.json. Keys it does not know are
// ignored. A case of another major format version is refused. Errors are one line.
func ReadCase(r io.Reader) (Saved, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxCase+1))
	if err != nil {
		return Saved{}, err
	}
	if len(data) > MaxCase {
		return Saved{}, fmt.Errorf("not a case: larger than %d MiB", MaxCase>>20)
	}
	c, err := parseCase(data)
	if err != nil {
		return Saved{}, err
	}
	data = bytes.TrimPrefix(data, []byte(byteOrderMark))
	others, err := parseResults(data, &c)
	if err != nil {
		return Saved{}, err
	}
	var told struct {
		Verdict  *verdict.Verdict `json:"verdict"`
		Recorded *verdict.Verdict `json:"recorded_verdict"` // was judged anew before
	}
	if json.Unmarshal(data, &told) != nil {
		told.Verdict, told.Recorded = nil, nil
	}
	if told.Recorded != nil {
		told.Verdict = told.Recorded
	}
	return Saved{Case: c, Others: others, Verdict: told.Verdict}, nil
}

// parseResults returns the cases of the other addresses than that of c.
func parseResults(data []byte, c *evidence.Case) ([]evidence.Case, error) {
	var d struct{ Results []json.RawMessage }
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, broken(data, err)
	}
	var others []evidence.Case
	own := false
	for _, raw := range d.Results {
		other, err := parseCase(raw)
		if err != nil { // format 1.0 began with results that were not whole
			return nil, nil
		}
		if !own && other.Target.Address == c.Target.Address {
			own = true
			continue
		}
		others = append(others, other)
	}
	return others, nil
}

// Document judges what was saved, by is who does. Where the verdict that was
// given at first says something else the document has that too.
func (s *Saved) Document(judge func(*evidence.Case) verdict.Verdict, by evidence.Tool) Document {
	d := NewDocument(s.Case, judge(&s.Case))
	if s.Verdict != nil && !sameVerdict(*s.Verdict, d.Verdict) {
		was := NewDocument(evidence.Case{}, *s.Verdict).Verdict
		d.Recorded, d.JudgedBy = &was, &by
	}
	if len(s.Others) == 0 {
		return d
	}
	d.Results = append(d.Results, NewResult(d.Case, d.Verdict))
	for i := range s.Others {
		c := s.Others[i]
		d.Results = append(d.Results, NewResult(c, judge(&c)))
	}
	return d
}

// sameVerdict compares what verdicts claim, not their wording.
func sameVerdict(a, b verdict.Verdict) bool {
	claim := func(v verdict.Verdict) string {
		v = NewDocument(evidence.Case{}, v).Verdict
		where, _ := json.Marshal(v.Where) // of strings and numbers
		return fmt.Sprint(v.Cause, " ", v.Certainty, " ", v.Direction, " ", string(where))
	}
	return claim(a) == claim(b)
}

const byteOrderMark = "\xef\xbb\xbf"

func parseCase(data []byte) (evidence.Case, error) {
	// Other tools put a byte order mark before JSON; ours does not.
	data = bytes.TrimPrefix(data, []byte(byteOrderMark))
	if err := identify(data); err != nil {
		return evidence.Case{}, err
	}
	var c evidence.Case
	if err := json.Unmarshal(data, &c); err != nil {
		return evidence.Case{}, broken(data, err)
	}
	list(&c.Events)
	list(&c.Namespaces)
	list(&c.Unseen)
	list(&c.Host.Missing)
	return c, nil
}

// identify tells what data is before its content is looked at, so that a
// stranger's file is not complained about field by field.
func identify(data []byte) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return errors.New("not a case: empty")
	}
	var head struct {
		FormatVersion *string `json:"format_version"`
		Error         *struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return broken(data, err)
	}
	switch {
	case head.FormatVersion == nil && head.Error != nil:
		return fmt.Errorf("no case in it, only the error of a run that could not trace: %s",
			short(Clean(head.Error.Message), 200))
	case head.FormatVersion == nil:
		return errors.New("not a case: no format_version")
	}
	theirs, _, _ := strings.Cut(*head.FormatVersion, ".")
	ours, _, _ := strings.Cut(evidence.FormatVersion, ".")
	if theirs != ours {
		return fmt.Errorf("format version %s is not understood here: this pathtrace reads %s.x",
			short(Clean(*head.FormatVersion), 20), ours)
	}
	return nil
}

func broken(data []byte, err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		if int(syntax.Offset) >= len(data) {
			return errors.New("not a case: the JSON ends too early")
		}
		line := 1 + bytes.Count(data[:syntax.Offset], []byte("\n"))
		return fmt.Errorf("not a case: line %d is not JSON: %s", line, Clean(syntax.Error()))
	case errors.As(err, &kind) && kind.Field == "":
		return fmt.Errorf("not a case: %s where an object belongs", Clean(kind.Value))
	case errors.As(err, &kind):
		return fmt.Errorf("not a case: %s cannot be a %s", short(Clean(kind.Field), 100), Clean(kind.Value))
	}
	return fmt.Errorf("not a case: %s", short(Clean(err.Error()), 200))
}
