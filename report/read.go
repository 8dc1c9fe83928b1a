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
)

// MaxCase is the largest case that [ReadCase] takes, in bytes.
const MaxCase = 64 << 20

// ReadCase reads what --json printed, or a case.json; of several addresses it
// takes that of the worst. Keys it does not know are
// ignored, and so is a verdict: the caller judges anew. A case of another
// major format version is refused. Errors are one line.
func ReadCase(r io.Reader) (evidence.Case, error) {
	data, err := readAll(r)
	if err != nil {
		return evidence.Case{}, err
	}
	return parseCase(data)
}

// ReadCases is [ReadCase] for each address of what --json printed, in its order.
func ReadCases(r io.Reader) ([]evidence.Case, error) {
	data, err := readAll(r)
	if err != nil {
		return nil, err
	}
	worst, err := parseCase(data)
	if err != nil {
		return nil, err
	}
	var d struct{ Results []json.RawMessage }
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, broken(data, err)
	}
	var all []evidence.Case
	for _, raw := range d.Results {
		c, err := parseCase(raw)
		if err != nil { // format 1.0 began with results that were not whole
			return []evidence.Case{worst}, nil
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		all = append(all, worst)
	}
	return all, nil
}

func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxCase+1))
	if err == nil && len(data) > MaxCase {
		err = fmt.Errorf("not a case: larger than %d MiB", MaxCase>>20)
	}
	return data, err
}

func parseCase(data []byte) (evidence.Case, error) {
	// Other tools put a byte order mark before JSON; ours does not.
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
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
