// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/report"
)

// toolTexts is what the user's own tools print, for a person who reads the bundle. No verdict rests on it.
type toolTexts struct {
	files  []report.File
	unread map[string]string // file to why it is not there
}

const (
	toolWait      = 5 * time.Second  // for one tool
	toolsWait     = 20 * time.Second // for all of them
	toolOutput    = 4 << 20          // bytes kept of one tool
	toolsOutput   = 64 << 20         // of all
	toolNamespace = 16               // namespaces read
)

// tool is a command line whose output becomes a file.
type tool struct {
	file string
	args []string
}

var tools = []tool{
	{"nft.txt", []string{"nft", "-a", "list", "ruleset"}},
	{"routes.txt", []string{"ip", "-4", "route", "show", "table", "all"}},
	{"routes6.txt", []string{"ip", "-6", "route", "show", "table", "all"}},
	{"rules.txt", []string{"ip", "-4", "rule", "show"}},
	{"rules6.txt", []string{"ip", "-6", "rule", "show"}},
	{"addresses.txt", []string{"ip", "-d", "address", "show"}},
	{"neighbors.txt", []string{"ip", "neighbor", "show"}},
	{"sockets.txt", []string{"ss", "-tulnpe"}},
	{"sysctls.txt", []string{"sysctl", "-a", "--pattern", `^net\.`}},
}

// saves are the programs that print iptables rules, by who owns the tables. Those of
// legacy are not run where no such table is: they would create it.
func saves(n *evidence.Namespace) []tool {
	out := []tool{{"iptables-nft.txt", []string{"iptables-nft-save", "-c"}}, {"ip6tables-nft.txt", []string{"ip6tables-nft-save", "-c"}}}
	if slices.ContainsFunc(n.Hooks.Items, func(h evidence.Hook) bool { return h.Type == "iptables-legacy" }) {
		out = append(out, tool{"iptables-legacy.txt", []string{"iptables-legacy-save", "-c"}},
			tool{"ip6tables-legacy.txt", []string{"ip6tables-legacy-save", "-c"}})
	}
	return out
}

// readTools runs the tools in every namespace that our packets met.
func readTools(ctx context.Context, c *evidence.Case) toolTexts {
	ctx, cancel := context.WithTimeout(ctx, toolsWait)
	defer cancel()
	t := toolTexts{unread: map[string]string{}}
	left := toolsOutput
	used := map[string]bool{}
	for i := range c.Namespaces {
		n := &c.Namespaces[i]
		dir := fileName(n.Name)
		if used[dir] {
			dir = fmt.Sprintf("%s-%d", dir, n.Inode)
		}
		used[dir] = true
		if i >= toolNamespace {
			t.unread[dir] = fmt.Sprintf("more than %d namespaces", toolNamespace)
			continue
		}
		for _, x := range append(saves(n), tools...) {
			name := path.Join(dir, x.file)
			out, err := runTool(ctx, n.Enter, x.args, min(left, toolOutput))
			if err != nil {
				t.unread[name] = err.Error()
			}
			if len(out) > 0 {
				t.files = append(t.files, report.File{Name: name, Data: out})
				left -= len(out)
			}
		}
	}
	return t
}

// runTool returns what a tool printed, also where it then failed.
func runTool(ctx context.Context, enter, args []string, most int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, toolWait)
	defer cancel()
	// env looks where root's tools are; the PATH of cron and of plain users lacks that.
	words := slices.Concat([]string{"LC_ALL=C", "PATH=" + os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin"}, enter, args)
	cmd := exec.CommandContext(ctx, "env", words...)
	cmd.WaitDelay = time.Second
	out, errs := &atMost{left: most}, &atMost{left: 4096}
	cmd.Stdout, cmd.Stderr = out, errs
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("%s: not done in time", args[0])
	case errors.As(err, &exit) && (exit.ExitCode() == 127 || exit.ExitCode() == 126):
		err = fmt.Errorf("%s: not installed", args[0])
	case err != nil:
		line, _, _ := strings.Cut(strings.TrimSpace(errs.buf.String()), "\n")
		err = fmt.Errorf("%s: %w: %s", args[0], err, line)
	case out.cut:
		err = fmt.Errorf("%s: cut after %d bytes", args[0], out.buf.Len())
	}
	return out.buf.Bytes(), err
}

// atMost keeps the first bytes that are written to it, and takes the rest.
type atMost struct {
	buf  bytes.Buffer // not embedded: io.Copy would go past Write
	left int
	cut  bool
}

func (w *atMost) Write(p []byte) (int, error) {
	keep := p[:min(len(p), w.left)]
	w.cut = w.cut || len(keep) < len(p)
	w.left -= len(keep)
	w.buf.Write(keep)
	return len(p), nil
}

// fileName makes a namespace's name fit for a path: net:[4026532] becomes net-4026532.
func fileName(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		case r == ':' || r == '.' || r == ' ':
			return '-'
		}
		return -1
	}, s)
	if s == "" {
		return "namespace"
	}
	return s[:min(len(s), 60)]
}
