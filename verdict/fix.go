// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"regexp"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

var (
	plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:=@%+,-]+$`)
	caseID    = regexp.MustCompile(`^[0-9a-f]{4,16}$`)
)

// quote makes s one word for the shell.
func quote(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// shell makes a command of words, to be run in the namespace n.
func shell(n *evidence.Namespace, words ...string) string {
	var all []string
	for _, w := range n.Enter {
		all = append(all, quote(w))
	}
	for _, w := range words {
		all = append(all, quote(w))
	}
	return strings.Join(all, " ")
}

// mark is the comment that tells our own changes from all others; empty when the case has no usable identifier.
func mark(c *evidence.Case) string {
	if !caseID.MatchString(c.ID) {
		return ""
	}
	return "pathtrace-" + c.ID
}

// setSysctl is a change of settings and its exact undo; nil unless every old value was read.
func setSysctl(n *evidence.Namespace, summary, value string, names ...string) []Fix {
	if n == nil {
		return nil
	}
	f := Fix{Summary: summary, Netns: n.Name}
	for _, key := range names {
		old, ok := sysctl(n, key)
		if !ok {
			return nil
		}
		if old == value {
			continue
		}
		f.Commands = append(f.Commands, shell(n, "sysctl", "-qw", key+"="+value))
		f.Undo = append(f.Undo, shell(n, "sysctl", "-qw", key+"="+old))
	}
	if len(f.Commands) == 0 {
		return nil
	}
	return []Fix{f}
}
