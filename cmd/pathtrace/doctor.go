// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/report"
	"github.com/pathtrace/pathtrace/tracer"
)

// health is what this kernel and this user can show.
type health struct {
	FormatVersion string           `json:"format_version"`
	Tool          evidence.Tool    `json:"tool"`
	Kernel        string           `json:"kernel"`
	Lockdown      string           `json:"lockdown,omitempty"`
	User          int              `json:"uid"`
	Hooks         string           `json:"hooks"` // the tier that auto takes; empty: none works
	Capabilities  []tracer.Ability `json:"capabilities"`
	Abilities     []tracer.Ability `json:"abilities"`
	Tools         []tracer.Ability `json:"tools"`
}

// neededCapabilities of linux/capability.h, with what each is for.
var neededCapabilities = []struct {
	name string
	bit  int
	lost string
}{
	{"CAP_BPF", unix.CAP_BPF, "everything: programs cannot be loaded"},
	{"CAP_PERFMON", unix.CAP_PERFMON, "everything: programs cannot be attached to tracepoints"},
	{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN, "rule traces, observers, our own sequence number"},
	{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN, "other network namespaces"},
	{"CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE, "which process holds a socket, and other processes' namespaces"},
}

// neededTools print rules in the words that the user knows them by.
var neededTools = []struct{ name, lost, pkg string }{
	{"nft", "the text of nftables rules; they are named by handle and number alone", "nftables"},
	{"iptables-nft-save", "the text of iptables-nft rules", "iptables"},
	{"iptables-legacy-save", "the text of iptables-legacy rules", "iptables"},
	{"ip", "fixes are written with it; nothing is read by it", "iproute2"},
}

func newDoctorCmd(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "what this kernel and this user can show, and what is lost without it",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			h := examine()
			if h.Hooks == "" {
				a.code = exitNoTrace
			}
			if asJSON {
				e := json.NewEncoder(&a.out)
				e.SetIndent("", "  ")
				return e.Encode(h)
			}
			printHealth(&a.out, h)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON document on stdout")
	return cmd
}

func examine() health {
	h := health{
		FormatVersion: evidence.FormatVersion, Tool: thisTool(), Lockdown: tracer.Lockdown(), User: os.Geteuid(),
		Abilities: tracer.Survey(),
	}
	h.Hooks = tracer.Best(h.Abilities)
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	for _, x := range h.Abilities {
		if x.Needed && !x.Works {
			h.Hooks = ""
		}
	}
	effective := effectiveCapabilities()
	for _, c := range neededCapabilities {
		x := tracer.Ability{Name: c.name, Works: effective>>c.bit&1 == 1}
		if !x.Works {
			x.Lost, x.Remedy = c.lost, "sudo pathtrace …"
		}
		h.Capabilities = append(h.Capabilities, x)
	}
	for _, t := range neededTools {
		x := tracer.Ability{Name: t.name, Works: installed(t.name)}
		if !x.Works {
			x.Why, x.Lost, x.Remedy = "not installed", t.lost, "install "+t.pkg
		}
		h.Tools = append(h.Tools, x)
	}
	return h
}

// effectiveCapabilities reads CapEff of proc_pid_status(5); 0 when it cannot be read.
func effectiveCapabilities() uint64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(b), "CapEff:")
	line, _, _ := strings.Cut(after, "\n")
	n, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	if err != nil {
		return 0
	}
	return n
}

func installed(tool string) bool {
	if _, err := exec.LookPath(tool); err == nil {
		return true
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if _, err := exec.LookPath(dir + tool); err == nil {
			return true
		}
	}
	return false
}

func printHealth(w io.Writer, h health) {
	lockdown := ""
	if h.Lockdown != "" {
		lockdown = ", lockdown " + h.Lockdown
	}
	fmt.Fprintf(w, "pathtrace %s on Linux %s, user %d%s\n", h.Tool.Version, h.Kernel, h.User, lockdown)
	for _, g := range []struct {
		title string
		items []tracer.Ability
	}{{"kernel", h.Abilities}, {"user", h.Capabilities}, {"tools", h.Tools}} {
		fmt.Fprintf(w, "\n%s\n", g.title)
		for _, x := range g.items {
			printAbility(w, x)
		}
	}
	if h.Hooks == "" {
		fmt.Fprintln(w, "\n✗ pathtrace cannot trace here")
		return
	}
	fmt.Fprintf(w, "\n✓ pathtrace can trace here, by %s hooks\n", h.Hooks)
}

func printAbility(w io.Writer, x tracer.Ability) {
	if x.Works {
		fmt.Fprintf(w, "  ✓ %s\n", report.Clean(x.Name))
		return
	}
	fmt.Fprintf(w, "  ✗ %s\n", report.Clean(x.Name))
	for _, l := range []struct{ label, text string }{{"why", x.Why}, {"lost", x.Lost}, {"needs", x.Remedy}} {
		if l.text != "" {
			fmt.Fprintf(w, "      %-6s %s\n", l.label, report.Clean(l.text))
		}
	}
}
