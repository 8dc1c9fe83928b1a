// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/pathtrace/pathtrace/evidence"
)

var (
	errLong = errors.New("a line is longer than the protocol allows")
	errMany = errors.New("a line holds more than the protocol allows")
)

// readLine reads up to a line feed, which it leaves out, and at most limit bytes.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, errLong
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// measure refuses JSON that would become far larger in memory than it is on
// the wire: an element of a list takes two bytes there.
func measure(line []byte) error {
	var lists [maxDepth]bool // whether the container of that depth is a list
	depth, elements, quoted := 0, 0, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth == maxDepth {
				return errMany
			}
			lists[depth] = c == '['
			depth++
			elements++
		case c == ']' || c == '}':
			depth = max(0, depth-1)
		case c == ',' && depth > 0 && lists[depth-1]:
			elements++
		}
		if elements > maxElements {
			return errMany
		}
	}
	return nil
}

// decode reads one message from a line.
func decode(line []byte, m any) error {
	if err := measure(line); err != nil {
		return err
	}
	if err := json.Unmarshal(line, m); err != nil {
		return fmt.Errorf("a line is no message of the protocol: %w", err)
	}
	return nil
}

// UnmarshalJSON reads a case whose namespaces, which are large, are counted before they are made.
func (c *Case) UnmarshalJSON(b []byte) error {
	var envelope struct {
		evidence.Case
		Start      int64             `json:"start_ns"`
		Namespaces []json.RawMessage `json:"namespaces"`
	}
	if err := json.Unmarshal(b, &envelope); err != nil {
		return err
	}
	if len(envelope.Namespaces) > maxNamespaces || len(envelope.Events) > maxEvents {
		return errMany
	}
	c.Case, c.Start = envelope.Case, envelope.Start
	c.Namespaces = make([]evidence.Namespace, len(envelope.Namespaces))
	for i, n := range envelope.Namespaces {
		if err := json.Unmarshal(n, &c.Namespaces[i]); err != nil {
			return err
		}
	}
	return nil
}
