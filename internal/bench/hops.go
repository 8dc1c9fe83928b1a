// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pathtrace/pathtrace/internal/lab"
)

// tracers are what people would follow a way with instead, each with its defaults but for names.
func tracers(to netip.AddrPort) map[string][]string {
	host, port := to.Addr().String(), strconv.Itoa(int(to.Port()))
	return map[string][]string{
		"traceroute -T":    {"traceroute", "-T", "-n", "-p", port, host},
		"mtr --tcp -r -c1": {"mtr", "--tcp", "-P", port, "-n", "-r", "-c", "1", host},
		"tcptraceroute":    {"tcptraceroute", "-n", host, port},
	}
}

var tracerNames = []string{"traceroute -T", "mtr --tcp -r -c1", "tcptraceroute"}

// tracerLimit is how long one of them may take: traceroute gives up a way that ends in silence after 25 seconds.
const tracerLimit = 40 * time.Second

// hopPlaces are the placements that are compared, of those that the tests assert.
var hopPlaces = []string{"drop-first", "drop-behind-nat", "reset-behind-nat", "refuse-behind-nat", "narrow-nat"}

// hops measures how long it takes to say where on the way a fault lies.
func hops(ctx context.Context, b *bench) error {
	t := table{Title: "Hop by hop", Head: append([]string{"fault at", "pathtrace says", "pathtrace s"}, tracerNames...),
		Note: fmt.Sprintf("A line of %d routers before the server, all but the client unwatched (`--scope netns`): the second keeps silent about packets whose TTL has run out, the third answers five times a second, "+
			"the fourth translates. Median seconds, from the start of the process to its end, and how many addresses of routers were found. pathtrace is run as ever: its probe waits for three seconds (-w) before the way is walked. "+
			"`narrow-nat` is a link that takes 1400 bytes, and the error about it is dropped: to small SYNs that way is whole.", lab.LineRouters)}
	var own, theirs float64
	for _, p := range lab.Placements() {
		if !slices.Contains(hopPlaces, p.Name) {
			continue
		}
		row, mine, traceroute, err := b.place(ctx, p)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		t.Rows = append(t.Rows, row)
		own, theirs = own+mine, theirs+traceroute
		if p.Cause == "remote-silent" && traceroute > 0 {
			b.now.target(target{What: "hop by hop, " + p.Name + ": time, of traceroute -T's", Limit: 0.5, Unit: "×", Measured: mine / traceroute})
		}
	}
	if theirs > 0 {
		b.now.target(target{What: "hop by hop, all places together: time, of traceroute -T's", Limit: 0.5, Unit: "×", Measured: own / theirs})
	}
	b.now.Tables = append(b.now.Tables, t)
	return nil
}

// place traces one placement with pathtrace and the others in turn; own and traceroute are medians in milliseconds.
func (b *bench) place(ctx context.Context, p lab.Placement) (row []string, own, traceroute float64, err error) {
	l, err := lab.StartPlacement("bench", p)
	if err != nil {
		return nil, 0, 0, err
	}
	defer l.Close()
	to := lab.LineTarget(4)
	commands := tracers(to)
	args := []string{"--scope", "netns", to.String()}
	if p.Talk {
		args = append(args, lab.LineTalk...)
	}
	var s series
	seen := 0
	took, found := map[string]figures{}, map[string]int{}
	for range max(5, b.runs/10) {
		t, err := b.trace(ctx, l.Netns(lab.Client), p.Cause, args...)
		if err != nil {
			return nil, 0, 0, err
		}
		s.add(t)
		if seen, err = walkedBy(t.stdout); err != nil {
			return nil, 0, 0, err
		}
		for _, name := range tracerNames {
			if !runs(commands[name][0]) || took[name].median() >= milliseconds(tracerLimit) {
				continue
			}
			r, err := timed(ctx, tracerLimit, l.Netns(lab.Client), commands[name]...)
			if err != nil && (ctx.Err() != nil || r.took < tracerLimit) {
				return nil, 0, 0, err
			}
			took[name], found[name] = append(took[name], milliseconds(r.took)), max(found[name], routersIn(strings.Fields(string(r.stdout))))
		}
	}
	says := fmt.Sprintf("%s, %s", p.Cause, s.certainty)
	if p.TTL != 0 {
		says = fmt.Sprintf("%s at TTL %d, %s", p.Cause, p.TTL, s.certainty)
	}
	own = s.took.median()
	row = []string{p.Name, says, fmt.Sprintf("%.2f, %d routers", own/1000, seen)}
	for _, name := range tracerNames {
		switch m := took[name].median(); {
		case m == 0:
			row = append(row, "does not run here")
		case m >= milliseconds(tracerLimit):
			row = append(row, fmt.Sprintf("> %.0f, %d routers", tracerLimit.Seconds(), found[name]))
		default:
			row = append(row, fmt.Sprintf("%.2f, %d routers, %.2g×", m/1000, found[name], m/own))
		}
	}
	return row, own, took["traceroute -T"].median(), nil
}

// routersIn counts which of the line's routers are named.
func routersIn(words []string) (n int) {
	for i := range lab.LineRouters {
		if slices.Contains(words, lab.LineAddr(i, 4, true).String()) {
			n++
		}
	}
	return n
}

// walkedBy counts the routers that pathtrace found.
func walkedBy(document []byte) (int, error) {
	var d struct {
		Walks []struct {
			Hops []struct{ Address string }
		}
	}
	if err := json.Unmarshal(document, &d); err != nil {
		return 0, err
	}
	var words []string
	for _, w := range d.Walks {
		for _, h := range w.Hops {
			words = append(words, h.Address)
		}
	}
	return routersIn(words), nil
}
