// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pathtrace/pathtrace/evidence"
	"github.com/pathtrace/pathtrace/netcfg/libwrap"
	"github.com/pathtrace/pathtrace/report"
)

// libwrapCheck is what is asked, as it was typed.
type libwrapCheck struct {
	daemon, client           string
	port                     uint16
	name, user, server, root string
	json                     bool
}

// newLibwrapCmd makes the command that says what tcp wrappers would do.
func newLibwrapCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "libwrap check DAEMON CLIENT",
		Short: "what hosts.allow and hosts.deny decide, and by which line",
		RunE: func(*cobra.Command, []string) error {
			return badUse("libwrap can check: pathtrace libwrap check DAEMON CLIENT")
		},
		Args: cobra.ArbitraryArgs,
	}
	cmd.AddCommand(newLibwrapCheckCmd(a))
	return cmd
}

func newLibwrapCheckCmd(a *app) *cobra.Command {
	var c libwrapCheck
	cmd := &cobra.Command{
		Use:   "check [flags] DAEMON CLIENT",
		Short: "whether DAEMON serves the address CLIENT, and by which line",
		Long: "check reads /etc/hosts.allow and /etc/hosts.deny as libwrap does, and says whether it\n" +
			"lets the address CLIENT use DAEMON, by which line, and where the files do not say what\n" +
			"they seem to. It runs none of their commands and looks no name up.\n\n" +
			"Exit codes: 0 granted, 1 denied or handed to another program, 2 usage, 3 not established.",
		Example: "  pathtrace libwrap check vsftpd 10.0.0.5\n" +
			"  sudo pathtrace libwrap check --root /proc/412/root --port 22 --name web.example sshd 2001:db8::1",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return badUse("libwrap check takes a daemon's name and a client's address")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			c.daemon, c.client = args[0], args[1]
			return a.checkLibwrap(c)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().Uint16Var(&c.port, "port", 0, "the port `N` of the server")
	cmd.Flags().StringVar(&c.name, "name", "", "the client's name for the server, `HOST`; unknown: it has none; paranoid: its name has not its address")
	cmd.Flags().StringVar(&c.user, "user", "", "what the client's RFC 1413 server would say, `USER`; unknown: it has no such server")
	cmd.Flags().StringVar(&c.server, "server", "", "the address `ADDR` of the server that the client reached")
	cmd.Flags().StringVar(&c.root, "root", "/", "the server's root directory, `DIR`; /proc/PID/root for a process")
	cmd.Flags().BoolVar(&c.json, "json", false, "one JSON document on stdout")
	return cmd
}

// request checks what was typed.
func (c libwrapCheck) request() (libwrap.Request, error) {
	r := libwrap.Request{Daemon: c.daemon, ServerPort: c.port, ClientName: c.name, User: c.user}
	if c.daemon == "" {
		return r, badUse("the daemon has no name")
	}
	for _, x := range []struct {
		typed string
		to    *netip.Addr
	}{{c.client, &r.Client}, {c.server, &r.ServerAddr}} {
		if x.typed == "" && x.to == &r.ServerAddr {
			continue
		}
		addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(x.typed, "["), "]"))
		if err != nil {
			return r, badUse("%s is not an address; a client's name is given with --name", x.typed)
		}
		*x.to = addr
	}
	if info, err := os.Stat(c.root); err != nil || !info.IsDir() {
		return r, badUse("--root %s: not a directory that can be entered", c.root)
	}
	return r, nil
}

// libwrapAnswer is what --json prints.
type libwrapAnswer struct {
	FormatVersion string           `json:"format_version"`
	Tool          evidence.Tool    `json:"tool"`
	Daemon        string           `json:"daemon"`
	Client        string           `json:"client"`
	Verdict       libwrap.Verdict  `json:"verdict"`
	File          *libwrapLine     `json:"file,omitempty"` // absent: no line decided
	Matched       *libwrapMatch    `json:"matched,omitempty"`
	Option        string           `json:"option,omitempty"` // that decided instead of the file: allow, deny, twist
	Fault         string           `json:"fault,omitempty"`  // the mistake that decided, in libwrap's words
	Reasons       []string         `json:"reasons"`          // what could not be evaluated
	Allow         string           `json:"allow,omitempty"`  // the line that would let the client pass, at the top of hosts.allow
	Warnings      []libwrapWarning `json:"warnings"`
}

type libwrapLine struct {
	Path  string `json:"path"`
	Line  int    `json:"line"`            // as libwrap logs it: the last of a continued line
	First int    `json:"first,omitempty"` // where a continued line begins
	Text  string `json:"text"`
}

// libwrapMatch is the pattern that matched on each side of the colon.
type libwrapMatch struct {
	Daemon libwrapElement `json:"daemon"`
	Client libwrapElement `json:"client"`
}

type libwrapElement struct {
	Kind    string `json:"kind"` // all, daemon, port, address, name, user, netgroup
	Pattern string `json:"pattern"`
}

func (e libwrapElement) String() string {
	if e.Kind == libwrap.KindAll || e.Kind == libwrap.KindDaemon {
		return e.Pattern
	}
	return e.Pattern + ", by " + e.Kind
}

type libwrapWarning struct {
	libwrapLine
	Message string `json:"message"`
}

func (a *app) checkLibwrap(c libwrapCheck) error {
	r, err := c.request()
	if err != nil {
		return err
	}
	tables := libwrap.ReadTables(libwrap.Root(c.root))
	d := libwrap.Evaluate(tables, r)
	_, warnings := libwrap.Parse(tables)
	switch d.Verdict {
	case libwrap.Granted:
		a.code = exitReached
	case libwrap.Unknown:
		a.code = exitUnexplained
	default:
		a.code = exitCause
	}
	answer := newLibwrapAnswer(r, d, warnings)
	if c.json {
		e := json.NewEncoder(&a.out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(answer)
	}
	printLibwrap(&a.out, answer)
	return nil
}

func newLibwrapAnswer(r libwrap.Request, d libwrap.Decision, warnings []libwrap.Warning) libwrapAnswer {
	x := libwrapAnswer{
		FormatVersion: evidence.FormatVersion, Tool: thisTool(), Daemon: r.Daemon, Client: r.Client.String(), Verdict: d.Verdict,
		Option: d.Option, Fault: d.Fault, Reasons: []string{}, Warnings: []libwrapWarning{},
	}
	if d.File != "" {
		x.File = &libwrapLine{Path: d.File, Line: d.Line, Text: d.Text}
		if d.First != d.Line {
			x.File.First = d.First
		}
	}
	if d.Client.Pattern != "" {
		x.Matched = &libwrapMatch{libwrapElement(d.Daemon), libwrapElement(d.Client)}
	}
	x.Reasons = append(x.Reasons, d.Reasons...)
	if d.Verdict != libwrap.Granted {
		x.Allow = libwrap.AllowLine(r)
	}
	for _, w := range warnings {
		x.Warnings = append(x.Warnings, libwrapWarning{libwrapLine{Path: w.File, Line: w.Line, Text: w.Text}, w.Message})
	}
	return x
}

func printLibwrap(w io.Writer, x libwrapAnswer) {
	say := func(label, format string, args ...any) {
		fmt.Fprintf(w, "  %-8s %s\n", label, report.Clean(fmt.Sprintf(format, args...)))
	}
	head := map[libwrap.Verdict]string{
		libwrap.Granted: "✓ %s serves %s", libwrap.Denied: "✗ %s denies %s", libwrap.Delegated: "✗ %s hands %s to another program",
	}[x.Verdict]
	if head == "" {
		head = "? not established: whether %s serves %s"
	}
	fmt.Fprintln(w, report.Clean(fmt.Sprintf(head, x.Daemon, x.Client)))
	switch f := x.File; {
	case f == nil:
		say("line", "none in hosts.allow or hosts.deny matches")
	case f.First > 0:
		say("line", "%s:%d-%d: %s", f.Path, f.First, f.Line, f.Text)
	case f.Line > 0:
		say("line", "%s:%d: %s", f.Path, f.Line, f.Text)
	default:
		say("file", "%s", f.Path)
	}
	if m := x.Matched; m != nil {
		say("daemon", "%s", m.Daemon)
		say("client", "%s", m.Client)
	}
	for _, s := range []struct{ label, text string }{{"option", x.Option}, {"fault", x.Fault}} {
		if s.text != "" {
			say(s.label, "%s", s.text)
		}
	}
	for _, s := range x.Reasons {
		say("open", "%s", s)
	}
	if x.Allow != "" {
		say("allow", "%s (as the first line of %s)", x.Allow, libwrap.AllowPath)
	}
	for _, m := range x.Warnings {
		say("warning", "%s:%d: %s", m.Path, m.Line, m.Message)
	}
}
