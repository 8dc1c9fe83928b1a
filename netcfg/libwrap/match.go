// SPDX-License-Identifier: Apache-2.0

package libwrap

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
)

// Element is the pattern that matched, and what of the request it matched.
type Element struct {
	Kind    string // all, daemon, port, address, name, user, netgroup
	Pattern string
}

// Kinds of elements.
const (
	KindAll      = "all"
	KindDaemon   = "daemon"
	KindPort     = "port"
	KindAddress  = "address"
	KindName     = "name"
	KindUser     = "user"
	KindNetgroup = "netgroup"
)

// Bounds of what is followed from a pattern that names a file. libwrap has
// none: a file that names itself uses up the server's descriptors.
const (
	maxNested = 256
	maxDoubts = 16   // of one rule
	maxToken  = 8192 // a longer one overruns libwrap's buffer
)

// matcher answers one request.
type matcher struct {
	daemon, user   string
	port           uint16
	noServer       bool
	anyDaemon      bool
	client, server endpoint
	open           func(string) ([]byte, error)
	files          map[string]file
	nested         int
	doubts         []string // why matches are maybe
}

func newMatcher(open func(string) ([]byte, error), r Request) *matcher {
	return &matcher{daemon: clip(r.Daemon), user: clip(r.User), port: r.ServerPort, noServer: r.NoServer, anyDaemon: r.AnyDaemon,
		client: r.client(), server: r.server(), open: open, files: map[string]file{}}
}

// doubt remembers why a match cannot be decided.
func (m *matcher) doubt(format string, args ...any) tri {
	if s := fmt.Sprintf(format, args...); len(m.doubts) < maxDoubts && !slices.Contains(m.doubts, s) {
		m.doubts = append(m.doubts, s)
	}
	return maybe
}

// list matches patterns with exceptions: a b EXCEPT c EXCEPT d is (a or b) and not (c and not d).
func list(toks []string, match func(string) (tri, Element)) (tri, Element) {
	found, by := no, Element{}
	i := 0
	for ; i < len(toks) && found != yes && !fold(toks[i], "EXCEPT"); i++ {
		if t, e := match(toks[i]); t > found {
			found, by = t, e
		}
	}
	for i < len(toks) && !fold(toks[i], "EXCEPT") {
		i++
	}
	if found == no || i >= len(toks) {
		return found, by
	}
	except, _ := list(toks[i+1:], match)
	return min(found, except.not()), by
}

// serverPattern matches DAEMON, PORT or either @HOST.
func (m *matcher) serverPattern(tok string) (tri, Element) {
	daemon, host, at := splitFrom1(tok, '@')
	found, kind := m.daemonOrPort(daemon)
	if at && found != no {
		t, _ := m.host(host, m.server, 0)
		found = min(found, t)
	}
	return found, Element{kind, tok}
}

// splitFrom1 is splitAt that does not look at the first byte.
func splitFrom1(tok string, delimiter byte) (before, after string, found bool) {
	before, after, found = splitAt(tok[1:], delimiter)
	return tok[:1] + before, after, found
}

func (m *matcher) daemonOrPort(tok string) (tri, string) {
	if want, ok := port(tok); ok {
		switch {
		case m.noServer:
			return no, KindPort
		case m.port == 0:
			return m.doubt("the rule is for port %d, and the server's port is not known", want), KindPort
		}
		return truth(want == m.port), KindPort
	}
	switch {
	case fold(tok, "ALL"):
		return yes, KindAll
	case m.anyDaemon:
		return m.doubt("the rule is for the daemon %s, and what the server calls itself is not known", tok), KindDaemon
	}
	return stringMatch(tok, m.daemon), KindDaemon
}

// clientPattern matches HOST or USER@HOST.
func (m *matcher) clientPattern(tok string) (tri, Element) {
	user, host, at := splitFrom1(tok, '@')
	if !at {
		t, kind := m.host(tok, m.client, 0)
		return t, Element{kind, tok}
	}
	found, kind := m.host(host, m.client, 0)
	switch {
	case found == no || fold(user, "ALL"):
		return found, Element{kind, tok}
	case m.user == "":
		return min(found, m.doubt("the rule is for user %s, and nobody has asked the client's RFC 1413 server for the user", user)), Element{KindUser, tok}
	}
	return min(found, stringMatch(user, m.user)), Element{KindUser, tok}
}

// host matches a host pattern with one end of the connection.
func (m *matcher) host(tok string, h endpoint, depth int) (tri, string) {
	if tok == "" {
		return no, ""
	}
	if tok[0] == '@' {
		return m.doubt("netgroup %s is not evaluated", tok), KindNetgroup
	}
	if tok[0] == '/' {
		return m.hostFile(tok, h, depth)
	}
	network, mask, isMasked := splitAt(tok, '/')
	switch {
	case fold(tok, "KNOWN"):
		if !h.nameGiven || !h.addrGiven {
			return m.doubt("%s needs the host's name, which is not known here", tok), KindName
		}
		return truth(!fold(h.addr, unknown) && h.nameKnown()), KindName
	case fold(tok, "LOCAL"):
		if !h.nameGiven {
			return m.doubt("%s needs the host's name, which is not known here", tok), KindName
		}
		return truth(!strings.Contains(h.name, ".") && h.nameKnown()), KindName
	case fold(tok, "ALL"):
		return yes, KindAll
	case !h.addrGiven:
		return m.doubt("%s needs the host's address, which is not known here", tok), KindAddress
	case isMasked:
		return m.zoneDoubt(masked(network, mask, h.addr), tok), KindAddress
	}
	found := m.zoneDoubt(stringMatch(tok, h.addr), tok)
	if found == yes || numeric(tok) {
		return found, KindAddress
	}
	if h.nameGiven {
		return max(found, stringMatch(tok, h.name)), KindName
	}
	if bracketed(tok) { // a name that is an address is not believed
		return found, KindAddress
	}
	return m.doubt("%s may be the host's name, which is not known here", tok), KindName
}

func (m *matcher) zoneDoubt(t tri, tok string) tri {
	if t == maybe {
		return m.doubt("%s matches if there is such an interface", tok)
	}
	return t
}

// hostFile matches the patterns that a file holds, hosts_access(5) "/".
func (m *matcher) hostFile(path string, h endpoint, depth int) (tri, string) {
	if depth > 0 {
		m.nested++
	}
	if m.nested > maxNested {
		return m.doubt("%s: files that name files, too many to follow", path), ""
	}
	data, err := m.read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return no, ""
	case err != nil:
		return m.doubt("%s is not read: %v", path, cause(err)), ""
	}
	found, kind := no, ""
	for _, tok := range fields(data) {
		if len(tok) >= maxToken {
			return max(found, m.doubt("%s holds a word that libwrap has no room for", path)), kind
		}
		tok, _, _ = strings.Cut(tok, "\x00")
		if t, k := m.host(tok, h, depth+1); t > found {
			found, kind = t, k
		}
		if found == yes {
			break
		}
	}
	return found, kind
}

func fields(data []byte) []string {
	return strings.FieldsFunc(string(data), func(r rune) bool { return strings.ContainsRune(space, r) })
}

func (m *matcher) read(path string) ([]byte, error) {
	if m.open == nil {
		return nil, errors.New("no files are given")
	}
	f, ok := m.files[path]
	if !ok {
		if f.data, f.err = m.open(path); errors.Is(f.err, syscall.EISDIR) {
			f = file{} // it opens, and nothing can be read from it
		}
		m.files[path] = f
	}
	return f.data, f.err
}

// file is one that has been read.
type file struct {
	data []byte
	err  error
}

// cause takes the path out of an error that names it.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// stringMatch matches a pattern with one string: a daemon, an address, a name or a user.
func stringMatch(tok, s string) tri {
	s, _ = unmap(s)
	switch {
	case tok == "":
		return no
	case strings.ContainsAny(tok, "*?"):
		return truth(glob(tok, s))
	case tok[0] == '.':
		n := len(s) - len(tok)
		return truth(n > 0 && fold(tok, s[max(n, 0):]))
	case fold(tok, "ALL"):
		return yes
	case fold(tok, "KNOWN"):
		return truth(!fold(s, unknown))
	case strings.HasSuffix(tok, "."):
		return truth(len(s) >= len(tok) && fold(tok, s[:len(tok)]))
	case bracketed(tok):
		return same6(tok, s)
	}
	return truth(fold(tok, s))
}
