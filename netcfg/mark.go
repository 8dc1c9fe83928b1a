// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Marked reports whether a rule of n bears the mark in its comment: rules of
// nftables and iptables-nft in every family, and of iptables-legacy. It asks
// the kernel, not a tool, and may be used while rules change.
func (n *Netns) Marked(mark string) (bool, error) {
	if mark == "" {
		return false, nil
	}
	msgs, err := n.dump(unix.NETLINK_NETFILTER, nftMessage(unix.NFT_MSG_GETRULE), nftBody(unix.NFPROTO_UNSPEC), nftMessage(unix.NFT_MSG_NEWRULE))
	for _, m := range msgs {
		// nft keeps a comment in NFTA_RULE_USERDATA, iptables-nft in a match.
		if bytes.Contains(m, []byte(mark)) {
			return true, nil
		}
	}
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) { // these: no nf_tables
		return false, fmt.Errorf("nft rules: %w", err)
	}
	for _, family := range []int{4, 6} {
		tables, err := n.LegacyTableNames(family)
		if err != nil {
			return false, err
		}
		for _, table := range tables {
			if marked, err := n.legacyMarked(family, table, mark); marked || err != nil {
				return marked, err
			}
		}
	}
	return false, nil
}

func (n *Netns) legacyMarked(family int, table, mark string) (bool, error) {
	marked := false
	err := n.legacyBlob(family, table, func(_, entries []byte) error {
		marked = bytes.Contains(entries, []byte(mark))
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // removed since
	}
	if err != nil {
		return false, fmt.Errorf("legacy table %s of ipv%d: %w", table, family, err)
	}
	return marked, nil
}

// Cookie identifies n until the next boot: unlike inode numbers, cookies are
// not used again (SO_NETNS_COOKIE, Linux 5.14).
func (n *Netns) Cookie() (cookie uint64, err error) {
	err = n.Do(func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("cookie of %s: %w", n.Name, err)
	}
	return cookie, nil
}

// File returns n as an open file, for a process to be started with. The caller closes it.
func (n *Netns) File() (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(n.handle), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("network namespace %s: %w", n.Name, err)
	}
	return os.NewFile(uintptr(fd), "netns "+n.Name), nil
}

// Path leads to n for as long as whatever holds it there: a mount, or a process that is in it.
func (n *Netns) Path() string { return n.path }
