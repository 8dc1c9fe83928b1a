// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/internal/lab"
	"github.com/pathtrace/pathtrace/netcfg"
)

// measure traces the lab's service some times; what it costs first, in caches, is left out.
func (b *bench) measure(ctx context.Context, l *lab.Lab, cause string) (s series, err error) {
	for i := range max(b.runs/5, 3) + 1 {
		t, err := b.trace(ctx, l.Netns(lab.Client), cause, target4(l))
		if err != nil {
			return s, err
		}
		if i > 0 {
			s.add(t)
		}
		if i >= 3 && s.took.median() > milliseconds(slow) {
			break
		}
	}
	return s, nil
}

func target4(l *lab.Lab) string { return fmt.Sprintf("%s:%d", l.Addr(lab.Server, 4), lab.Port) }

var growthHead = []string{"median ms", "p95 ms", "of the first row", "memory MiB", "verdict", "lost events"}

// row of a table of growth; first is the median of its first row.
func (s series) row(first float64, cause string, cells ...string) []string {
	return append(cells, ms(s.took.median()), ms(s.took.p95()), fmt.Sprintf("%.2f", s.took.median()/first), ms(s.memory.median()),
		cause+", "+s.certainty, fmt.Sprint(s.lost))
}

// ruleset writes n rules that do not match and one that drops, in the form of one tool.
type ruleset struct {
	name string
	load []string // the command that reads it
	text func(b io.Writer, n int)
	long string // why it takes longer with 100,000 rules
}

func nftRules(b io.Writer, n int) {
	io.WriteString(b, "flush ruleset\ntable inet grown {\nchain input {\ntype filter hook input priority filter\n")
	for i := range n {
		fmt.Fprintf(b, "ip saddr 10.%d.%d.%d tcp dport %d accept\n", i>>16, i>>8&255, i&255, 10000+i%10000)
	}
	fmt.Fprintf(b, "tcp dport %d drop\n}\n}\n", lab.Port)
}

func nftSet(b io.Writer, n int) {
	io.WriteString(b, "flush ruleset\ntable inet grown {\nset friends {\ntype ipv4_addr\nelements = { ")
	for i := range n {
		fmt.Fprintf(b, "10.%d.%d.%d, ", i>>16, i>>8&255, i&255)
	}
	fmt.Fprintf(b, "}\n}\nchain input {\ntype filter hook input priority filter\nip saddr @friends accept\ntcp dport %d drop\n}\n}\n", lab.Port)
}

func iptablesRules(b io.Writer, n int) {
	io.WriteString(b, "*filter\n:INPUT ACCEPT\n")
	for i := range n {
		fmt.Fprintf(b, "-A INPUT -s 10.%d.%d.%d -p tcp --dport %d -j ACCEPT\n", i>>16, i>>8&255, i&255, 10000+i%10000)
	}
	fmt.Fprintf(b, "-A INPUT -p tcp --dport %d -j DROP\nCOMMIT\n", lab.Port)
}

var rulesets = []ruleset{
	{"nft rules", []string{"nft", "-f", "-"}, nftRules, quadratic},
	{"nft set", []string{"nft", "-f", "-"}, nftSet, "nft reads all elements of a table's sets before it lists one of its chains; the memory is its own"},
	{"iptables-nft", []string{"iptables-nft-restore"}, iptablesRules, quadratic + "; the memory is iptables-nft-save's"},
	{"iptables-legacy", []string{"iptables-legacy-restore"}, iptablesRules,
		"the kernel copies the whole table, field by field (do_ipt_get_ctl): to us, to iptables-legacy-save, and to us again to know that it is the same"},
}

// quadratic is why long chains of nftables cost what they cost.
const quadratic = "the kernel's dump of a chain goes over it from its head again for each message of a hundred rules (nf_tables_dump_rules)"

func growRules(ctx context.Context, b *bench) error {
	t := table{Title: "Growth: rules", Head: append([]string{"rules of", "number"}, growthHead...),
		Note: "The last rule of the server's input chain drops the probe; those before it match nothing."}
	for _, kind := range rulesets {
		var first series
		for n := 10; n <= 100_000; n *= 10 {
			s, err := b.withRules(ctx, kind, n)
			if err != nil {
				return fmt.Errorf("%d of %s: %w", n, kind.name, err)
			}
			if n == 10 {
				first = s
			}
			t.Rows = append(t.Rows, s.row(first.took.median(), "firewall-drop", kind.name, fmt.Sprint(n)))
			if n < 100_000 {
				continue
			}
			b.now.target(target{What: "100,000 rules against 10, " + kind.name, Limit: 3, Unit: "×", Measured: s.took.median() / first.took.median(), Reason: kind.long})
			b.now.target(target{What: "peak memory at 100,000 rules, " + kind.name, Limit: 40, Unit: "MiB", Measured: s.memory.median(),
				Reason: fmt.Sprintf("%.1f MiB with 10 rules", first.memory.median())})
		}
	}
	b.now.Tables = append(b.now.Tables, t)
	return nil
}

func (b *bench) withRules(ctx context.Context, kind ruleset, n int) (s series, err error) {
	l, err := lab.New("bench")
	if err != nil {
		return s, err
	}
	defer l.Close()
	file, err := os.CreateTemp("", "bench-rules-*")
	if err != nil {
		return s, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	w := bufio.NewWriter(file) // not in memory: what this process takes before it starts another counts as the other's (getrusage(2))
	kind.text(w, n)
	if err := w.Flush(); err != nil {
		return s, err
	}
	if err := within(l.Netns(lab.Server), func() error { return feed(file.Name(), kind.load) }); err != nil {
		return s, err
	}
	return b.measure(ctx, l, "firewall-drop")
}

// feed runs a command of this thread's namespace with a file on its standard input.
func feed(name string, argv []string) error {
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = in
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %.200s", strings.Join(argv, " "), err, out)
	}
	return nil
}

func within(name string, f func() error) error {
	n, err := netcfg.Open(name)
	if err != nil {
		return err
	}
	defer n.Close()
	return n.Do(f)
}

func growRoutes(ctx context.Context, b *bench) error {
	t := table{Title: "Growth: routes", Head: append([]string{"routes a table", "tables"}, growthHead...),
		Note: "In the client, with one ip rule a table; nothing listens at the server."}
	var first float64
	for _, size := range [][2]int{{1, 1}, {10, 10}, {100, 100}, {1000, 100}} {
		s, err := b.withRoutes(ctx, size[0], size[1])
		if err != nil {
			return err
		}
		if first == 0 {
			first = s.took.median()
		}
		t.Rows = append(t.Rows, s.row(first, "no-listener", fmt.Sprint(size[0]), fmt.Sprint(size[1])))
	}
	b.now.Tables = append(b.now.Tables, t)
	return nil
}

func (b *bench) withRoutes(ctx context.Context, routes, tables int) (s series, err error) {
	l, err := lab.New("bench")
	if err != nil {
		return s, err
	}
	defer l.Close()
	file, err := os.CreateTemp("", "bench-routes-*")
	if err != nil {
		return s, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	for i := range tables {
		fmt.Fprintf(file, "rule add pref %d table %d\n", 1000+i, 1000+i)
		for j := range routes {
			fmt.Fprintf(file, "route add 10.%d.%d.0/24 dev %s table %d\n", j>>8, j&255, lab.HostDevice, 1000+i)
		}
	}
	if err := within(l.Netns(lab.Client), func() error { return feed(file.Name(), []string{"ip", "-batch", "-"}) }); err != nil {
		return s, err
	}
	return b.measure(ctx, l, "no-listener")
}

func growNamespaces(ctx context.Context, b *bench) (err error) {
	t := table{Title: "Growth: namespaces of the host", Head: append([]string{"namespaces more"}, growthHead...), Note: "Each is joined to the server by a veth pair, as those of containers are to their host."}
	l, err := lab.New("bench")
	if err != nil {
		return err
	}
	defer l.Close()
	var more []string
	defer func() {
		for _, name := range more {
			netns.DeleteNamed(name)
		}
	}()
	var first float64
	for _, n := range []int{1, 10, 100, 500} {
		for len(more) < n {
			name := fmt.Sprintf("bench-%d-%d", os.Getpid(), len(more))
			if err := addNamespace(name); err != nil {
				return err
			}
			more = append(more, name)
			if err := within(l.Netns(lab.Server), func() error { return joinTo(name, len(more)) }); err != nil {
				return err
			}
		}
		s, err := b.measure(ctx, l, "no-listener")
		if err != nil {
			return fmt.Errorf("%d namespaces: %w", n, err)
		}
		if first == 0 {
			first = s.took.median()
		}
		t.Rows = append(t.Rows, s.row(first, "no-listener", fmt.Sprint(n)))
	}
	b.now.Tables = append(b.now.Tables, t)
	return nil
}

// addNamespace makes a namespace on a thread that ends with it.
func addNamespace(name string) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		h, err := netns.NewNamed(name)
		if err == nil {
			h.Close()
			err = netns.Set(home)
		}
		if err == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// joinTo joins the calling thread's namespace to another by a veth pair.
func joinTo(name string, n int) error {
	there, err := netns.GetFromName(name)
	if err != nil {
		return err
	}
	defer there.Close()
	a := netlink.NewLinkAttrs()
	a.Name = fmt.Sprintf("bench%d", n)
	return netlink.LinkAdd(&netlink.Veth{LinkAttrs: a, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(there))})
}

func growSockets(ctx context.Context, b *bench) error {
	t := table{Title: "Growth: sockets", Head: append([]string{"listeners"}, growthHead...), Note: "Held by one process in the server's namespace, none on the port that is asked for."}
	l, err := lab.New("bench")
	if err != nil {
		return err
	}
	defer l.Close()
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	files.Cur = files.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("room for open files: %w", err)
	}
	var held []int
	defer func() {
		for _, fd := range held {
			unix.Close(fd)
		}
	}()
	var first float64
	for _, n := range []int{1, 100, 10_000, 50_000} {
		n = min(n, int(files.Max)-200)
		err := within(l.Netns(lab.Server), func() error {
			for len(held) < n {
				fd, err := listener(10_000 + len(held))
				if err != nil {
					return err
				}
				held = append(held, fd)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%d sockets: %w", n, err)
		}
		s, err := b.measure(ctx, l, "no-listener")
		if err != nil {
			return fmt.Errorf("%d sockets: %w", n, err)
		}
		if first == 0 {
			first = s.took.median()
		}
		t.Rows = append(t.Rows, s.row(first, "no-listener", fmt.Sprint(n)))
	}
	b.now.Tables = append(b.now.Tables, t)
	return nil
}

func listener(port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		unix.Close(fd)
	}
	return fd, err
}
