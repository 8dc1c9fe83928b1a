// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"

	"github.com/pathtrace/pathtrace/internal/lab"
)

// farFaults are those on the other end whose joined verdict is timed.
var farFaults = []string{"nft-jumps", "no-listener"}

// connected is what --timing calls the time until ssh is up.
const connected = "connect_to_the_other_end_ns"

// overSSH measures how long --peer ssh:// takes from a shell on the other host to the verdict that both give.
func overSSH(ctx context.Context, b *bench) error {
	t := table{Title: "The other end over ssh", Head: []string{"fault", "until ssh is up, ms", "from then to the verdict, ms (p95)", "without --peer, ms", "verdict"},
		Note: "A real sshd, in a namespace of this machine: both ends' programs are loaded by the same CPUs. The other end is sent the program each time."}
	var all figures
	for _, name := range farFaults {
		row, after, err := b.farFault(ctx, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		t.Rows, all = append(t.Rows, row), append(all, after...)
	}
	b.now.Tables = append(b.now.Tables, t)
	b.now.target(target{What: "--peer: median from ssh being up to the joined verdict", Limit: 2000, Unit: "ms", Measured: all.median()})
	return nil
}

func (b *bench) farFault(ctx context.Context, name string) (row []string, after figures, err error) {
	f, ok := lab.Find(name)
	if !ok {
		return nil, nil, fmt.Errorf("the lab has no such fault")
	}
	l, err := lab.Start("bench", f)
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	dir, err := os.MkdirTemp("", "bench-ssh")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	ssh, err := l.StartSSHD(dir)
	if err != nil {
		return nil, nil, err
	}
	defer ssh.Close()
	far := append([]string{"--scope", "netns", "--peer", fmt.Sprintf("ssh://root@%s:%s", l.Addr(lab.Server, 4), ssh.Port)}, f.Arguments(l)...)
	var both, alone series
	var up figures
	for range max(5, b.runs/10) {
		t, err := b.traceBy(ctx, []string{"env", "PATH=" + ssh.Path}, l.Netns(lab.Client), f.Cause, far...)
		if err != nil {
			return nil, nil, err
		}
		both.add(t)
		up = append(up, float64(t.Timing[connected])/1e6)
		after = append(after, milliseconds(t.took)-up[len(up)-1])
		if t, err = b.trace(ctx, l.Netns(lab.Client), f.Cause, f.Arguments(l)...); err != nil {
			return nil, nil, err
		}
		alone.add(t)
	}
	return []string{name, ms(up.median()), fmt.Sprintf("%s (%s)", ms(after.median()), ms(after.p95())), ms(alone.took.median()), f.Cause + ", " + both.certainty}, after, nil
}
