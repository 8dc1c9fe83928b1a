// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// nftListing is a chain as "nft -s -a list chain" prints it.
type nftListing struct {
	declaration string // "type filter hook input priority filter; policy drop;", "" unless a base chain
	handles     []uint64
	texts       []string
}

// parseNFTListing reads the output of "nft -a list chain" for a chain that
// has rules with these handles, in this order. A rule may go over several
// lines (sets and maps with many elements): it ends with the line that ends
// with its handle. That the handle must be the next one keeps a quoted text
// that looks like one from being taken for it.
func parseNFTListing(out, chain string, handles []uint64) (nftListing, error) {
	var l nftListing
	lines := strings.Split(out, "\n")
	at := slices.IndexFunc(lines, func(line string) bool { return isChainHead(line, chain) })
	if at < 0 {
		return l, fmt.Errorf("nft did not list chain %s", chain)
	}
	var rule []string
	for _, line := range lines[at+1:] {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if len(rule) == 0 && line == "}" {
			break
		}
		if len(rule) == 0 && len(l.handles) == 0 && l.declaration == "" && isDeclaration(line) {
			l.declaration = declaration(line)
			continue
		}
		if len(rule) == 0 && len(l.handles) == 0 && strings.HasPrefix(line, `comment "`) && !endsRule(line, handles, 0) {
			continue // of the chain
		}
		rule = append(rule, line)
		if !endsRule(line, handles, len(l.handles)) {
			continue
		}
		text := strings.Join(rule, " ")
		text = text[:strings.LastIndex(text, " # handle ")]
		l.texts, l.handles = append(l.texts, text), append(l.handles, handles[len(l.handles)])
		rule = nil
	}
	if len(rule) > 0 || !slices.Equal(l.handles, handles) {
		return l, fmt.Errorf("nft lists other rules than the kernel (%d of %d could be matched)", len(l.handles), len(handles))
	}
	return l, nil
}

func isChainHead(line, chain string) bool {
	line = strings.TrimSpace(line)
	if i := strings.Index(line, " # handle "); i >= 0 {
		line = line[:i]
	}
	return line == "chain "+chain+" {" || line == "chain "+strconv.Quote(chain)+" {"
}

func isDeclaration(line string) bool {
	return strings.HasPrefix(line, "type ") && strings.Contains(line, " hook ") && strings.Contains(line, "priority ")
}

// declaration drops a chain's comment, which newer versions print behind it.
func declaration(line string) string {
	if i := strings.Index(line, ` comment "`); i >= 0 {
		line = line[:i]
	}
	return line
}

// endsRule reports whether line ends with the handle that is due.
func endsRule(line string, handles []uint64, done int) bool {
	i := strings.LastIndex(line, " # handle ")
	if i < 0 || done >= len(handles) {
		return false
	}
	handle, err := strconv.ParseUint(line[i+len(" # handle "):], 10, 64)
	return err == nil && handle == handles[done]
}
