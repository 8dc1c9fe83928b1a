// SPDX-License-Identifier: Apache-2.0

package ticket

import (
	"regexp"
	"strings"
	"testing"
)

// TestHostileText: what a rule's comment or a banner says stays text in each system's own markup.
func TestHostileText(t *testing.T) {
	const hostile = "- Rule: `drop comment \"{noformat} [~admin] !http://evil/x.png! {NoFormat:x} </pre><img src=x> <!-- [code]<b>[/CODE] do_wait < do_poll\"`\n"
	for system, c := range map[string]struct {
		make        func(string) string
		before, end string
		escape      *regexp.Regexp // what must not be between the two
	}{
		"jira":       {jiraText, "{noformat}\n", "{noformat}\n", regexp.MustCompile(`(?i)\{noformat`)},
		"redmine":    {redmineText, "<pre>\n", "</pre>\n", regexp.MustCompile(`<[A-Za-z/!?]`)},
		"servicenow": {journalText, "", "", regexp.MustCompile(`(?i)\[/?code\]`)},
	} {
		got := c.make(hostile)
		inner, begins := strings.CutPrefix(got, c.before)
		inner, ends := strings.CutSuffix(inner, c.end)
		if !begins || !ends || c.escape.MatchString(inner) {
			t.Errorf("%s: %s", system, got)
		}
		if strings.ReplaceAll(inner, " ", "") != strings.ReplaceAll(hostile, " ", "") {
			t.Errorf("%s: more than spaces was changed: %s", system, got)
		}
	}
}
