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
	policy string   // "-P INPUT DROP"; empty for a chain of the user
	rules  []string // the lines "-A CHAIN …", in order
}

// parseSave reads the chain from what "iptables-save -t TABLE" printed.
func parseSave(out, chain string) iptablesSave {
	var s iptablesSave
	for line := range strings.Lines(out) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, ":"+chain+" "); ok {
			s.found = true
			if policy, _, _ := strings.Cut(rest, " "); policy != "-" {
				s.policy = "-P " + chain + " " + policy
			}
		}
		if line == "-A "+chain || strings.HasPrefix(line, "-A "+chain+" ") {
			s.rules = append(s.rules, line)
		}
	}
	return s
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

// save prints one table with the tool, and reads one chain of it. The caller
// has made sure that the table exists: the tool would create it.
func (n *Netns) save(ctx context.Context, family, backend, table, chain string) (iptablesSave, error) {
	tool, err := n.saveTool(ctx, family, backend)
	if err != nil {
		return iptablesSave{}, err
	}
	out, stderr, err := n.Output(ctx, tool, "-t", table)
	if err != nil {
		return iptablesSave{}, err
	}
	if all := string(out) + string(stderr); strings.Contains(all, "is incompatible, use 'nft' tool") {
		return iptablesSave{}, errors.New(tool + ": the table is incompatible with iptables")
	}
	return parseSave(string(out), chain), nil
}
