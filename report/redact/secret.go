// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"regexp"
	"strings"
)

// Hidden stands for a secret.
const Hidden = "***HIDDEN***"

type secret struct {
	kind string
	// hints: one of these is in every match, in lower case. Looking for it is cheap.
	hints []string
	form  *regexp.Regexp // group 1 stays, the rest of the match is hidden
}

var secrets = []secret{
	{"private key", []string{"private key-----"},
		regexp.MustCompile(`(-----BEGIN [A-Z ]*PRIVATE KEY-----)(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|$)`)},
	{"authorization", []string{"authorization"},
		regexp.MustCompile(`(?i)(authorization["']?\s*[:=]\s*["']?(?:(?:basic|bearer|token|digest|negotiate)\s+)?)[^\s"']+`)},
	{"cookie", []string{"cookie"},
		regexp.MustCompile(`(?i)(\b(?:set-)?cookie["']?\s*[:=]\s*)[^\r\n"'\\]+`)},
	{"spoken password", []string{"pass ", "auth", "login "}, // FTP and POP; SMTP, Redis; IMAP
		regexp.MustCompile(`((?:^|[\r\n"]|\\n)(?:PASS|AUTH(?: (?:PLAIN|LOGIN|XOAUTH2))?|\w{0,4}\d+ (?:LOGIN|AUTHENTICATE \S+)) )[^\r\n"'\\]+`)},
	{"password in a URL", []string{"://"},
		regexp.MustCompile(`(://[^/\s:@"']*:)[^/\s@"']+@`)},
	{"named secret", []string{"passw", "passphrase", "pwd", "secret", "token", "api_key", "apikey", "api-key", "access_key", "access-key",
		"private_key", "private-key", "credential", "fastopen_key", "psk"},
		regexp.MustCompile(`(?i)([\w.\-]*(?:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?|fastopen_key|\bpsk)[\w.\-]*["'\\]*\s*[=:]\s*|--?(?:password|passwd|token|secret|api-key)\s+)(?:\\?"[^"]*"|'[^']*'|[^\s"'&,;\\]+)`)},
	{"token", []string{"akia", "ghp_", "gho_", "ghs_", "ghu_", "ghr_", "github_pat_", "glpat-", "xox", "eyj", "aiza", "hvs.", "sk-"},
		regexp.MustCompile(`()\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}|xox[abprs]-[\w-]{10,}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*|AIza[\w-]{35}|hvs\.[\w-]{20,}|sk-[\w-]{20,})`)},
}

// Mask hides secrets in s, by the form they have or by the name before them.
// It counts in hidden, by kind.
func Mask(s string, hidden map[string]int) string {
	low := strings.ToLower(s)
	for _, x := range secrets {
		found := false
		for _, h := range x.hints {
			found = found || strings.Contains(low, h)
		}
		if !found {
			continue
		}
		s = x.form.ReplaceAllStringFunc(s, func(m string) string {
			keep := x.form.FindStringSubmatch(m)[1]
			rest := m[len(keep):]
			if strings.Contains(rest, Hidden) {
				return m
			}
			hidden[x.kind]++
			if x.kind == "password in a URL" {
				return keep + Hidden + "@"
			}
			return keep + Hidden
		})
	}
	return s
}

// MaskLines is [Mask] for what a tool printed: lines without a hint are not looked at twice.
func MaskLines(s string, hidden map[string]int) string {
	if strings.Contains(s, "PRIVATE KEY-----") { // the only one of more than one line
		s = Mask(s, hidden)
	}
	var b strings.Builder
	b.Grow(len(s))
	for line := range strings.Lines(s) {
		b.WriteString(Mask(line, hidden))
	}
	return b.String()
}
