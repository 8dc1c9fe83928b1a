// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Verdicts of programs, by the kernel's numbers (linux/bpf.h, linux/pkt_cls.h).
const (
	xdpDrop, xdpPass   = 1, 2
	tcShot, tcContinue = 2, -1
	cgroupDeny         = 0
	cgroupAllow        = 1
)

// selector is the packets that a program decides about: those of TCP or UDP from or to the lab's service.
type selector struct {
	family   int
	protocol uint8 // IPPROTO_TCP when 0
	port     int   // Port when 0
	reply    bool  // from the service, not to it
}

// filterPackets is a program that returns hit for the selected packets and miss for all others. It
// reads Ethernet frames with headers of the ordinary length, as the lab's cables carry them.
func filterPackets(kind ebpf.ProgramType, s selector, hit, miss int32) asm.Instructions {
	data, end := int16(76), int16(80) // struct __sk_buff
	if kind == ebpf.XDP {
		data, end = 0, 4 // struct xdp_md
	}
	etherType, protocol, l4 := int32(unix.ETH_P_IP), int16(14+9), int16(14+20)
	if s.family == 6 {
		etherType, protocol, l4 = unix.ETH_P_IPV6, 14+6, 14+40
	}
	port := l4 + 2
	if s.reply {
		port = l4
	}
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, data, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, end, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, int32(l4)+4),
		asm.JGT.Reg(asm.R4, asm.R3, "miss"),
		asm.LoadMem(asm.R5, asm.R2, 12, asm.Half),
		asm.HostTo(asm.BE, asm.R5, asm.Half),
		asm.JNE.Imm(asm.R5, etherType, "miss"),
		asm.LoadMem(asm.R5, asm.R2, protocol, asm.Byte),
		asm.JNE.Imm(asm.R5, int32(or(s.protocol, unix.IPPROTO_TCP)), "miss"),
		asm.LoadMem(asm.R5, asm.R2, port, asm.Half),
		asm.HostTo(asm.BE, asm.R5, asm.Half),
		asm.JNE.Imm(asm.R5, int32(or(s.port, Port)), "miss"),
		asm.Mov.Imm(asm.R0, hit),
		asm.Return(),
		asm.Mov.Imm(asm.R0, miss).WithSymbol("miss"),
		asm.Return(),
	}
}

// always is a program that returns the same for all.
func always(value int32) asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, value), asm.Return()}
}

func load(name string, kind ebpf.ProgramType, attach ebpf.AttachType, code asm.Instructions) (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: kind, AttachType: attach, Instructions: code, License: "Dual BSD/GPL"})
	if err != nil {
		return nil, fmt.Errorf("load program %s: %w", name, err)
	}
	return p, nil
}

// keep closes a link with the lab.
func (l *Lab) keep(k link.Link, err error) error {
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.programs = append(l.programs, k)
	return nil
}

func (l *Lab) index(r Role, device string) (int, error) {
	d, err := l.links[r].LinkByName(device)
	if err != nil {
		return 0, fmt.Errorf("find %s in %s: %w", device, l.Netns(r), err)
	}
	return d.Attrs().Index, nil
}

// xdp puts an XDP program on a device, in the driver or the generic mode.
func xdp(r Role, device string, mode link.XDPAttachFlags, s selector, hit int32) func(*Lab) error {
	return func(l *Lab) error {
		p, err := load("lab_xdp", ebpf.XDP, 0, filterPackets(ebpf.XDP, s, hit, xdpPass))
		if err != nil {
			return err
		}
		defer p.Close()
		index, err := l.index(r, device)
		if err != nil {
			return err
		}
		return within(l.ns[r], func() error {
			return l.keep(link.AttachXDP(link.XDPOptions{Program: p, Interface: index, Flags: mode}))
		})
	}
}

// tcx puts a program on a device by a BPF link (Linux 6.6).
func tcx(r Role, device string, attach ebpf.AttachType, s selector, hit int32) func(*Lab) error {
	return func(l *Lab) error {
		p, err := load("lab_tcx", ebpf.SchedCLS, attach, filterPackets(ebpf.SchedCLS, s, hit, tcContinue))
		if err != nil {
			return err
		}
		defer p.Close()
		index, err := l.index(r, device)
		if err != nil {
			return err
		}
		return within(l.ns[r], func() error {
			return l.keep(link.AttachTCX(link.TCXOptions{Program: p, Interface: index, Attach: attach}))
		})
	}
}

// clsact puts a direct-action filter on a device, as tc(8) does; parent is netlink.HANDLE_MIN_INGRESS or _EGRESS.
func clsact(r Role, device string, parent uint32, s selector, hit int32) func(*Lab) error {
	return func(l *Lab) error {
		p, err := load("lab_cls", ebpf.SchedCLS, 0, filterPackets(ebpf.SchedCLS, s, hit, tcContinue))
		if err != nil {
			return err
		}
		defer p.Close()
		index, err := l.index(r, device)
		if err != nil {
			return err
		}
		q := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
		if err := l.links[r].QdiscAdd(q); err != nil {
			return fmt.Errorf("add clsact to %s of %s: %w", device, l.Netns(r), err)
		}
		f := &netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: parent, Handle: 1, Priority: 10, Protocol: unix.ETH_P_ALL},
			Fd: p.FD(), Name: "lab_cls", DirectAction: true}
		if err := l.links[r].FilterAdd(f); err != nil {
			return fmt.Errorf("add a filter to %s of %s: %w", device, l.Netns(r), err)
		}
		return nil
	}
}
