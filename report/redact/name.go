// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"slices"
	"strings"
)

// nameAt substitutes a name of a host with its domain, a user before an @, or a known name.
func (r *Redactor) nameAt(s string, i int) (int, string) {
	j := i
	for j < len(s) && (alnum(s[j]) || s[j] == '-' || s[j] == '_' || s[j] == '.') {
		j++
	}
	token := strings.TrimRight(s[i:j], ".-")
	j = i + len(token)
	begins := i == 0 || !strings.ContainsRune(".-_", rune(s[i-1]))
	if begins && j < len(s) && s[j] == '@' && (strings.HasSuffix(s[:i], "://") || qualified(wordAt(s, j+1))) {
		return len(token), r.User(token)
	}
	if begins && (qualified(token) || r.below(token)) {
		return len(token), r.Host(token)
	}
	return r.knownAt(s, i)
}

// below reports whether s is a name in the domain of a known host.
func (r *Redactor) below(s string) bool {
	return slices.ContainsFunc(r.domains, func(d string) bool { return strings.HasSuffix(strings.ToLower(s), d) })
}

// knownAt finds the longest known name at s[i] that ends with a word.
func (r *Redactor) knownAt(s string, i int) (int, string) {
	for _, k := range r.known {
		n := len(k.text)
		if i+n > len(s) || !strings.EqualFold(s[i:i+n], k.text) || i+n < len(s) && alnum(s[i+n]) {
			continue
		}
		if k.user {
			return n, r.User(s[i : i+n])
		}
		return n, r.Host(s[i : i+n])
	}
	return 0, ""
}

func wordAt(s string, i int) string {
	j := i
	for j < len(s) && (alnum(s[j]) || s[j] == '-' || s[j] == '.') {
		j++
	}
	return strings.TrimRight(s[i:j], ".-")
}

// topLevel are the last labels by which a dotted word is taken for a host's
// name. Two letters are a country.
var topLevel = words(`com org net edu gov mil int info biz io dev app cloud site online tech systems network host eu
	local localnet lan home internal intern intra intranet corp private priv arpa example test invalid localdomain`)

// notTop are endings of two letters that are files.
var notTop = words(`so sh py pl rb rs js ts go md cc gz xz db rc id ko`)

// qualified reports whether s has the form of a host's name with its domain
// (RFC 1123). Names of sysctls, units and files have not.
func qualified(s string) bool {
	labels := strings.Split(strings.ToLower(s), ".")
	if len(labels) < 2 || len(s) > 253 {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || strings.Contains(l, "_") || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
	}
	switch labels[0] {
	case "net", "kernel", "vm", "fs", "user", "dev": // sysctl(8)
		if len(labels) > 2 {
			return false
		}
	}
	top := labels[len(labels)-1]
	if topLevel[top] {
		return true
	}
	return len(top) == 2 && letter(top[0]) && letter(top[1]) && !notTop[top] && len(labels) > 1
}
