// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/netcfg"
)

const (
	version   = 1
	maxRecord = 1 << 20 // bytes; a record of more is not ours
	suffix    = ".undo.json"
)

// Record says how a change is taken back.
type Record struct {
	Version   int       `json:"version"`
	ID        string    `json:"id"`
	Boot      string    `json:"boot"` // of /proc/sys/kernel/random/boot_id
	Who       Process   `json:"who"`
	Guard     Process   `json:"guard"`
	User      string    `json:"user,omitempty"` // who became root to do it, as far as it is known
	Made      time.Time `json:"made"`
	Deadline  time.Time `json:"deadline"`
	Namespace Namespace `json:"namespace"`
	What      string    `json:"what"`
	Mark      string    `json:"mark,omitempty"`
	Undo      []string  `json:"undo"`
}

// Process is one that may have ended: its id may then be another's.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // field 22 of /proc/PID/stat, in clock ticks since boot
}

// Namespace is a network namespace as it can be found again.
type Namespace struct {
	Name   string `json:"name"`
	Path   string `json:"path"` // where it was found, and may be no more
	Inode  uint64 `json:"inode"`
	Cookie uint64 `json:"cookie,omitempty"` // 0 before Linux 5.14
}

func namespaceOf(n *netcfg.Netns) Namespace {
	cookie, _ := n.Cookie() // without it the inode must do
	return Namespace{Name: n.Name, Path: n.Path(), Inode: n.Inode, Cookie: cookie}
}

// find opens the namespace. The error wraps [netcfg.ErrNoNetns] when it is gone.
func (n Namespace) find() (*netcfg.Netns, error) {
	found, err := netcfg.Open(n.Path)
	if err == nil && n.is(found) {
		return found, nil
	}
	if err == nil {
		found.Close()
	}
	if found, err = netcfg.Open(fmt.Sprintf("net:[%d]", n.Inode)); err != nil {
		return nil, err
	}
	if n.is(found) {
		return found, nil
	}
	found.Close()
	return nil, fmt.Errorf("%s: another has its number: %w", n.Name, netcfg.ErrNoNetns)
}

func (n Namespace) is(other *netcfg.Netns) bool {
	o := namespaceOf(other)
	return o.Inode == n.Inode && o.Cookie == n.Cookie
}

// stateDir is where records are, and the audit file's directory.
func stateDir() (records, log string) {
	if dir := os.Getenv("PATHTRACE_STATE_DIR"); dir != "" {
		return dir, dir
	}
	return "/run/pathtrace", "/var/log/pathtrace"
}

// makeDir makes a directory that only we may write to, or makes sure that it is one:
// what stands in records is run by a shell.
func makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return checkOwned(dir, true)
}

// ErrBusy says that another process of this host is trying a change.
var ErrBusy = errors.New("another pathtrace is trying a change on this host")

// Alone keeps other processes from being alone at the same time, until release is called or this
// process ends: two trials at once would each be seen in the other's probes.
func Alone() (release func(), err error) {
	dir, _ := stateDir()
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrBusy
		}
		return nil, err
	}
	return func() { f.Close() }, nil
}

func checkOwned(name string, dir bool) error {
	info, err := os.Lstat(name)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case info.IsDir() != dir || !dir && !info.Mode().IsRegular():
		return fmt.Errorf("%s: not a plain file or directory", name)
	case !ok || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s: not our own, or others may write to it", name)
	}
	return nil
}

// newID is eight hexadecimal digits.
func newID() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// draft is the name of a record that is not written yet.
func draft(path string) string { return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)) }

// create opens a locked file under the name of a draft.
func create(path string) (*os.File, error) {
	f, err := os.OpenFile(draft(path), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return f, nil
}

// save writes the record to f and gives it its name, both on disk when it returns.
func (r Record) save(f *os.File, dir string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if _, err := f.Write(append(data, '\n')); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), r.path(dir)); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (r Record) path(dir string) string { return filepath.Join(dir, r.ID+suffix) }

// parse reads a record. It refuses one of another version: what that means is not known.
func parse(data []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return r, err
	}
	if r.Version != version {
		return r, fmt.Errorf("a record of version %d; this program knows %d", r.Version, version)
	}
	if len(r.ID) != 8 || strings.Trim(r.ID, "0123456789abcdef") != "" {
		return r, fmt.Errorf("a record without an identifier")
	}
	return r, nil
}

// read reads the record in f, from its beginning.
func read(f *os.File) (Record, error) {
	data, err := io.ReadAll(io.NewSectionReader(f, 0, maxRecord))
	if err != nil {
		return Record{}, err
	}
	return parse(data)
}

// records returns the names of all records, oldest name first, and of the files that never became one.
func records(dir string) (names, drafts []string, err error) {
	if err := checkOwned(dir, true); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	} else if err != nil {
		return nil, nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case !strings.HasSuffix(name, suffix):
		case strings.HasPrefix(name, "."):
			drafts = append(drafts, filepath.Join(dir, name))
		default:
			names = append(names, filepath.Join(dir, name))
		}
	}
	slices.Sort(names)
	return names, drafts, nil
}

// open opens a record that only we may write to, and takes its lock if nobody has it. The
// error wraps [fs.ErrNotExist] when the change was taken back meanwhile.
func open(name string) (f *os.File, left bool, err error) {
	if err := checkOwned(name, false); err != nil {
		return nil, false, err
	}
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, false, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f = os.NewFile(uintptr(fd), name)
	switch err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); {
	case err == nil:
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Nlink == 0 { // removed by whoever had the lock
			f.Close()
			return nil, false, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		return f, true, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return f, false, nil
	default:
		f.Close()
		return nil, false, fmt.Errorf("lock %s: %w", name, err)
	}
}
