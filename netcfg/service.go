// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// maxSmall bounds what is read of a unit file, a pid file and the like, in bytes.
const maxSmall = 64 << 10

// programs that serve what /etc/services calls by a name: their units and executables.
var programs = map[string][]string{
	"ftp":        {"vsftpd", "proftpd", "pure-ftpd"},
	"ssh":        {"ssh", "sshd", "dropbear"},
	"smtp":       {"postfix", "exim4", "exim", "opensmtpd", "sendmail"},
	"http":       {"nginx", "apache2", "httpd", "lighttpd", "caddy", "haproxy", "stunnel4"},
	"domain":     {"unbound", "dnsmasq", "named", "bind9", "systemd-resolved"},
	"redis":      {"redis-server", "redis", "valkey-server"},
	"postgresql": {"postgresql", "postgres"},
	"mysql":      {"mysql", "mysqld", "mariadb", "mariadbd"},
	"imap":       {"dovecot"},
}

// kin are other names for what a program of the table serves.
var kin = map[string]string{
	"ftps": "ftp", "smtps": "smtp", "submission": "smtp", "submissions": "smtp", "https": "http", "http-alt": "http", "www": "http", "tls": "http",
	"dns": "domain", "dns+tcp": "domain", "rediss": "redis", "postgres": "postgresql", "imaps": "imap", "imap2": "imap", "pop3": "imap", "pop3s": "imap",
}

// superservers start other services when somebody connects; their files name these.
var superservers = map[string][]string{"xinetd": {"/etc/xinetd.conf", "/etc/xinetd.d/*"}, "inetd": {"/etc/inetd.conf"}, "openbsd-inetd": {"/etc/inetd.conf"}}

// services reads what a host says about a service; root is where its files are.
type services struct {
	root  string
	netns *Netns
	// systemctl runs "systemctl ARG…"; nil where systemd is not in charge
	systemctl func(ctx context.Context, arg ...string) ([]byte, error)
	processes []program
	nameNetns func(inode uint64) string
}

// program is a process as far as it matters here.
type program struct {
	evidence.Process
	netns uint64 // 0: it has none any more, or that may not be read
}

// Services tells of the programs that would serve port, by the names that
// /etc/services and scheme (of a URL, may be empty) have for it: systemd's units
// where systemd is in charge, pid files, processes, what is installed, and the
// containers for which Docker publishes the port.
// nameNetns names other namespaces.
func (n *Netns) Services(ctx context.Context, protocol string, port uint16, scheme string, nameNetns func(uint64) string) evidence.Section[evidence.Service] {
	s := services{root: "/", netns: n, nameNetns: nameNetns}
	if _, err := os.Stat("/run/systemd/system"); err == nil { // sd_booted(3)
		s.systemctl = func(ctx context.Context, arg ...string) ([]byte, error) {
			return RunHere(ctx, append([]string{"systemctl"}, arg...))
		}
	}
	for _, pid := range allPIDs() {
		p, err := readProcess(pid)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st) != nil {
			st.Ino = 0
		}
		s.processes = append(s.processes, program{p, st.Ino})
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return evidence.Have(append(s.find(ctx, protocol, s.names(protocol, port, scheme)), s.containers(protocol, port)...))
}

// names of units and programs that may serve the port.
func (s services) names(protocol string, port uint16, scheme string) []string {
	var words []string
	if scheme != "" && scheme != "tcp" && scheme != "udp" {
		words = append(words, scheme)
	}
	for line := range strings.Lines(s.read("/etc/services")) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) > 1 && f[1] == fmt.Sprintf("%d/%s", port, protocol) {
			words = append(append(words, f[0]), f[2:]...)
		}
	}
	var names []string
	add := func(list ...string) {
		for _, x := range list {
			if x != "" && !slices.Contains(names, x) && !strings.ContainsAny(x, "/*?[\\@") {
				names = append(names, x)
			}
		}
	}
	for _, w := range words {
		if k := kin[w]; k != "" {
			add(programs[k]...)
		}
		add(programs[w]...)
		add(w)
	}
	for super, files := range superservers {
		for _, w := range words {
			if s.mention(files, w) {
				add(super)
			}
		}
	}
	return names
}

// mention reports whether one of the files has word as a word of a line that is no comment.
func (s services) mention(patterns []string, word string) bool {
	for _, p := range patterns {
		files, _ := filepath.Glob(filepath.Join(s.root, p))
		for _, f := range files[:min(len(files), 100)] {
			for line := range strings.Lines(s.read(strings.TrimPrefix(f, s.root))) {
				line, _, _ = strings.Cut(line, "#")
				if slices.Contains(strings.Fields(line), word) {
					return true
				}
			}
		}
	}
	return false
}

func (s services) read(path string) string {
	b, err := readSome(filepath.Join(s.root, path), maxSmall)
	if err != nil {
		return ""
	}
	return string(b)
}

func (s services) find(ctx context.Context, protocol string, names []string) []evidence.Service {
	out := []evidence.Service{}
	known := map[string]bool{} // executables and programs that were told about
	for _, name := range names {
		units := s.units(ctx, name)
		out = append(out, units...)
		file, exe, pidfile := s.unitFile(name)
		if p, ok := s.pidfile(name, exe, pidfile); ok {
			out = append(out, p)
		}
		for _, r := range s.running(protocol, name, exe) {
			if key := fmt.Sprint(r.PID); !known[key] {
				known[key] = true
				out = append(out, r)
			}
		}
		if !s.runsHere(name, exe) && len(units) == 0 && file != "" && exe != "" && !known[exe] {
			if _, err := os.Stat(filepath.Join(s.root, exe)); err == nil {
				known[exe] = true
				out = append(out, evidence.Service{Name: name, Kind: "installed", State: evidence.ServiceIdle, Exe: exe, File: file})
			}
		}
	}
	return out
}

// pidfile finds one that names a process which does not exist.
func (s services) pidfile(name, exe, known string) (evidence.Service, bool) {
	base := filepath.Base(exe)
	candidates := []string{known}
	for _, n := range []string{name, base} {
		if n != "" && n != "." {
			candidates = append(candidates, "/run/"+n+".pid", "/run/"+n+"/"+n+".pid", "/run/"+n+"/pid", "/run/"+n+"d.pid")
		}
	}
	for _, c := range candidates {
		if c == "" {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(firstLine(s.read(c))))
		if err != nil || pid <= 0 {
			continue
		}
		if !slices.ContainsFunc(s.processes, func(p program) bool { return p.PID == pid }) {
			return evidence.Service{Name: name, Kind: "pidfile", State: evidence.ServiceGone, PID: pid, Exe: exe, File: c}, true
		}
	}
	return evidence.Service{}, false
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// is reports whether the process is, or was, one of a program.
func (p program) is(name, exe string) bool {
	return p.Comm == name || exe != "" && (p.Exe == exe || p.ended() && p.Comm == comm(exe))
}

func (p program) ended() bool { return p.State == "Z" || p.State == "X" }

// runsHere reports whether a process of the program lives in the namespace, or in any where that is not known.
func (s services) runsHere(name, exe string) bool {
	return slices.ContainsFunc(s.processes, func(p program) bool {
		return p.is(name, exe) && !p.ended() && (s.netns == nil || p.netns == 0 || p.netns == s.netns.Inode)
	})
}

// maxRunning bounds the processes of one program that are told of.
const maxRunning = 4

// running are the processes of a program, by its executable or name: where they are, and on what they listen.
func (s services) running(protocol, name, exe string) []evidence.Service {
	var out []evidence.Service
	for _, p := range s.processes {
		if !p.is(name, exe) || len(out) == maxRunning {
			continue
		}
		one := evidence.Service{Name: p.Comm, Kind: "process", State: evidence.ServiceRunning, PID: p.PID, Exe: p.Exe}
		switch {
		case p.ended():
			one.State = evidence.ServiceZombie
			if slices.ContainsFunc(out, func(o evidence.Service) bool { return o.State == one.State }) {
				continue // a group of them died together
			}
		case p.netns == 0:
			continue
		case s.netns != nil && p.netns == s.netns.Inode:
			one.Netns = s.netns.Name
			one.Listens = s.netns.listens(protocol, p.PID)
		case s.nameNetns != nil:
			one.Netns = s.nameNetns(p.netns)
		}
		out = append(out, one)
	}
	return out
}

// comm is the name that the kernel keeps of an executable (TASK_COMM_LEN).
func comm(exe string) string {
	base := filepath.Base(exe)
	return base[:min(len(base), 15)]
}

// listens are the addresses on which a process of n listens.
func (n *Netns) listens(protocol string, pid int) []string {
	r := diagRequest{protocol: unix.IPPROTO_TCP, states: 1 << unix.BPF_TCP_LISTEN}
	if protocol == "udp" {
		r = diagRequest{protocol: unix.IPPROTO_UDP, states: ^uint32(0)}
	}
	found, err := n.diagDump(r)
	if err != nil {
		return nil
	}
	wanted := map[uint64][]int{}
	for i, s := range found {
		wanted[uint64(s.inode)] = append(wanted[uint64(s.inode)], i)
	}
	delete(wanted, 0)
	inodes, err := wantedSockets(pid, wanted)
	if err != nil {
		return nil
	}
	var out []string
	for _, inode := range inodes {
		for _, i := range wanted[inode] {
			out = append(out, found[i].local.String())
		}
	}
	slices.Sort(out)
	return out
}

// readSome reads the beginning of a regular file: a pipe, which who owns the directory can put there, would keep us waiting.
func readSome(path string, most int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	return io.ReadAll(io.LimitReader(f, most))
}
