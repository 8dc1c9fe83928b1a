// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

var (
	hostForm = regexp.MustCompile(`^[A-Za-z0-9_.:%][A-Za-z0-9_.:%-]*$`) // a name, an alias of ssh_config, or an address
	userForm = regexp.MustCompile(`^[A-Za-z0-9_.][A-Za-z0-9_.@\\+$-]*$`)
)

// SSH is the way over the user's own ssh to ssh://[USER@]HOST[:PORT]. Connecting may take so many seconds.
func SSH(address string, seconds int) (Way, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Scheme != "ssh" || u.Opaque != "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return Way{}, fmt.Errorf("not ssh://[USER@]HOST[:PORT]")
	case !hostForm.MatchString(u.Hostname()):
		return Way{}, fmt.Errorf("%q is not a host", u.Hostname())
	}
	args := []string{"-T", "-e", "none", "-o", "ClearAllForwardings=yes", "-o", "ConnectTimeout=" + strconv.Itoa(seconds)}
	if name := u.User.Username(); name != "" {
		if _, secret := u.User.Password(); secret {
			return Way{}, fmt.Errorf("ssh takes no password from a command line: it asks for it")
		}
		if !userForm.MatchString(name) {
			return Way{}, fmt.Errorf("%q is not a user", name)
		}
		args = append(args, "-l", name)
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return Way{}, fmt.Errorf("%q is not a port", p)
		}
		args = append(args, "-p", p)
	}
	args = append(args, "--", u.Hostname())
	return Way{Text: address, Host: u.Hostname(), Command: func(run string) *exec.Cmd {
		cmd := exec.Command("ssh", append(args, run)...)
		asCaller(cmd)
		return cmd
	}}, nil
}

// Shell is the way through a command that gives a root shell on its standard input and output.
func Shell(cmd string) Way {
	return Way{Text: cmd, Reads: true, Command: func(string) *exec.Cmd { return exec.Command("/bin/sh", "-c", cmd) }}
}

// asCaller has ssh run as who called sudo: the keys, the configuration and the
// known hosts are theirs, and so is the agent, whose socket sudo forgets.
func asCaller(cmd *exec.Cmd) {
	uid, err := strconv.ParseUint(os.Getenv("SUDO_UID"), 10, 32)
	if err != nil || uid == 0 || os.Geteuid() != 0 {
		return
	}
	u, err := user.LookupId(strconv.FormatUint(uid, 10))
	if err != nil {
		return
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return
	}
	groups := []uint32{uint32(gid)}
	if ids, err := u.GroupIds(); err == nil {
		for _, id := range ids {
			if n, err := strconv.ParseUint(id, 10, 32); err == nil {
				groups = append(groups, uint32(n))
			}
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: groups}}
	cmd.Env = append(os.Environ(), "HOME="+u.HomeDir, "USER="+u.Username, "LOGNAME="+u.Username)
	if os.Getenv("SSH_AUTH_SOCK") == "" {
		if sock := callersAgent(uint32(uid)); sock != "" {
			cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK="+sock)
		}
	}
}

// callersAgent is SSH_AUTH_SOCK of the nearest process above us that is the user's: the shell that sudo was typed in.
func callersAgent(uid uint32) string {
	for pid, depth := os.Getppid(), 0; pid > 1 && depth < 16; depth++ {
		dir := "/proc/" + strconv.Itoa(pid)
		info, err := os.Stat(dir)
		if err != nil {
			return ""
		}
		if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Uid == uid {
			env, _ := os.ReadFile(dir + "/environ") // one that cannot be read names no agent
			for word := range strings.SplitSeq(string(env), "\x00") {
				if sock, ok := strings.CutPrefix(word, "SSH_AUTH_SOCK="); ok {
					return sock
				}
			}
		}
		pid = parent(dir)
	}
	return ""
}

// parent is the fourth field of /proc/PID/stat; the second, in parentheses, may hold anything.
func parent(dir string) int {
	b, _ := os.ReadFile(dir + "/stat")
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	pid, _ := strconv.Atoi(fields[1])
	return pid
}
