// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// self is the calling process.
func self() Process { return process(os.Getpid()) }

func process(pid int) Process { return Process{PID: pid, Start: startTime(pid)} }

// Alive reports whether the process still runs.
func (p Process) Alive() bool { return p.Start != 0 && startTime(p.PID) == p.Start }

// startTime is field 22 of /proc/PID/stat, or 0. The second field, in
// parentheses, may hold anything.
func startTime(pid int) uint64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0
	}
	start, _ := strconv.ParseUint(string(fields[19]), 10, 64) // 0 if it is none
	return start
}

// bootID differs after each boot; "" when it cannot be read.
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}

// user is who became root by sudo, or logged in, by name or number.
func user() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	id, _ := os.ReadFile("/proc/self/loginuid")
	if s := strings.TrimSpace(string(id)); s != "4294967295" {
		return s
	}
	return ""
}
