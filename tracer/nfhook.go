// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// Netfilter families (linux/netfilter.h).
const (
	pfInet   = 1
	pfIPv4   = 2
	pfARP    = 3
	pfNetdev = 5
	pfBridge = 7
	pfIPv6   = 10
)

func familyName(pf uint8) string {
	switch pf {
	case pfInet:
		return "inet"
	case pfIPv4:
		return "ip"
	case pfARP:
		return "arp"
	case pfNetdev:
		return "netdev"
	case pfBridge:
		return "bridge"
	case pfIPv6:
		return "ip6"
	}
	return ""
}

// hookName by a family's own numbering (NF_INET_*, NF_BR_*, NF_ARP_*, NF_NETDEV_*).
func hookName(pf, n uint8) string {
	names := []string{evidence.Prerouting, evidence.Input, evidence.ForwardHook, evidence.Output, evidence.Postrouting}
	switch pf {
	case pfARP:
		names = []string{evidence.Input, evidence.Output, evidence.ForwardHook}
	case pfNetdev:
		names = []string{evidence.Ingress, evidence.Egress}
	}
	if int(n) < len(names) {
		return names[n]
	}
	return ""
}

// hookFrames names the hook by the function that runs it. These functions take
// the hook's verdict themselves, so one of them stands above nf_hook_slow,
// nft_do_chain_netdev or another netfilter function in the stack. Functions are
// often inlined into their callers, which are listed too.
var hookFrames = map[string]string{
	"ip_rcv": evidence.Prerouting, "ipv6_rcv": evidence.Prerouting, "ip_list_rcv": evidence.Prerouting, "ipv6_list_rcv": evidence.Prerouting,
	"ip_sublist_rcv": evidence.Prerouting, "ip6_sublist_rcv": evidence.Prerouting, "nf_hook_slow_list": evidence.Prerouting,
	"ip_local_deliver": evidence.Input, "ip6_input": evidence.Input,
	"ip_forward": evidence.ForwardHook, "ip6_forward": evidence.ForwardHook,
	"__ip_local_out": evidence.Output, "ip_local_out": evidence.Output, "__ip6_local_out": evidence.Output, "ip6_local_out": evidence.Output,
	"ip6_xmit": evidence.Output, "ndisc_send_skb": evidence.Output, "raw_sendmsg": evidence.Output, "rawv6_sendmsg": evidence.Output,
	"ip_output": evidence.Postrouting, "ip6_output": evidence.Postrouting, "ip_mc_output": evidence.Postrouting,
	"br_handle_frame": evidence.Prerouting, "br_pass_frame_up": evidence.Input, "__br_forward": evidence.ForwardHook,
	"__br_deliver": evidence.Output, "br_forward_finish": evidence.Postrouting,
	"arp_rcv": evidence.Input, "arp_xmit": evidence.Output, "arp_send_dst": evidence.Output,
	"__netif_receive_skb_core": evidence.Ingress, "__dev_queue_xmit": evidence.Egress,
}

// hookOfStack tells in which netfilter hook a packet was freed: the first caller
// of netfilter's own functions. Empty when none of them is in the stack, or the packet
// went on from there: a bridge and others take it further within a hook of theirs,
// br_netfilter by ip_sabotage_in(), for what is delivered on the bridge itself.
func hookOfStack(stack []string) string {
	at := slices.IndexFunc(stack, isNetfilter)
	if at < 0 || slices.ContainsFunc(stack[:at], func(f string) bool { return hookFrames[f] != "" || f == "ip_sabotage_in" }) {
		return ""
	}
	for _, f := range stack[at:] {
		if h, ok := hookFrames[f]; ok {
			return h
		}
	}
	return ""
}

// isNetfilter reports whether a function belongs to netfilter's hook machinery.
func isNetfilter(f string) bool {
	switch f {
	case "nf_hook_slow", "nf_hook_slow_list", "nf_queue", "nft_do_chain", "nf_hook", "nf_hook_netdev", "nf_ingress", "nf_hook_ingress", "nf_hook_egress":
		return true
	}
	return false
}

// pfOf is the netfilter family of an IP version, 4 or 6.
func pfOf(version int) uint8 {
	if version == 6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}
