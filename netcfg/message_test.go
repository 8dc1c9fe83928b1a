// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink/nl"
)

func TestSection(t *testing.T) {
	if s := section("x", []int(nil), nil); !s.Read() || s.Items == nil {
		t.Errorf("nothing there: %+v", s)
	}
	if s := section("x", []int(nil), errors.New("refused")); s.Read() || s.Items != nil || s.Why() != "x: refused" {
		t.Errorf("not read: %+v", s)
	}
	if s := section("x", []int{1}, nl.ErrDumpInterrupted); s.Read() || len(s.Items) != 1 || s.Why() == "" {
		t.Errorf("read in part: %+v", s)
	}
}

func TestRetry(t *testing.T) {
	times := 0
	read := func() ([]int, error) {
		if times++; times < 3 {
			return []int{times}, nl.ErrDumpInterrupted
		}
		return []int{times}, nil
	}
	if items, err := retry(read); err != nil || len(items) != 1 || items[0] != 3 {
		t.Errorf("held still the third time: %d, %v", items, err)
	}
	times = -100
	if items, err := retry(read); !errors.Is(err, nl.ErrDumpInterrupted) || len(items) != 1 || times != -100+dumpTries {
		t.Errorf("never held still: %d, %v after %d times", items, err, times+100)
	}
}
