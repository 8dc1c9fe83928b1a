// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// iptablesSave is one chain as iptables-save prints it.
type iptablesSave struct {
	found  bool
	policy string         // "-P INPUT DROP"; empty for a chain of the user
	total  int            // rules
	rules  map[int]string // the lines "-A CHAIN …" that were wanted, by number
}

// saveReader reads one chain from the lines of "iptables-save -t TABLE".
type saveReader struct {
	iptablesSave
	chain        string
	want         func(number int) bool
	incompatible bool // the tool cannot read the table
}

func (s *saveReader) take(line string) {
	switch {
	case strings.HasPrefix(line, ":"):
		rest, ok := strings.CutPrefix(line[1:], s.chain+" ")
		if !ok {
			return
		}
		s.found = true
		if policy, _, _ := strings.Cut(rest, " "); policy != "-" {
			s.policy = "-P " + s.chain + " " + policy
		}
	case strings.HasPrefix(line, "-A "):
		rest, ok := strings.CutPrefix(line[3:], s.chain)
		if !ok || rest != "" && rest[0] != ' ' {
			return
		}
		s.total++
		if s.want(s.total) {
			if s.rules == nil {
				s.rules = map[int]string{}
			}
			s.rules[s.total] = line
		}
	case strings.Contains(line, "is incompatible, use 'nft' tool"):
		s.incompatible = true
	}
}

// saveTool returns the program that prints iptables rules of the family (ip or
// ip6) and backend (nft or legacy) on this host.
func (n *Netns) saveTool(ctx context.Context, family, backend string) (string, error) {
	prefix := "iptables"
	if family == "ip6" {
		prefix = "ip6tables"
	}
	name := prefix + "-" + backend + "-save"
	if lookTool(name) != "" {
		return name, nil
	}
	plain := prefix + "-save"
	if lookTool(plain) == "" {
		return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
	}
	version, err := n.Command(ctx, plain, "-V").Output()
	if err != nil {
		return "", fmt.Errorf("%s -V: %w", plain, err)
	}
	// Before 1.8 there was no other backend and no word for it.
	if isNFT := strings.Contains(string(version), "nf_tables"); isNFT != (backend == "nft") {
		return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
	}
	return plain, nil
}

// save prints one table with the tool, and reads of one chain of it the rules that are wanted, by number. The caller
// has made sure that the table exists: the tool would create it.
func (n *Netns) save(ctx context.Context, family, backend, table, chain string, want func(number int) bool) (iptablesSave, error) {
	tool, err := n.saveTool(ctx, family, backend)
	if err != nil {
		return iptablesSave{}, err
	}
	s := saveReader{chain: chain, want: want}
	stderr, err := n.lines(ctx, s.take, tool, "-t", table)
	if err != nil {
		return iptablesSave{}, err
	}
	for line := range strings.Lines(string(stderr)) {
		s.take(strings.TrimSuffix(line, "\n"))
	}
	if s.incompatible {
		return iptablesSave{}, errors.New(tool + ": the table is incompatible with iptables")
	}
	return s.iptablesSave, nil
}
