// SPDX-License-Identifier: Apache-2.0

package libwrap

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// Where the tables are, unless the server was built otherwise.
const (
	AllowPath = "/etc/hosts.allow"
	DenyPath  = "/etc/hosts.deny"
)

// Table is one of the two files of hosts_access(5).
type Table struct {
	Path string // as the server names it
	Data []byte
	// Err says why we could not read it. [fs.ErrNotExist] and EISDIR are an
	// empty file, as they are to libwrap; any other leaves the decision open.
	Err error
	// Refused says that the server itself may not open the file, which is not
	// the same as that there is none.
	Refused bool
}

// empty says that the server reads nothing from the table.
func (t Table) empty() bool {
	return errors.Is(t.Err, fs.ErrNotExist) || errors.Is(t.Err, syscall.EISDIR)
}

// Tables are what a server decides by.
type Tables struct {
	Allow, Deny Table
	// Open reads a file by the path that it has for the server: those which
	// patterns name, and /etc/passwd and /etc/group. May be nil.
	Open func(path string) ([]byte, error)
}

// NewTables makes tables of their text; nil is a file that does not exist.
func NewTables(allow, deny []byte, open func(path string) ([]byte, error)) Tables {
	t := Tables{Allow: Table{Path: AllowPath, Data: allow}, Deny: Table{Path: DenyPath, Data: deny}, Open: open}
	for _, p := range []*Table{&t.Allow, &t.Deny} {
		if p.Data == nil {
			p.Err = fs.ErrNotExist
		}
	}
	return t
}

// ReadTables reads /etc/hosts.allow and /etc/hosts.deny with open; see [Root].
func ReadTables(open func(path string) ([]byte, error)) Tables {
	t := Tables{Allow: Table{Path: AllowPath}, Deny: Table{Path: DenyPath}, Open: open}
	t.Allow.Data, t.Allow.Err = open(AllowPath)
	t.Deny.Data, t.Deny.Err = open(DenyPath)
	return t
}

// Warning is something that libwrap complains about, or that it does not do as it reads.
type Warning struct {
	File    string // empty where libwrap logs none
	Line    int    // from 1
	Text    string
	Message string
	Fatal   bool // libwrap denies access on the spot
}

// String is the warning as libwrap logs it.
func (w Warning) String() string {
	kind := "warning"
	if w.Fatal {
		kind = "error"
	}
	if w.File == "" {
		return kind + ": " + w.Message
	}
	return fmt.Sprintf("%s: %s, line %d: %s", kind, w.File, w.Line, w.Message)
}
