// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// errNoExcerpt says that rules cannot be copied; nft then lists the whole chain.
var errNoExcerpt = errors.New("refers to what is not copied")

// plainExpressions of nf_tables are whole in themselves: they name no set, chain or object.
var plainExpressions = []string{"bitwise", "byteorder", "cmp", "counter", "ct", "exthdr", "fib", "hash", "inner", "limit", "log", "masq", "meta",
	"nat", "notrack", "numgen", "osf", "payload", "queue", "quota", "range", "redir", "reject", "rt", "socket", "tproxy", "tunnel", "xfrm"}

// maxElements bounds the elements of an unnamed set that is copied.
const maxElements = 1000

// nftExcerpt gathers what stands for a few rules of a chain of 100,000.
type nftExcerpt struct {
	n          *Netns
	family     uint8
	table      string
	chain      string
	jumps      []string // chains that they lead to
	sets       []string
	rules      [][]byte // NFTA_RULE_EXPRESSIONS of each
	messages   []nftChange
	underChain []nftChange
}

// nftChange is one message of a transaction.
type nftChange struct {
	kind uint16
	body []byte
}

// excerpt has the user's own nft say the text of c's rules and c's declaration
// without going over the whole chain: the rules are copied as they are, byte by
// byte, with the definitions of the sets that they name, into a chain of the same name in an empty
// namespace, and listed there. nft makes the text out of just these bytes. What
// the kernel makes of the copy is compared with the original.
func (n *Netns) excerpt(ctx context.Context, c *evidence.Chain) error {
	family, ok := nftFamilies[c.Family]
	if !ok || c.Family == "netdev" { // its chains name devices
		return errNoExcerpt
	}
	x := &nftExcerpt{n: n, family: family, table: c.Table, chain: c.Name}
	for i := range c.Rules {
		if err := x.addRule(&c.Rules[i]); err != nil {
			return err
		}
	}
	for _, name := range x.sets {
		if err := x.addSet(name); err != nil {
			return err
		}
	}
	if err := x.addChain(); err != nil {
		return err
	}
	return scratch(func(s *Netns) error { return x.list(ctx, s, c) })
}

// addRule copies one rule; its counter is read once more.
func (x *nftExcerpt) addRule(r *evidence.FirewallRule) error {
	body := nftBody(x.family, unix.NFTA_RULE_TABLE, x.table, unix.NFTA_RULE_CHAIN, x.chain)
	body = put(body, unix.NFTA_RULE_HANDLE, binary.BigEndian.AppendUint64(nil, r.Handle))
	msgs, err := x.n.request(unix.NETLINK_NETFILTER, nftMessage(unix.NFT_MSG_GETRULE), 0, body, nftMessage(unix.NFT_MSG_NEWRULE))
	if err != nil {
		return err
	}
	if len(msgs) != 1 {
		return unix.ENOENT
	}
	now, _ := parseNFTRule(msgs[0])
	r.Packets, r.Bytes = now.packets, now.bytes
	out := nftBody(x.family, unix.NFTA_RULE_TABLE, x.table, unix.NFTA_RULE_CHAIN, x.chain)
	var expressions []byte
	for _, a := range nftAttributes(msgs[0]) {
		switch a.kind {
		case unix.NFTA_RULE_EXPRESSIONS:
			expressions = a.value
			out = put(out, a.kind|unix.NLA_F_NESTED, a.value)
		case unix.NFTA_RULE_USERDATA:
			out = put(out, a.kind, a.value)
		case unix.NFTA_RULE_COMPAT:
			return errNoExcerpt
		}
	}
	for _, e := range attributes(expressions) {
		if err := x.refer(e.value); err != nil {
			return err
		}
	}
	x.rules = append(x.rules, expressions)
	x.underChain = append(x.underChain, nftChange{unix.NFT_MSG_NEWRULE, out})
	return nil
}

// refer notes what an expression names.
func (x *nftExcerpt) refer(expression []byte) error {
	var name string
	var data []byte
	for _, a := range attributes(expression) {
		switch a.kind {
		case unix.NFTA_EXPR_NAME:
			name = a.text()
		case unix.NFTA_EXPR_DATA:
			data = a.value
		}
	}
	switch name {
	case "lookup":
		for _, a := range attributes(data) {
			if a.kind == unix.NFTA_LOOKUP_SET && !slices.Contains(x.sets, a.text()) {
				x.sets = append(x.sets, a.text())
			}
		}
	case "immediate":
		for _, a := range attributes(data) {
			if a.kind == unix.NFTA_IMMEDIATE_DATA {
				x.jump(a.value)
			}
		}
	default:
		if !slices.Contains(plainExpressions, name) {
			return fmt.Errorf("%s: %w", name, errNoExcerpt)
		}
	}
	return nil
}

func (x *nftExcerpt) jump(data []byte) {
	for _, d := range attributes(data) {
		if d.kind != unix.NFTA_DATA_VERDICT {
			continue
		}
		for _, v := range attributes(d.value) {
			if to := v.text(); v.kind == unix.NFTA_VERDICT_CHAIN && to != x.chain && !slices.Contains(x.jumps, to) {
				x.jumps = append(x.jumps, to)
			}
		}
	}
}

// addSet copies the definition of a set, and the elements of an unnamed one: they are part of the rule's text.
func (x *nftExcerpt) addSet(name string) error {
	body := nftBody(x.family, unix.NFTA_SET_TABLE, x.table, unix.NFTA_SET_NAME, name)
	msgs, err := x.n.request(unix.NETLINK_NETFILTER, nftMessage(unix.NFT_MSG_GETSET), 0, body, nftMessage(unix.NFT_MSG_NEWSET))
	if err != nil {
		return err
	}
	if len(msgs) != 1 {
		return unix.ENOENT
	}
	out := []byte{x.family, unix.NFNETLINK_V0, 0, 0}
	var flags uint32
	for _, a := range nftAttributes(msgs[0]) {
		switch a.kind {
		case unix.NFTA_SET_FLAGS:
			flags = a.be32()
			out = put(out, a.kind, a.value)
		case unix.NFTA_SET_TABLE, unix.NFTA_SET_NAME, unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_KEY_LEN, unix.NFTA_SET_DATA_TYPE, unix.NFTA_SET_DATA_LEN,
			unix.NFTA_SET_DESC, unix.NFTA_SET_USERDATA, unix.NFTA_SET_TIMEOUT, unix.NFTA_SET_GC_INTERVAL, unix.NFTA_SET_POLICY:
			out = put(out, a.kind, a.value)
		}
	}
	out = put(out, unix.NFTA_SET_ID, binary.BigEndian.AppendUint32(nil, uint32(len(x.messages)+1)))
	if flags&unix.NFT_SET_MAP != 0 {
		return fmt.Errorf("map %s: %w", name, errNoExcerpt) // its verdicts may name chains
	}
	x.messages = append(x.messages, nftChange{unix.NFT_MSG_NEWSET, out})
	if flags&unix.NFT_SET_ANONYMOUS == 0 {
		return nil
	}
	return x.addElements(name)
}

func (x *nftExcerpt) addElements(name string) error {
	body := nftBody(x.family, unix.NFTA_SET_ELEM_LIST_TABLE, x.table, unix.NFTA_SET_ELEM_LIST_SET, name)
	msgs, err := x.n.dump(unix.NETLINK_NETFILTER, nftMessage(unix.NFT_MSG_GETSETELEM), body, nftMessage(unix.NFT_MSG_NEWSETELEM))
	if err != nil {
		return err
	}
	total := 0
	for _, m := range msgs {
		for _, a := range nftAttributes(m) {
			if a.kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				continue
			}
			if total += len(attributes(a.value)); total > maxElements {
				return fmt.Errorf("set %s: %w", name, errNoExcerpt)
			}
			x.messages = append(x.messages, nftChange{unix.NFT_MSG_NEWSETELEM, put(slices.Clone(body), a.kind|unix.NLA_F_NESTED, a.value)})
		}
	}
	return nil
}

// addChain puts the table, the sets, the chains and the rules in the order in which they can be made.
func (x *nftExcerpt) addChain() error {
	body := nftBody(x.family, unix.NFTA_CHAIN_TABLE, x.table, unix.NFTA_CHAIN_NAME, x.chain)
	msgs, err := x.n.request(unix.NETLINK_NETFILTER, nftMessage(unix.NFT_MSG_GETCHAIN), 0, body, nftMessage(unix.NFT_MSG_NEWCHAIN))
	if err != nil {
		return err
	}
	if len(msgs) != 1 {
		return unix.ENOENT
	}
	for _, a := range nftAttributes(msgs[0]) {
		switch a.kind {
		case unix.NFTA_CHAIN_HOOK, unix.NFTA_CHAIN_TYPE, unix.NFTA_CHAIN_POLICY:
			body = put(body, a.kind, a.value)
		}
	}
	all := []nftChange{{unix.NFT_MSG_NEWTABLE, nftBody(x.family, unix.NFTA_TABLE_NAME, x.table)}}
	all = append(all, x.messages...)
	for _, to := range x.jumps {
		all = append(all, nftChange{unix.NFT_MSG_NEWCHAIN, nftBody(x.family, unix.NFTA_CHAIN_TABLE, x.table, unix.NFTA_CHAIN_NAME, to)})
	}
	all = append(all, nftChange{unix.NFT_MSG_NEWCHAIN, body})
	x.messages = append(all, x.underChain...)
	return nil
}

// list makes the copy in s, and has nft print it.
func (x *nftExcerpt) list(ctx context.Context, s *Netns, c *evidence.Chain) error {
	if err := s.Do(func() error { return nftTransaction(x.messages) }); err != nil {
		return fmt.Errorf("copy rules: %w", err)
	}
	copies, err := s.nftRules(x.family, x.table, x.chain)
	if err != nil {
		return err
	}
	if len(copies) != len(x.rules) {
		return fmt.Errorf("%d of %d rules were copied", len(copies), len(x.rules))
	}
	handles := make([]uint64, len(copies))
	for i, r := range copies {
		if handles[i] = r.handle; !bytes.Equal(r.expressions, x.rules[i]) {
			return errors.New("the kernel made another rule of a copy")
		}
	}
	out, _, err := s.Output(ctx, "nft", "-s", "-a", "list", "chain", c.Family, c.Table, c.Name)
	if err != nil {
		return err
	}
	listing, err := parseNFTListing(string(out), c.Name, handles)
	if err != nil {
		return err
	}
	c.Text = listing.declaration
	for i := range c.Rules {
		c.Rules[i].Text = listing.texts[i]
	}
	return nil
}

// nftTransaction makes all of the changes or none, in the namespace of the calling thread.
func nftTransaction(changes []nftChange) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}); err != nil {
		return err
	}
	subsystem := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES} // resource id in network order
	b := netlinkMessage(nil, unix.NFNL_MSG_BATCH_BEGIN, 0, 0, subsystem)
	for i, c := range changes {
		b = netlinkMessage(b, nftMessage(c.kind), unix.NLM_F_CREATE|unix.NLM_F_APPEND|unix.NLM_F_ACK, uint32(i+1), c.body)
	}
	b = netlinkMessage(b, unix.NFNL_MSG_BATCH_END, 0, uint32(len(changes)+1), subsystem)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 1<<16)
	for done := 0; done < len(changes); {
		size, _, err := unix.Recvfrom(fd, answer, 0)
		if err != nil {
			return err
		}
		for m := answer[:size]; len(m) >= unix.SizeofNlMsghdr; {
			length := int(binary.NativeEndian.Uint32(m))
			if length < unix.SizeofNlMsghdr+4 || length > len(m) {
				return errors.New("an answer that is none")
			}
			if binary.NativeEndian.Uint16(m[4:]) == unix.NLMSG_ERROR {
				if errno := int32(binary.NativeEndian.Uint32(m[unix.SizeofNlMsghdr:])); errno != 0 {
					return unix.Errno(-errno)
				}
				done++
			}
			m = m[min(align4(length), len(m)):]
		}
	}
	return nil
}

func netlinkMessage(b []byte, kind, flags uint16, seq uint32, body []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, body...)
	return append(b, make([]byte, align4(len(body))-len(body))...)
}

// scratch runs f with an empty network namespace that ends with it, or with us.
func scratch(f func(*Netns) error) error {
	err := errors.New("the function did not return")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if unix.Gettid() == os.Getpid() {
			err = scratch(f) // the main thread cannot end; held here, it is not taken again
			runtime.UnlockOSThread()
			return
		}
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		var n *Netns
		if n, err = openHandle("/proc/thread-self/ns/net"); err != nil {
			return
		}
		defer n.Close()
		n.Name = "a namespace of our own"
		err = f(n)
	}()
	<-done
	return err
}
