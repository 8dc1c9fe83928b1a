// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// recordDir holds one file for each living lab, locked by its owner. The kernel lets
// go of the lock when the owner dies in whatever way, which a pid, that may be used
// again, could not tell.
const recordDir = "/run/pathtrace-lab"

// openRecord creates and locks the record of a lab. It appears under its name already locked.
func openRecord(prefix string) (*os.File, error) {
	if err := os.MkdirAll(recordDir, 0o700); err != nil {
		return nil, fmt.Errorf("make a record of the lab: %w", err)
	}
	f, err := os.CreateTemp(recordDir, ".new-*")
	if err != nil {
		return nil, fmt.Errorf("make a record of the lab: %w", err)
	}
	defer os.Remove(f.Name())
	if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
		err = os.Link(f.Name(), recordPath(prefix))
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make a record of the lab: %w", err)
	}
	return f, nil
}

func recordPath(prefix string) string { return filepath.Join(recordDir, prefix) }

// Sweep removes what labs of dead processes have left: their namespaces, cgroups and records.
// Their processes have ended with their owner.
func Sweep() error {
	entries, err := os.ReadDir(recordDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for labs left behind: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") { // a record that is still being made
			errs = append(errs, sweepOne(e.Name()))
		}
	}
	return errors.Join(errs...)
}

func sweepOne(prefix string) error {
	f, err := os.Open(recordPath(prefix))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open record of lab %s: %w", prefix, err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil // its owner lives
	}
	// The owner may have ended in good order just now, and another lab have taken its name.
	mine, err1 := f.Stat()
	current, err2 := os.Stat(recordPath(prefix))
	if err1 != nil || err2 != nil || !os.SameFile(mine, current) {
		return nil
	}
	if err := errors.Join(removeCgroups(prefix), removeNamespaces(prefix)); err != nil {
		return err
	}
	if err := os.Remove(recordPath(prefix)); err != nil {
		return fmt.Errorf("remove record of lab %s: %w", prefix, err)
	}
	return nil
}
