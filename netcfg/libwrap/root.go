// SPDX-License-Identifier: Apache-2.0

package libwrap

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

const (
	maxFile  = 16 << 20
	maxLinks = 40 // as the kernel follows, path_resolution(7)
)

// Root returns a function that reads files as a process does whose root is
// dir: an absolute symbolic link stays below it too. /proc/PID/root of
// proc_pid_root(5) is the root of a process, with its own mounts; an empty dir
// is our own. Only regular files are read, and only small ones.
func Root(dir string) func(name string) ([]byte, error) {
	if dir == "" {
		dir = "/"
	}
	return func(name string) ([]byte, error) {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, fmt.Errorf("%s: %v", dir, err) // that it is missing does not say that the file is
		}
		defer root.Close()
		inside, err := resolve(root, name)
		if err != nil {
			return nil, err
		}
		return readRegular(root, inside)
	}
}

// resolve follows symbolic links; it returns a path without any, relative to root.
func resolve(root *os.Root, name string) (string, error) {
	done, todo, links := ".", name, 0
	for todo != "" {
		part, rest, _ := strings.Cut(todo, "/")
		todo = rest
		switch part {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		info, err := root.Lstat(next)
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			done = next
			continue
		}
		target, err := root.Readlink(next)
		if err != nil {
			return "", err
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "open", Path: name, Err: syscall.ELOOP}
		}
		if strings.HasPrefix(target, "/") {
			done = "."
		}
		todo = target + "/" + todo
	}
	return done, nil
}

func readRegular(root *os.Root, name string) ([]byte, error) {
	// A pipe must not keep us waiting between the look and the open.
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, &fs.PathError{Op: "read", Path: name, Err: syscall.EISDIR}
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = errors.New("it is too large")
	}
	if data == nil {
		data = []byte{}
	}
	return data, err
}
