// SPDX-License-Identifier: Apache-2.0

// Command pathtrace sends one known packet, watches it in the kernel, and says
// where it died, by whom, and how to mend that.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/pathtrace/pathtrace/internal/lab"
	"github.com/pathtrace/pathtrace/netcfg/guard"
)

func main() {
	guard.Serve() // a guard is this program, started again
	lab.Helper()  // the demo's servers are this program, started again
	os.Exit(start())
}

func start() int {
	var caught []os.Signal
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) { // nohup, or a shell's background job
			caught = append(caught, s)
		}
	}
	ctx := context.Background()
	if len(caught) > 0 {
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, caught...)
		defer stop()
		// The first signal ends the trace and reports it; the next one kills.
		context.AfterFunc(ctx, stop)
	}
	// A pipe that `head` closed shall be an error of a write, not our death in
	// the middle of a trace. Notify, not Ignore: children must not inherit it.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}
