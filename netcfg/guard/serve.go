// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/netcfg"
)

// Why a change was taken back.
const (
	WhyAsked      = "asked"
	WhyDeadline   = "deadline"
	WhyEnded      = "ended"      // the process that armed the guard
	WhyTerminated = "terminated" // the guard got SIGTERM
	WhyLeft       = "left"       // nobody watched over it any more
)

const ready = "ready\n"

// The guard's open files.
const (
	fdRecord = 3 + iota
	fdSocket
	fdNetns
)

// Serve turns this process into a guard when it was started as one by [Arm], and then
// does not return. A program that calls Arm calls it before anything else.
func Serve() {
	if len(os.Args) != 4 || os.Args[1] != "undo" || os.Args[2] != "--guard" {
		return
	}
	if err := serve(os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "pathtrace undo --guard:", err)
		os.Exit(2)
	}
	os.Exit(0)
}

func serve(path string) error {
	for fd := fdRecord; fd <= fdNetns; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return fmt.Errorf("pathtrace starts this itself, with a change to watch over")
		}
		unix.CloseOnExec(fd)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	// Noted, not ignored: what we start must not inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGPIPE)
	w := watcher{path: path, file: os.NewFile(fdRecord, path), socket: os.NewFile(fdSocket, "guarded"), term: term}
	n, err := netcfg.Open(fmt.Sprintf("/proc/self/fd/%d", fdNetns))
	if err != nil {
		return err
	}
	w.netns = n
	return w.watch()
}

// watcher is the guard in its own process.
type watcher struct {
	path   string // of the record
	file   *os.File
	socket *os.File
	netns  *netcfg.Netns
	term   <-chan os.Signal
}

func (w *watcher) watch() error {
	orders := w.orders()
	if _, err := io.WriteString(w.socket, ready); err != nil {
		return err
	}
	if o, ok := <-orders; !ok || o != orderArmed {
		// Nothing was changed yet, whatever became of the record.
		os.Remove(draft(w.path))
		os.Remove(w.path)
		return nil
	}
	r, err := read(w.file)
	if err != nil {
		return err
	}
	deadline := time.NewTimer(time.Until(r.Deadline))
	for {
		why := ""
		select {
		case <-deadline.C:
			why = WhyDeadline
		case <-w.term:
			why = WhyTerminated
		case o, ok := <-orders:
			switch {
			case !ok:
				why = WhyEnded
			case o == orderUndo:
				why = WhyAsked
			case o == orderKeep:
				return w.keep(r, "keeps in ")
			case o == orderDrop:
				return w.keep(r, "was refused in ")
			case o == orderDetach:
				orders = nil
				fmt.Fprint(w.socket, ready)
			}
		}
		if why != "" {
			return w.end(r, why)
		}
	}
}

// orders reads what we are told; the channel ends with the last process that can tell us anything.
func (w *watcher) orders() <-chan byte {
	orders := make(chan byte)
	go func() {
		defer close(orders)
		b := make([]byte, 1)
		for {
			if n, err := w.socket.Read(b); n == 0 || err != nil {
				return
			}
			orders <- b[0]
		}
	}()
	return orders
}

func (w *watcher) keep(r Record, does string) error {
	if err := os.Remove(w.path); err != nil {
		return err
	}
	_ = audit(does+r.Namespace.Name, r, "") // the change itself was noted
	_, err := io.WriteString(w.socket, ready)
	return err
}

func (w *watcher) end(r Record, why string) error {
	result := r.undo(w.netns, w.file, w.path, why)
	_ = json.NewEncoder(w.socket).Encode(result) // there may be nobody to read it
	return nil
}
