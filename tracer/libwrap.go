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
	progWrapOpen   = "wrap_open"
)

// registers are offsets in struct pt_regs (asm/ptrace.h) and numbers of system
// calls (asm/unistd.h), by the variable that holds each. arm64 has no open(2).
var registers = map[string]map[string]uint32{
	"amd64": {
		"reg_argument": 112, "reg_result": 80, "reg_address": 128,
		"reg_call": 120, "call_open": 2, "reg_open_name": 112, "call_openat": 257, "reg_openat_name": 104,
	},
	"arm64": {
		"reg_argument": 0, "reg_result": 0, "reg_address": 256,
		"reg_call": 280, "call_open": ^uint32(0) - 1, "call_openat": 56, "reg_openat_name": 8, // -1 is no call, ptrace(2)
	},
}

func setRegisters(spec *ebpf.CollectionSpec) error {
	for name, v := range registers[runtime.GOARCH] {
		if err := spec.Variables[name].Set(v); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// wrapPrograms takes the programs for libwrap out of spec: they are loaded when
// a server is found that may use it.
func wrapPrograms(spec *ebpf.CollectionSpec) *ebpf.CollectionSpec {
	wraps := *spec
	wraps.Programs = map[string]*ebpf.ProgramSpec{}
	for _, name := range []string{progWrapAsk, progWrapAnswer, progWrapOpen} {
		wraps.Programs[name] = spec.Programs[name]
		delete(spec.Programs, name)
	}
	return &wraps
}

// WatchLibwrap has every process that maps the shared library libwrap at path
// tell what it asks it about the probe's connection. A path below
// /proc/PID/map_files is the very file that the process PID uses.
func (t *Tracer) WatchLibwrap(path string) error {
	cookie, err := wrapCookie(path)
	if err != nil {
		return err
	}
	if err := t.loadUprobes(); err != nil {
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
	if err != nil { // what is attached would tell one half
		for _, l := range links {
			l.Close()
		}
		return err
	}
	t.links = append(t.links, links...)
	return nil
}

// WatchOpens has processes that hold the probe's connection tell which of
// libwrap's files of rules they open. It is for where [Tracer.WatchLibwrap]
// cannot be had: every system call of the host runs through a tracepoint then.
func (t *Tracer) WatchOpens() error {
	if t.coll.Programs[progWrapOpen] != nil {
		return nil
	}
	if err := t.loadWraps(progWrapOpen); err != nil {
		return fmt.Errorf("load the program for sys_exit: %w", err)
	}
	l, err := link.AttachTracing(link.TracingOptions{Program: t.coll.Programs[progWrapOpen]})
	if err != nil {
		return fmt.Errorf("attach to the tracepoint sys_exit: %w", err)
	}
	t.links = append(t.links, l)
	return nil
}

// tryUprobes attaches the programs for libwrap where nothing calls them: to the
// first instruction of this program, which has been run.
func (t *Tracer) tryUprobes() error {
	const self = "/proc/self/exe"
	f, err := elf.Open(self)
	if err != nil {
		return fmt.Errorf("read this program: %w", err)
	}
	defer f.Close()
	entry := uint64(0)
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Vaddr <= f.Entry && f.Entry < p.Vaddr+p.Filesz {
			entry = f.Entry - p.Vaddr + p.Off
		}
	}
	if err := t.loadUprobes(); err != nil {
		return fmt.Errorf("load the programs: %w", err)
	}
	file, err := link.OpenExecutable(self)
	if err != nil {
		return err
	}
	var l link.Link
	if t.manyUprobes {
		l, err = file.UprobeMulti(nil, t.coll.Programs[progWrapAsk], &link.UprobeMultiOptions{Addresses: []uint64{entry}, Cookies: []uint64{wrapRefuse}})
	} else {
		l, err = file.Uprobe("", t.coll.Programs[progWrapAsk], &link.UprobeOptions{Address: entry, Cookie: wrapRefuse})
	}
	if err != nil {
		return err
	}
	return l.Close()
}

// loadUprobes loads the programs for the library's functions once.
func (t *Tracer) loadUprobes() error {
	if t.noUprobes != nil || t.coll.Programs[progWrapAsk] != nil {
		return t.noUprobes
	}
	t.manyUprobes = features.HaveBPFLinkUprobeMulti() == nil
	if t.manyUprobes {
		t.wraps.Programs[progWrapAsk].AttachType = ebpf.AttachTraceUprobeMulti
		t.wraps.Programs[progWrapAnswer].AttachType = ebpf.AttachTraceUprobeMulti
	}
	return t.loadWraps(progWrapAsk, progWrapAnswer)
}

func (t *Tracer) loadWraps(names ...string) error {
	part := *t.wraps
	part.Programs = map[string]*ebpf.ProgramSpec{}
	for _, name := range names {
		part.Programs[name] = t.wraps.Programs[name]
	}
	loaded, err := ebpf.NewCollectionWithOptions(&part, ebpf.CollectionOptions{Cache: t.types, MapReplacements: t.coll.Maps})
	if err != nil {
		return err
	}
	for name, p := range loaded.Programs {
		t.coll.Programs[name] = p
		delete(loaded.Programs, name) // it is the tracer's now
	}
	loaded.Close()
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
const (
	wrapAnswered = 1
	wrapOpened   = 3
)

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
	root := &evidence.Root{MountNS: uint64(w.MntNs), Inode: w.RootInode, Device: unix.Mkdev(uint32(w.RootDevice>>20), uint32(w.RootDevice&0xfffff))}
	if w.Stage == wrapOpened {
		e.Kind = evidence.RulesOpened
		e.Opened = &evidence.Opened{
			Path: text(w.Allow[:]), Errno: errnoName(w.Event.Err), Argv0: text(w.Daemon[:]), Others: int(w.Fd), Parent: int(w.Parent), Root: root,
		}
		return nil
	}
	e.Function = "hosts_access"
	if w.Stage > wrapAnswered {
		e.Function = "refuse"
	}
	e.Wrap = &evidence.Wrap{
		FD: int(w.Fd), Daemon: text(w.Daemon[:]), Client: text(w.Client[:]), Address: text(w.Address[:]), User: text(w.User[:]),
		Tables: [2]string{text(w.Allow[:]), text(w.Deny[:])}, Parent: int(w.Parent), Root: root,
	}
	if w.Stage == wrapAnswered {
		granted := w.Event.Err != 0
		e.Wrap.Granted = &granted
	}
	return nil
}
