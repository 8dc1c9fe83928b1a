// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// reap is a command to be killed after a while.
type reap struct {
	After time.Duration
	Argv  []string
}

// KillAfter runs a command, kills it by SIGKILL after a while if it still runs, and returns
// when it and every process it has left behind have ended: what such a process
// was to put right, it has then put right.
func KillAfter(ctx context.Context, after time.Duration, argv ...string) error {
	arg, err := json.Marshal(job{Reap: &reap{after, argv}})
	if err != nil {
		return fmt.Errorf("describe the command: %w", err)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", string(arg))
	cmd.Env = append(os.Environ(), helperEnv+"=1")
	cmd.ExtraFiles = []*os.File{os.Stderr} // the place of the parent's pipe
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run and kill %s: %w: %s", argv[0], err, out)
	}
	return nil
}

func (r reap) run() error {
	// Orphans of the command become our children, so that their end can be awaited.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become a reaper: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open the null device: %w", err)
	}
	p, err := os.StartProcess(r.Argv[0], r.Argv, &os.ProcAttr{Files: []*os.File{null, null, null}})
	if err != nil {
		return fmt.Errorf("start %s: %w", r.Argv[0], err)
	}
	kill := time.AfterFunc(r.After, func() { p.Kill() })
	defer kill.Stop()
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); errors.Is(err, unix.ECHILD) {
			return nil
		} else if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the processes left: %w", err)
		}
	}
}
