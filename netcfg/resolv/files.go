// SPDX-License-Identifier: Apache-2.0

// Package resolv looks a name up as the C library of a host does, and says at
// which step it came to nothing: nsswitch.conf(5), hosts(5), resolv.conf(5), DNS.
package resolv

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// maxFile bounds what is read of a file, in bytes; hosts files that block advertisers have a few MiB.
const maxFile = 16 << 20

// Limits of resolv.conf(5).
const (
	maxServers = 3
	maxSearch  = 32
)

// Files finds the files of /etc for one network namespace.
type Files struct {
	Root  string // of the processes there; empty is our own
	Netns string // name, as "ip netns" knows it: what is below /etc/netns/NAME goes before /etc, as in "ip netns exec"
}

// Path of a file of /etc.
func (f Files) Path(name string) string {
	if f.Netns != "" {
		own := filepath.Join("/etc/netns", f.Netns, name)
		if _, err := os.Stat(own); err == nil {
			return own
		}
	}
	return filepath.Join("/", f.Root, "etc", name)
}

func (f Files) read(name string) (text, path string, err error) {
	path = f.Path(name)
	file, err := os.Open(path)
	if err != nil {
		return "", path, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxFile))
	return string(b), path, err
}

// Service is one word of the hosts line of nsswitch.conf, with its reactions.
type Service struct {
	Name string
	// React says for a status (success, notfound, unavail, tryagain) what to do: return, continue or merge.
	React map[string]string
}

// does is the reaction to a status; without one in the file, the C library's own.
func (s Service) does(status string) string {
	if r := s.React[status]; r != "" {
		return r
	}
	if status == "success" {
		return "return"
	}
	return "continue"
}

var statuses = []string{"success", "notfound", "unavail", "tryagain"}

// ParseNSSwitch returns the services that the hosts line of nsswitch.conf names.
func ParseNSSwitch(text string) []Service {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		key, words, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(key) == "hosts" {
			return services(words)
		}
	}
	return nil
}

func services(words string) []Service {
	var out []Service
	for words = strings.TrimSpace(words); words != ""; words = strings.TrimSpace(words) {
		if words[0] != '[' {
			end := strings.IndexAny(words, " \t[")
			if end < 0 {
				end = len(words)
			}
			out = append(out, Service{Name: words[:end], React: map[string]string{}})
			words = words[end:]
			continue
		}
		inside, rest, _ := strings.Cut(words[1:], "]")
		words = rest
		for _, pair := range strings.Fields(inside) {
			status, action, ok := strings.Cut(strings.ToLower(pair), "=")
			if !ok || len(out) == 0 {
				continue
			}
			name, not := strings.CutPrefix(status, "!")
			for _, s := range statuses {
				if (s == name) != not {
					out[len(out)-1].React[s] = action
				}
			}
		}
	}
	return out
}

// Resolver is what resolv.conf says.
type Resolver struct {
	Servers  []netip.AddrPort
	Search   []string
	Ndots    int           // names with fewer dots are tried with the search list first
	Timeout  time.Duration // for each question
	Attempts int
	TCP      bool // use-vc
}

// ParseResolvConf reads resolv.conf. What it does not say is as the C library has it.
func ParseResolvConf(text string) Resolver {
	r := Resolver{Ndots: 1, Timeout: 5 * time.Second, Attempts: 2}
	for line := range strings.Lines(text) {
		if i := strings.IndexAny(line, "#;"); i == 0 {
			continue
		}
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(words[1]); err == nil && len(r.Servers) < maxServers {
				r.Servers = append(r.Servers, netip.AddrPortFrom(a, 53))
			}
		case "domain":
			r.Search = words[1:2]
		case "search":
			r.Search = words[1:min(len(words), 1+maxSearch)]
		case "options":
			r.options(words[1:])
		}
	}
	if len(r.Servers) == 0 {
		r.Servers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 53)}
	}
	return r
}

func (r *Resolver) options(words []string) {
	for _, w := range words {
		name, value, _ := strings.Cut(w, ":")
		n, err := strconv.Atoi(value)
		switch {
		case name == "use-vc":
			r.TCP = true
		case err != nil || n < 0:
		case name == "ndots":
			r.Ndots = min(n, 15)
		case name == "timeout" && n > 0:
			r.Timeout = time.Duration(min(n, 30)) * time.Second
		case name == "attempts" && n > 0:
			r.Attempts = min(n, 5)
		}
	}
}

// Names lists what is asked for when a program asks for name: with the search list or without.
func (r Resolver) Names(name string) []string {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	var searched []string
	for _, s := range r.Search {
		if s = strings.Trim(s, "."); s != "" {
			searched = append(searched, name+"."+s+".")
		}
	}
	if strings.Count(name, ".") >= r.Ndots {
		return append([]string{name + "."}, searched...)
	}
	return append(searched, name+".")
}

// ParseHosts returns the addresses that a hosts file has for name, and the numbers of their lines.
func ParseHosts(text, name string) (addresses []netip.Addr, lines []int) {
	name = strings.TrimSuffix(name, ".")
	s := bufio.NewScanner(strings.NewReader(text))
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		line, _, _ := strings.Cut(s.Text(), "#")
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		a, err := netip.ParseAddr(words[0])
		if err != nil {
			continue
		}
		for _, w := range words[1:] {
			if strings.EqualFold(strings.TrimSuffix(w, "."), name) {
				addresses, lines = append(addresses, a), append(lines, n)
				break
			}
		}
	}
	return addresses, lines
}

func numbers(lines []int) string {
	var out []string
	for _, n := range lines {
		out = append(out, strconv.Itoa(n))
	}
	word := "line "
	if len(lines) > 1 {
		word = "lines "
	}
	return fmt.Sprint(word, strings.Join(out, ", "))
}
