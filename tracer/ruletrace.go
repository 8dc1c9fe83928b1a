// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// nf_tables constants that x/sys lacks or that read better here (linux/netfilter/nf_tables.h).
const (
	nftTableOwner  = 2           // NFT_TABLE_F_OWNER, since 5.12
	tracePriority  = -2147483000 // before everybody, yet not INT_MIN
	metaNFTrace    = 12          // NFT_META_NFTRACE; 14 is SECMARK and is taken silently
	seqOffset      = 4           // of the TCP header
	ackOffset      = 8
	echoIDOffset   = 4       // of ICMP and ICMPv6
	traceWindow    = 1 << 13 // bytes of the stream that are traced
	netlinkTraceTO = 2       // seconds to wait for an acknowledgement
)

// ruleTrace is an nft table of ours that has the rulesets of one namespace
// traced for the probe's packets. The kernel removes it with our socket, however we end.
type ruleTrace struct {
	inode  uint32
	table  string
	owner  *os.File      // the socket that owns the table
	news   *os.File      // listens to NFNLGRP_NFTRACE
	empty  chan struct{} // the reader has emptied news
	key    Key
	hooks  map[[3]string]string // family, table, base chain -> hook
	walks  map[uint32]walk      // by the kernel's trace id
	copies map[copyKey]uint32   // number of each copy of a packet that was traced
	places map[uint32]place     // by the kernel\'s trace id
}

// TraceRules has nftables (iptables-nft included) report every rule that the
// packets of key meet in the namespace of the calling thread. It adds a table
// named pathtrace-PID with one rule for each direction, owned by a socket of
// ours (NFT_TABLE_F_OWNER, Linux 5.12): it changes no verdict and dies with us.
func (t *Tracer) TraceRules(inode uint32, key Key) error {
	hooks, _, err := t.takeInventory(inode)
	if err != nil {
		return err
	}
	r := &ruleTrace{inode: inode, table: fmt.Sprintf("pathtrace-%d", os.Getpid()), key: key, hooks: map[[3]string]string{}, walks: map[uint32]walk{}, copies: map[copyKey]uint32{}, places: map[uint32]place{}, empty: make(chan struct{})}
	var devices, families []string
	seen := map[string]bool{}
	if !slices.ContainsFunc(hooks, func(h nfHook) bool { return h.Type == "nft" }) {
		return nil
	}
	for _, h := range hooks {
		if h.Type != "nft" {
			continue
		}
		r.hooks[[3]string{h.NFFamily, h.Table, h.Chain}] = h.Hook.Hook
		if h.Family == "netdev" && h.Hook.Hook == evidence.Ingress && !seen["dev "+h.Device] {
			seen["dev "+h.Device] = true
			devices = append(devices, h.Device)
		}
		if h.Family == "bridge" && !seen["bridge"] {
			seen["bridge"] = true
			families = append(families, "bridge")
		}
	}
	if err := r.open(devices, len(families) > 0); err != nil {
		return errors.Join(err, r.close())
	}
	t.mu.Lock()
	t.traces = append(t.traces, r)
	t.mu.Unlock()
	t.wg.Add(1)
	go t.readTrace(r)
	return nil
}

func netlinkSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return -1, fmt.Errorf("open a netfilter socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind a netfilter socket: %w", err)
	}
	return fd, nil
}

// listen opens the socket that the trace messages come to.
func (r *ruleTrace) listen() error {
	fd, err := netlinkSocket()
	if err != nil {
		return err
	}
	// a long walk is many messages; root may go beyond net.core.rmem_max
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTRACE); err != nil {
		unix.Close(fd)
		return fmt.Errorf("listen to rule traces: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	r.news = os.NewFile(uintptr(fd), "rule traces")
	return nil
}

func (r *ruleTrace) open(devices []string, bridge bool) error {
	if err := r.listen(); err != nil {
		return err
	}
	owner, err := netlinkSocket()
	if err != nil {
		return err
	}
	r.owner = os.NewFile(uintptr(owner), "trace table")
	if err := unix.SetsockoptTimeval(owner, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: netlinkTraceTO}); err != nil {
		return err
	}
	b := &batch{seq: 1}
	b.begin()
	r.addTable(b, pfInet, []traceChain{{"prerouting", 0, ""}, {"output", 3, ""}})
	if bridge {
		r.addTable(b, pfBridge, []traceChain{{"prerouting", 0, ""}, {"output", 3, ""}})
	}
	if len(devices) > 0 {
		var chains []traceChain
		for i, d := range devices {
			chains = append(chains, traceChain{fmt.Sprintf("ingress-%d", i), 0, d})
		}
		r.addTable(b, pfNetdev, chains)
	}
	b.end()
	if err := transact(owner, b.bytes, 2, b.seq-2); err != nil {
		return fmt.Errorf("add the trace table: %w", err)
	}
	return nil
}

type traceChain struct {
	name   string
	hook   uint32
	device string
}

// batch is a transaction of nf_tables: all of it happens, or nothing.
type batch struct {
	bytes []byte
	seq   uint32
}

func (b *batch) begin() { b.add(unix.NFNL_MSG_BATCH_BEGIN, 0, 0, unix.NFNL_SUBSYS_NFTABLES, nil) }
func (b *batch) end()   { b.add(unix.NFNL_MSG_BATCH_END, 0, 0, unix.NFNL_SUBSYS_NFTABLES, nil) }

func (b *batch) nft(typ int, flags uint16, family uint8, payload []byte) {
	b.add(unix.NFNL_SUBSYS_NFTABLES<<8|typ, flags|unix.NLM_F_CREATE|unix.NLM_F_ACK, family, 0, payload)
}

func (b *batch) add(typ int, flags uint16, family uint8, res uint16, payload []byte) {
	b.bytes = message(b.bytes, uint16(typ), flags, b.seq, family, res, payload)
	b.seq++
}

func (r *ruleTrace) addTable(b *batch, family uint8, chains []traceChain) {
	table := attrString(nil, unix.NFTA_TABLE_NAME, r.table)
	b.nft(unix.NFT_MSG_NEWTABLE, unix.NLM_F_EXCL, family, attrU32(table, unix.NFTA_TABLE_FLAGS, nftTableOwner))
	for _, c := range chains {
		hook := attrU32(nil, unix.NFTA_HOOK_HOOKNUM, c.hook)
		priority := int32(tracePriority)
		hook = attrU32(hook, unix.NFTA_HOOK_PRIORITY, uint32(priority))
		if c.device != "" {
			hook = attrString(hook, unix.NFTA_HOOK_DEV, c.device)
		}
		m := attrString(nil, unix.NFTA_CHAIN_TABLE, r.table)
		m = attrString(m, unix.NFTA_CHAIN_NAME, c.name)
		m = attrNest(m, unix.NFTA_CHAIN_HOOK, hook)
		m = attrU32(m, unix.NFTA_CHAIN_POLICY, 1) // NF_ACCEPT
		b.nft(unix.NFT_MSG_NEWCHAIN, 0, family, attrString(m, unix.NFTA_CHAIN_TYPE, "filter"))
		for _, f := range r.key.fields() {
			r.addRule(b, family, c.name, f)
		}
	}
}

// field of the transport header whose value, from first to last, tells a packet of the probe.
type field struct {
	offset      uint32
	first, last []byte // big endian
}

// fields that tell the probe's packets, there and back. Sequence numbers do not wrap, see package probe.
func (k Key) fields() []field {
	u16 := func(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
	u32 := func(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
	port := u16(k.Port)
	switch k.Protocol {
	case unix.IPPROTO_TCP:
		return []field{{seqOffset, u32(k.ISN), u32(k.ISN + traceWindow)}, {ackOffset, u32(k.ISN), u32(k.ISN + traceWindow)}}
	case unix.IPPROTO_UDP:
		return []field{{0, port, port}, {2, port, port}}
	}
	return []field{{echoIDOffset, port, port}}
}

// addRule: meta l4proto PROTOCOL @th,OFFSET,LENGTH FIRST-LAST meta nftrace set 1.
func (r *ruleTrace) addRule(b *batch, family uint8, chain string, f field) {
	var list []byte
	expr := func(name string, data []byte) {
		e := attrString(nil, unix.NFTA_EXPR_NAME, name)
		list = attrNest(list, unix.NFTA_LIST_ELEM, attrNest(e, unix.NFTA_EXPR_DATA, data))
	}
	value := func(typ uint16, v []byte) []byte { return attrNest(nil, typ, attr(nil, unix.NFTA_DATA_VALUE, v)) }
	compare := func(op uint32, v []byte) {
		d := attrU32(nil, unix.NFTA_CMP_SREG, unix.NFT_REG_1)
		d = attrU32(d, unix.NFTA_CMP_OP, op)
		expr("cmp", append(d, value(unix.NFTA_CMP_DATA, v)...))
	}
	expr("meta", attrU32(attrU32(nil, unix.NFTA_META_DREG, unix.NFT_REG_1), unix.NFTA_META_KEY, unix.NFT_META_L4PROTO))
	compare(unix.NFT_CMP_EQ, []byte{r.key.Protocol})
	p := attrU32(nil, unix.NFTA_PAYLOAD_DREG, unix.NFT_REG_1)
	p = attrU32(p, unix.NFTA_PAYLOAD_BASE, unix.NFT_PAYLOAD_TRANSPORT_HEADER)
	p = attrU32(p, unix.NFTA_PAYLOAD_OFFSET, f.offset)
	expr("payload", attrU32(p, unix.NFTA_PAYLOAD_LEN, uint32(len(f.first))))
	compare(unix.NFT_CMP_GTE, f.first)
	compare(unix.NFT_CMP_LTE, f.last)
	expr("immediate", append(attrU32(nil, unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_1), value(unix.NFTA_IMMEDIATE_DATA, []byte{1})...))
	expr("meta", attrU32(attrU32(nil, unix.NFTA_META_SREG, unix.NFT_REG_1), unix.NFTA_META_KEY, metaNFTrace))

	m := attrString(nil, unix.NFTA_RULE_TABLE, r.table)
	m = attrString(m, unix.NFTA_RULE_CHAIN, chain)
	b.nft(unix.NFT_MSG_NEWRULE, unix.NLM_F_APPEND, family, attrNest(m, unix.NFTA_RULE_EXPRESSIONS, list))
}

func (r *ruleTrace) close() error {
	var errs []error
	for _, f := range []*os.File{r.owner, r.news} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
