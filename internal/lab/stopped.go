// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// stopped runs the service in a child and stops that once it listens: a
// stopped process cannot see its parent leave, so it needs one that can.
func (what Listen) stopped(say func(string)) error {
	runtime.LockOSThread() // whose end, if this process is killed, is that of the child
	defer runtime.UnlockOSThread()
	what.Behaviour = Hold
	cmd, err := again(job{Listen: &what})
	if err != nil {
		return err
	}
	said, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.ExtraFiles, cmd.SysProcAttr = []*os.File{tell}, &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	tell.Close()
	if err != nil {
		return fmt.Errorf("start the service: %w", err)
	}
	defer func() { cmd.Process.Kill(); stdin.Close(); cmd.Wait() }()
	if line, err := bufio.NewReader(said).ReadString('\n'); err != nil || strings.TrimSpace(line) != "ready" {
		return fmt.Errorf("start the service: %s, %v", strings.TrimSpace(line), err)
	}
	if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
		return fmt.Errorf("stop the service: %w", err)
	}
	if _, err := unix.Wait4(cmd.Process.Pid, nil, unix.WUNTRACED, nil); err != nil {
		return fmt.Errorf("wait until the service is stopped: %w", err)
	}
	say("ready")
	io.Copy(io.Discard, os.Stdin)
	return nil
}
