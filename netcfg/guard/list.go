// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Pending is a change that was not taken back yet.
type Pending struct {
	Record Record
	Left   bool // nobody watches over it: [Replay] takes it back
}

// List returns the changes that are recorded.
func List() ([]Pending, error) {
	dir, _ := stateDir()
	names, _, err := records(dir)
	var list []Pending
	for _, name := range names {
		f, left, openErr := open(name)
		if errors.Is(openErr, fs.ErrNotExist) {
			continue
		}
		var r Record
		if openErr == nil {
			r, openErr = read(f)
			f.Close() // and its lock
		}
		if openErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", name, openErr))
			continue
		}
		list = append(list, Pending{r, left})
	}
	return list, err
}

// End has the guard of a change take it back now, and returns when it has ended.
func (r Record) End(ctx context.Context) error {
	fd, err := unix.PidfdOpen(r.Guard.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("guard of %s: %w", r.ID, err)
	}
	defer unix.Close(fd)
	if !r.Guard.Alive() { // the number is another's by now
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("guard of %s: %w", r.ID, err)
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 200)
		if n > 0 || ctx.Err() != nil || err != nil && !errors.Is(err, unix.EINTR) {
			return ctx.Err()
		}
	}
}
