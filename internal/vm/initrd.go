// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// archive is a cpio archive in the "newc" format, as the kernel unpacks it.
type archive struct {
	bytes.Buffer
	inode int
}

func (a *archive) add(name string, mode uint32, data []byte) {
	a.inode++
	fmt.Fprintf(a, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	a.pad()
	a.Write(data)
	a.pad()
}

func (a *archive) pad() {
	for a.Len()%4 != 0 {
		a.WriteByte(0)
	}
}

const (
	modeDir  = 0o040755
	modeFile = 0o100644
	modeExec = 0o100755
)

// writeInitrd writes a file system of this very program as /init, its order, and the modules it loads.
func writeInitrd(path string, k kernel, r order) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	program, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	var a archive
	for _, dir := range []string{"proc", "sys", "dev", "host", "layer", "root", "m"} {
		a.add(dir, modeDir, nil)
	}
	a.add("init", modeExec, program)
	for _, file := range k.modules {
		data, err := readModule(file)
		if err != nil {
			return err
		}
		name := "m/" + strings.TrimSuffix(filepath.Base(file), ".xz")
		a.add(name, modeFile, data)
		r.Modules = append(r.Modules, "/"+name)
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	a.add("order.json", modeFile, text)
	a.add("TRAILER!!!", 0, nil)
	return os.WriteFile(path, a.Bytes(), 0o644)
}

func readModule(file string) ([]byte, error) {
	if strings.HasSuffix(file, ".xz") {
		return exec.Command("xz", "-dc", file).Output()
	}
	return os.ReadFile(file)
}
