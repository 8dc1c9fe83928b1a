// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/pathtrace/pathtrace/internal/lab"
)

// growPackets has strangers send as many packets a second as this machine can make.
func growPackets(ctx context.Context, b *bench) error {
	t := table{Title: "Growth: unrelated packets", Head: append([]string{"packets/s wanted", "packets/s arrived"}, growthHead...),
		Note: "Datagrams from the client to a closed port of the server, through the same namespaces; what arrived is counted while the traces ran."}
	var first float64
	for _, rate := range []int{0, 10_000, 200_000, 1_000_000} {
		s, arrived, err := b.withPackets(ctx, rate)
		if err != nil {
			return fmt.Errorf("%d packets/s: %w", rate, err)
		}
		if first == 0 {
			first = s.took.median()
		}
		t.Rows = append(t.Rows, s.row(first, "no-listener", fmt.Sprint(rate), fmt.Sprintf("%.0f", arrived)))
		if rate == 200_000 {
			g := target{What: "events lost at 200,000 unrelated packets/s", Limit: 0, Unit: "events", Measured: float64(s.lost)}
			if arrived < float64(rate)*0.95 {
				g.Untested = fmt.Sprintf("this machine made %.0f a second", arrived)
			}
			b.now.target(g)
		}
	}
	b.now.Tables = append(b.now.Tables, t)
	return nil
}

func (b *bench) withPackets(ctx context.Context, rate int) (s series, arrived float64, err error) {
	l, err := lab.New("bench")
	if err != nil {
		return s, 0, err
	}
	defer l.Close()
	for left := rate; left > 0; left -= 500_000 {
		f := lab.Flood{From: l.Addr(lab.Client, 4), To: netip.AddrPortFrom(l.Addr(lab.Server, 4), 9), UDP: true, Rate: min(left, 500_000)}
		if err := l.Flood(lab.Client, f); err != nil {
			return s, 0, err
		}
	}
	before, err := l.Received(lab.Server, lab.HostDevice)
	if err != nil {
		return s, 0, err
	}
	begin := time.Now()
	if s, err = b.measure(ctx, l, "no-listener"); err != nil {
		return s, 0, err
	}
	after, err := l.Received(lab.Server, lab.HostDevice)
	return s, float64(after-before) / time.Since(begin).Seconds(), err
}
