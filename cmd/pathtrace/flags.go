// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/spf13/pflag"

// flags are as they were typed.
type flags struct {
	ipv4, ipv6, numeric, udp                          bool
	source, port, device, mark, netns, pid, timeout   word
	container                                         word
	send, expect, hooks, scope, color, bundle, ticket word
	otlp                                              word
	noTouch, json, quiet, timing, redact, version     bool
	verifyFix, yes, force                             bool
	trial                                             word // --for
	peer, peerCmd                                     word
	verbose                                           int
}

// word is a flag's text as it was typed.
type word string

// named gives a word the name by which the help calls it.
type named struct {
	*word
	kind string
}

func (n named) String() string {
	if n.word == nil { // the library looks at a zero value
		return ""
	}
	return string(*n.word)
}
func (n named) Set(s string) error { *n.word = word(s); return nil }
func (n named) Type() string       { return n.kind }

// flagGroup is a paragraph of the help.
type flagGroup struct {
	title string
	*pflag.FlagSet
}

func group(title string) flagGroup {
	s := pflag.NewFlagSet(title, pflag.ContinueOnError)
	s.SortFlags = false
	return flagGroup{title, s}
}

func (g flagGroup) word(p *word, name, short, kind, value, usage string) {
	*p = word(value)
	g.VarP(named{p, kind}, name, short, usage)
}

// groups declares every flag of the main job. What does not work yet is not here.
func (f *flags) groups() []flagGroup {
	from := group("Where the probe starts")
	from.BoolVarP(&f.ipv4, "ipv4", "4", false, "IPv4 only")
	from.BoolVarP(&f.ipv6, "ipv6", "6", false, "IPv6 only")
	from.BoolVarP(&f.numeric, "numeric", "n", false, "addresses only, look no name up")
	from.BoolVarP(&f.udp, "udp", "u", false, "one UDP datagram instead of a TCP connection")
	from.word(&f.source, "source", "s", "ADDR", "", "from this address")
	from.word(&f.port, "source-port", "p", "N", "", "from this port")
	from.word(&f.device, "interface", "i", "DEV", "", "through this device")
	from.word(&f.mark, "mark", "", "N", "", "with this firewall mark, 0x… too")
	from.word(&f.netns, "netns", "", "NAME|PATH|PID", "", "in this network namespace")
	from.word(&f.pid, "pid", "", "PID", "", "in the network namespace of this process")
	from.word(&f.container, "container", "", "ID", "", "in the network namespace of this container")

	talk := group("How long, and what is said")
	talk.word(&f.timeout, "timeout", "w", "DUR", "3s", "wait at most so long: 3, 0.5, 500ms")
	talk.word(&f.send, "send", "", "TEXT|@FILE", "", "say this once connected, or in the datagram")
	talk.word(&f.expect, "expect", "", "REGEX", "", "what the answer must match")

	watch := group("How the kernel is watched")
	watch.word(&f.hooks, "hooks", "", "auto|fentry|kprobe|tracepoint", "auto", "which kernel hooks")
	watch.word(&f.scope, "scope", "", "host|netns", "host", "all namespaces of this host, or the probe's alone")
	watch.BoolVar(&f.noTouch, "no-touch", false, "add not even a temporary trace rule")

	watch.word(&f.peer, "peer", "", "ssh://[USER@]HOST", "", "watch the other end's kernel too, over ssh")
	watch.word(&f.peerCmd, "peer-cmd", "", "CMD", "", "the same through a command that gives a root shell there")

	try := group("Trying the fix")
	try.BoolVar(&f.verifyFix, "verify-fix", false, "apply the smallest fix, probe again, take it back: proof that it was the cause")
	try.word(&f.trial, "for", "", "DUR", "30s", "take it back after this time at the latest, whatever happens")
	try.BoolVar(&f.yes, "yes", false, "do not ask before")
	try.BoolVar(&f.force, "force", false, "also what may cut the ssh session that this runs in")

	out := f.output()
	out.word(&f.bundle, "output", "o", "FILE", "", "write the evidence into this archive, FILE.zip")
	out.BoolVar(&f.redact, "redact", false, "the same substitute for the same address, name and user everywhere")
	out.word(&f.ticket, "ticket", "", "TICKET", "", "put the bundle on this ticket: rt:12, redmine:12, jira:OPS-12 …")
	out.word(&f.otlp, "otlp", "", "URL", "", "send the path as a trace to this OpenTelemetry collector")
	out.BoolVar(&f.timing, "timing", false, "where our own time went, on stderr and in the JSON")
	out.BoolVar(&f.version, "version", false, "which pathtrace this is")
	out.BoolP("help", "h", false, "this text")
	return []flagGroup{from, talk, watch, try, out}
}

// output declares the flags of whatever prints a verdict.
func (f *flags) output() flagGroup {
	f.setDefaults()
	out := group("Output")
	out.BoolVar(&f.json, "json", false, "one JSON document on stdout")
	out.BoolVarP(&f.quiet, "quiet", "q", false, "the verdict line alone")
	out.CountVarP(&f.verbose, "verbose", "v", "``every event; -vv: with call stacks")
	out.word(&f.color, "color", "", "auto|always|never", "auto", "colours")
	return out
}

// setDefaults gives the flags that a command does not declare the values they would have.
func (f *flags) setDefaults() {
	for p, s := range map[*word]string{&f.timeout: "3s", &f.hooks: "auto", &f.scope: "host", &f.trial: "30s"} {
		if *p == "" {
			*p = word(s)
		}
	}
}
