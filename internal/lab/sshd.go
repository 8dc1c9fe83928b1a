// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// SSHD is a real sshd in the server's namespace, which lets root in by a key of its own.
type SSHD struct {
	Port string
	Path string // with this PATH, ssh knows the server and has the key

	cmd  *exec.Cmd
	made string // directory to be removed, empty: none
}

// StartSSHD starts sshd; dir, which the caller removes, holds its files and those of ssh.
func (l *Lab) StartSSHD(dir string) (*SSHD, error) {
	s := &SSHD{Port: "2222", Path: dir + ":" + os.Getenv("PATH")}
	const separated = "/run/sshd" // sshd's privilege separation wants it; a package makes it at boot
	if err := os.Mkdir(separated, 0o755); err == nil {
		s.made = separated
	}
	if err := s.configure(dir, l.Addr(Server, 4).String()); err != nil {
		s.Close()
		return nil, err
	}
	s.cmd = exec.Command("ip", "netns", "exec", l.Netns(Server), "/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(dir, "sshd_config"))
	log, err := s.cmd.StderrPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		s.cmd = nil
		s.Close()
		return nil, fmt.Errorf("start sshd: %w", err)
	}
	var last string
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if last = lines.Text(); strings.Contains(last, "Server listening") {
			go func() { _, _ = io.Copy(io.Discard, log) }()
			return s, nil
		}
	}
	s.Close()
	return nil, fmt.Errorf("sshd ended: %s", last)
}

// configure writes what sshd and ssh read, and an ssh in front of the user's own that reads it.
func (s *SSHD) configure(dir, server string) error {
	for _, key := range []string{"host", "mine"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)).CombinedOutput(); err != nil {
			return fmt.Errorf("make a key: %w: %s", err, out)
		}
	}
	public, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	if err != nil {
		return err
	}
	real, err := exec.LookPath("ssh")
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name, text string
		mode       os.FileMode
	}{
		{"known", fmt.Sprintf("[%s]:%s %s", server, s.Port, public), 0o600},
		{"ssh_config", fmt.Sprintf("Host *\nIdentityFile %s/mine\nIdentitiesOnly yes\nUserKnownHostsFile %s/known\n", dir, dir), 0o600},
		{"ssh", fmt.Sprintf("#!/bin/sh\nexec %s -F %s/ssh_config \"$@\"\n", real, dir), 0o755},
		{"sshd_config", fmt.Sprintf("Port %s\nListenAddress %s\nHostKey %s/host\nAuthorizedKeysFile %s/mine.pub\nStrictModes no\nUsePAM no\nPidFile none\nLogLevel VERBOSE\n", s.Port, server, dir, dir), 0o600},
	} {
		if err := os.WriteFile(filepath.Join(dir, f.name), []byte(f.text), f.mode); err != nil {
			return err
		}
	}
	return nil
}

// Close ends sshd.
func (s *SSHD) Close() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill() // or it has just ended
		_ = s.cmd.Wait()
	}
	if s.made != "" {
		_ = os.Remove(s.made) // another sshd may have a use for it by now
	}
}
