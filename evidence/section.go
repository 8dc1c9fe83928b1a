// SPDX-License-Identifier: Apache-2.0

package evidence

// Section is a part of the configuration that was, or was not, read.
//
// The zero value means "not read": absence of items proves something only when
// [Section.Read] says so. A section that was read and is empty has a non-nil,
// empty Items, also after a round trip through JSON.
type Section[T any] struct {
	Items   []T    `json:"items"`
	Unread  string `json:"unread,omitempty"`  // why it was not read, or not to its end
	Omitted int    `json:"omitted,omitempty"` // how many were read, and left out because they bear on none of the packets
}

// Have returns a section that was read whole.
func Have[T any](items []T) Section[T] {
	if items == nil {
		items = []T{}
	}
	return Section[T]{Items: items}
}

// Missing returns a section that could not be read, and why.
func Missing[T any](why string) Section[T] { return Section[T]{Unread: why} }

// Read reports whether the section was read to its end.
func (s Section[T]) Read() bool { return s.Items != nil && s.Unread == "" }

// Why says why the section was not read; it is empty when it was.
func (s Section[T]) Why() string {
	switch {
	case s.Read():
		return ""
	case s.Unread == "":
		return "not looked at"
	}
	return s.Unread
}
