// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/bpf"
	"github.com/pathtrace/pathtrace/evidence"
)

const (
	progWrapAsk    = "wrap_ask"
	progWrapAnswer = "wrap_answer"
)

// registers are the offsets in struct pt_regs of the first argument, the
// result and the instruction's address (asm/ptrace.h).
var registers = map[string][3]uint32{
	"amd64": {112, 80, 128},
	"arm64": {0, 0, 256},
}

func setRegisters(spec *ebpf.CollectionSpec) error {
	r := registers[runtime.GOARCH]
	for i, name := range []string{"reg_argument", "reg_result", "reg_address"} {
		if err := spec.Variables[name].Set(r[i]); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// wrapPrograms takes the programs that go onto a library out of spec: they are
// loaded when one is to be watched.
func wrapPrograms(spec *ebpf.CollectionSpec) *ebpf.CollectionSpec {
	wraps := spec.Copy()
	for name := range spec.Programs {
		if name != progWrapAsk && name != progWrapAnswer {
			delete(wraps.Programs, name)
		}
	}
	delete(spec.Programs, progWrapAsk)
	delete(spec.Programs, progWrapAnswer)
	return wraps
}

// WatchLibwrap has every process that maps the shared library libwrap at path
// tell what it asks it about the probe's connection. A path below
// /proc/PID/map_files is the very file that the process PID uses.
func (t *Tracer) WatchLibwrap(path string) error {
	cookie, err := wrapCookie(path)
	if err != nil {
		return err
	}
	if err := t.loadWraps(); err != nil {
		return fmt.Errorf("load the programs for libwrap: %w", err)
	}
	file, err := link.OpenExecutable(path)
	if err != nil {
		return err
	}
	ask, answer := t.coll.Programs[progWrapAsk], t.coll.Programs[progWrapAnswer]
	attach := attachUprobes
	if t.manyUprobes {
		attach = attachManyUprobes
	}
	links, err := attach(file, ask, answer, cookie)
	t.links = append(t.links, links...)
	return err
}

// loadWraps loads the programs once.
func (t *Tracer) loadWraps() error {
	if t.coll.Programs[progWrapAsk] != nil {
		return nil
	}
	t.manyUprobes = features.HaveBPFLinkUprobeMulti() == nil
	for _, p := range t.wraps.Programs {
		if t.manyUprobes {
			p.AttachType = ebpf.AttachTraceUprobeMulti
		}
	}
	part, err := ebpf.NewCollectionWithOptions(t.wraps, ebpf.CollectionOptions{Cache: t.types, MapReplacements: t.coll.Maps})
	if err != nil {
		return err
	}
	for name, p := range part.Programs {
		t.coll.Programs[name] = p
		delete(part.Programs, name) // it is the tracer's now
	}
	part.Close()
	return nil
}

const wrapRefuse = ^uint64(0) // WRAP_REFUSE of bpf/libwrap.h

// attachManyUprobes takes two links for all: it takes the kernel some ten
// milliseconds to end one, and a hundred for a uprobe of its own (since Linux 6.6).
func attachManyUprobes(file *link.Executable, ask, answer *ebpf.Program, cookie uint64) ([]link.Link, error) {
	l, err := file.UprobeMulti([]string{"hosts_access", "refuse"}, ask, &link.UprobeMultiOptions{Cookies: []uint64{cookie, wrapRefuse}})
	if err != nil {
		return nil, fmt.Errorf("uprobes on hosts_access and refuse: %w", err)
	}
	r, err := file.UretprobeMulti([]string{"hosts_access"}, answer, nil)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("uprobe on the end of hosts_access: %w", err)
	}
	return []link.Link{l, r}, nil
}

func attachUprobes(file *link.Executable, ask, answer *ebpf.Program, cookie uint64) ([]link.Link, error) {
	var links []link.Link
	var errs []error
	add := func(l link.Link, err error) {
		if err != nil {
			errs = append(errs, err)
			return
		}
		links = append(links, l)
	}
	add(file.Uretprobe("hosts_access", answer, nil))
	add(file.Uprobe("hosts_access", ask, &link.UprobeOptions{Cookie: cookie}))
	add(file.Uprobe("refuse", ask, &link.UprobeOptions{Cookie: wrapRefuse}))
	return links, errors.Join(errs...)
}

// wrapCookie tells how far the names of the tables are from hosts_access() in the library.
func wrapCookie(path string) (uint64, error) {
	f, err := elf.Open(path)
	if err != nil {
		return 0, fmt.Errorf("read the library: %w", err)
	}
	defer f.Close()
	native := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	if f.Class != elf.ELFCLASS64 || f.Machine != native {
		return 0, fmt.Errorf("it is made for %s, and its calls cannot be read", f.Machine)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return 0, fmt.Errorf("read the library's symbols: %w", err)
	}
	at := map[string]uint64{}
	for _, s := range symbols {
		if s.Section != elf.SHN_UNDEF {
			at[s.Name] = s.Value
		}
	}
	function, ok := at["hosts_access"]
	if !ok {
		return 0, errors.New("it has no function hosts_access")
	}
	var far [2]uint32 // 0: the variable is not to be found, or out of reach
	for i, name := range []string{"hosts_allow_table", "hosts_deny_table"} {
		if v, ok := at[name]; ok {
			if d := int64(v - function); d == int64(int32(d)) {
				far[i] = uint32(int32(d))
			}
		}
	}
	return uint64(far[1])<<32 | uint64(far[0]), nil
}

// wrapSize is the record of a call of libwrap.
const wrapSize = int(unsafe.Sizeof(bpf.TracepointWrapEvent{}))

// Stages of KIND_WRAP in bpf/event.h.
const wrapAnswered = 1

// wrapCall decodes what follows the event itself in a record of [kindWrap].
func wrapCall(raw []byte, e *evidence.Event) error {
	var w bpf.TracepointWrapEvent
	if len(raw) < wrapSize {
		return fmt.Errorf("record of a call of libwrap: %d bytes, %d expected", len(raw), wrapSize)
	}
	if _, err := binary.Decode(raw[:wrapSize], binary.NativeEndian, &w); err != nil {
		return fmt.Errorf("record of a call of libwrap: %w", err)
	}
	text := func(s []int8) string {
		b := make([]byte, len(s))
		for i, c := range s {
			b[i] = byte(c)
		}
		return cstring(b)
	}
	e.InTask = true
	if e.Socket != nil {
		e.Socket.Remote = addrPort(w.Event.Daddr, w.Event.Dport)
	}
	e.Function = "hosts_access"
	if w.Stage > wrapAnswered {
		e.Function = "refuse"
	}
	e.Wrap = &evidence.Wrap{
		FD: int(w.Fd), Daemon: text(w.Daemon[:]), Client: text(w.Client[:]), Address: text(w.Address[:]), User: text(w.User[:]),
		Tables: [2]string{text(w.Allow[:]), text(w.Deny[:])}, Parent: int(w.Parent),
		Root: &evidence.Root{MountNS: uint64(w.MntNs), Inode: w.RootInode, Device: unix.Mkdev(uint32(w.RootDevice>>20), uint32(w.RootDevice&0xfffff))},
	}
	if w.Stage == wrapAnswered {
		granted := w.Event.Err != 0
		e.Wrap.Granted = &granted
	}
	return nil
}
