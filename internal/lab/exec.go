// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/vishvananda/netns"
)

// within runs fn on a thread that is in the given namespace.
func within(ns netns.NsHandle, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.GetFromPath("/proc/thread-self/ns/net")
		if err != nil {
			done <- fmt.Errorf("open own namespace: %w", err)
			return
		}
		defer home.Close()
		if err := netns.Set(ns); err != nil {
			done <- fmt.Errorf("enter namespace: %w", err)
			return
		}
		err = fn()
		// Only a thread that is home again may serve others; else it ends with this goroutine.
		// Going home is tried first because the main thread cannot end.
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// Run runs a command in a namespace; the error holds what it printed.
func (l *Lab) Run(r Role, argv ...string) error {
	_, err := l.output(r, "", argv)
	return err
}

// Output runs a command in a namespace and returns what it printed on stdout.
func (l *Lab) Output(r Role, argv ...string) (string, error) { return l.output(r, "", argv) }

func (l *Lab) output(r Role, stdin string, argv []string) (string, error) {
	path, err := tool(argv[0])
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	err = within(l.ns[r], func() error {
		cmd := exec.Command(path, argv[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		return cmd.Run()
	})
	if err != nil {
		return "", fmt.Errorf("%s in %s: %w: %s", strings.Join(argv, " "), l.Netns(r), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Nft loads an nftables script in a namespace.
func (l *Lab) Nft(r Role, script string) error {
	_, err := l.output(r, script, []string{"nft", "-f", "-"})
	return err
}

// IP runs the ip command in a namespace on the given family.
func (l *Lab) IP(r Role, family int, args string) error {
	return l.Run(r, append([]string{"ip", fmt.Sprintf("-%d", family)}, strings.Fields(args)...)...)
}

// Sysctl sets a sysctl in a namespace.
func (l *Lab) Sysctl(r Role, name, value string) error {
	err := within(l.ns[r], func() error {
		return os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0o644)
	})
	if err != nil {
		return fmt.Errorf("set %s to %s in %s: %w", name, value, l.Netns(r), err)
	}
	return nil
}

// AddAddress gives a device of a namespace one more address, and returns when that can be used.
func (l *Lab) AddAddress(r Role, device string, p netip.Prefix) error {
	link, err := l.links[r].LinkByName(device)
	if err != nil {
		return fmt.Errorf("find %s in %s: %w", device, l.Netns(r), err)
	}
	events, err := l.watch(r)
	if err != nil {
		return err
	}
	defer events.Close()
	if err := l.addAddress(r, link, p); err != nil || p.Addr().Is4() {
		return err
	}
	return await(events, func() (bool, error) { return l.local6(r, link, p.Addr().String()) })
}
