// SPDX-License-Identifier: Apache-2.0

package ticket

import "regexp"

// A comment's text is Markdown in which all that is not ours stands in code
// spans. Systems that read another markup would see through these: a rule's
// comment or a banner could then mention people, fetch pictures, or make links.
// There the text is shown as it is written.

var (
	noformat = regexp.MustCompile(`(?i)\{(noformat)`)
	tag      = regexp.MustCompile(`<([A-Za-z/!?])`)
	codeTag  = regexp.MustCompile(`(?i)\[(/?code\])`)
)

// jiraText is for Jira's wiki markup, in which a backtick means nothing. Version
// 3 of the API would take a document, but no Data Center server has it.
func jiraText(text string) string {
	return "{noformat}\n" + noformat.ReplaceAllString(text, "{ $1") + "{noformat}\n"
}

// redmineText is for both of Redmine's markups, Textile and CommonMark: which one a server uses it does not tell.
func redmineText(text string) string {
	return "<pre>\n" + tag.ReplaceAllString(text, "< $1") + "</pre>\n"
}

// journalText is for ServiceNow's journal fields: plain, but for HTML between [code] and [/code].
func journalText(text string) string { return codeTag.ReplaceAllString(text, "[ $1") }
