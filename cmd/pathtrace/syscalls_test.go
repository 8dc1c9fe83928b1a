// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/internal/lab"
)

// What a trace asks of the kernel, on every machine: ceilings on the system calls whose number does not
// depend on how threads are scheduled. sendto and sendmsg are the netlink requests, each with an answer to wait for.
var maxSyscalls = map[string]map[string]int{
	"no-route-client": {"bpf": 130, "netlink": 19, "socket": 20},
	"nft-output":      {"bpf": 160, "netlink": 60, "socket": 62},
}

var syscallNumbers = map[string][]uint32{
	"bpf":     {unix.SYS_BPF},
	"netlink": {unix.SYS_SENDTO, unix.SYS_SENDMSG},
	"socket":  {unix.SYS_SOCKET},
}

func TestSyscallCeilings(t *testing.T) {
	needRoot(t)
	if hooks := os.Getenv("PATHTRACE_HOOKS"); hooks != "" && hooks != "tracepoint" {
		t.Skip("the ceilings are those of the tracepoint tier")
	}
	bin := build(t)
	counts := countSyscalls(t)
	faults := lab.Faults()
	for name, ceilings := range maxSyscalls {
		at := slices.IndexFunc(faults, func(f lab.Fault) bool { return f.Name == name })
		if at < 0 {
			t.Fatalf("no fault %s", name)
		}
		f := faults[at]
		t.Run(name, func(t *testing.T) {
			l := startLab(t, f, 900+at)
			// in one namespace alone: how many there are is the machine's
			cmd := exec.Command(bin, append(arguments(l, f), "--scope", "netns")...)
			if a := runTrace(t, cmd); a.Verdict.Cause != f.Cause {
				t.Fatalf("the verdict is %s", a.Verdict.Cause)
			}
			for what, ceiling := range ceilings {
				n := 0
				for _, nr := range syscallNumbers[what] {
					var one uint64
					if counts.Lookup(syscallKey{uint32(cmd.Process.Pid), nr}, &one) == nil {
						n += int(one)
					}
				}
				t.Logf("%s: %d", what, n)
				if n == 0 || n > ceiling {
					t.Errorf("%d calls of %s, the ceiling is %d", n, what, ceiling)
				}
			}
		})
	}
}

type syscallKey struct{ PID, Number uint32 }

// countSyscalls has the kernel count the system calls of every process from now on.
func countSyscalls(t *testing.T) *ebpf.Map {
	t.Helper()
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { counts.Close() })
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.RawTracepoint, License: "Dual BSD/GPL", Instructions: asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 8, asm.DWord), // the number
		asm.FnGetCurrentPidTgid.Call(),
		asm.RSh.Imm(asm.R0, 32),
		asm.StoreMem(asm.RFP, -8, asm.R0, asm.Word),
		asm.StoreMem(asm.RFP, -4, asm.R6, asm.Word),
		asm.LoadMapPtr(asm.R1, counts.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -8),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "first"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.JEq.Reg(asm.R0, asm.R0, "end"),
		asm.Mov.Imm(asm.R1, 1).WithSymbol("first"),
		asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord),
		asm.LoadMapPtr(asm.R1, counts.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -8),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -16),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("end"),
		asm.Return(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_enter", Program: p})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return counts
}
