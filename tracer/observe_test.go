// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
)

func hooksAt(kinds map[int]string) []nfHook {
	var out []nfHook
	for p, k := range kinds {
		out = append(out, nfHook{Hook: evidence.Hook{Priority: p, Type: k}})
	}
	return out
}

func TestObserverPriorities(t *testing.T) {
	for _, c := range []struct {
		name  string
		hooks map[int]string
		want  []int
	}{
		{"rules of nftables tell of themselves", map[int]string{0: "nft", -300: "nft"}, nil},
		{"around a legacy table", map[int]string{0: "iptables-legacy"}, []int{-1, 1}},
		{"a taken priority is passed over", map[int]string{0: "iptables-legacy", -1: "nft", 1: "nft"}, []int{-2, 2}},
		{"two functions share the observer between them", map[int]string{-200: "kernel", -150: "iptables-legacy"}, []int{-201, -199, -149}},
		{"neighbours cannot be told apart", map[int]string{0: "kernel", 1: "kernel"}, []int{-1, 2}},
		{"the last function cannot be followed", map[int]string{math.MaxInt32: "kernel"}, []int{math.MaxInt32 - 1}},
		{"nor the first be preceded", map[int]string{math.MinInt32: "kernel"}, []int{math.MinInt32 + 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := observerPriorities(hooksAt(c.hooks))
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestHookOfStack(t *testing.T) {
	for _, c := range []struct {
		want  string
		stack []string
	}{
		{evidence.Input, []string{"nft_do_chain", "nft_do_chain_inet", "nf_hook_slow", "ip_local_deliver", "ip_rcv"}},
		{evidence.Prerouting, []string{"nf_hook_slow", "ip_rcv", "__netif_receive_skb_one_core"}},
		{evidence.Output, []string{"nf_hook_slow", "__ip_local_out", "ip_local_out", "__ip_queue_xmit"}},
		{evidence.Postrouting, []string{"nft_do_chain", "nft_do_chain_ipv4", "nf_hook_slow", "ip_output", "ip_local_out"}},
		{evidence.Ingress, []string{"nft_do_chain", "nft_do_chain_netdev", "nf_hook_slow", "__netif_receive_skb_core"}},
		// no netfilter function: the packet was not dropped in a hook, though it came through ip_rcv
		{"", []string{"tcp_v4_rcv", "ip_protocol_deliver_rcu", "ip_local_deliver_finish", "ip_local_deliver", "ip_rcv"}},
		{"", []string{"ip_error", "ip_rcv"}},
		// br_netfilter lets the packet go on within the bridge's hook, here through a router and into a tunnel
		{"", []string{"vxlan_xmit", "dev_hard_start_xmit", "__dev_queue_xmit", "ip_output", "ip_forward", "ip_rcv", "nf_hook_slow", "br_handle_frame"}},
		{"", []string{"ip_protocol_deliver_rcu", "ip_local_deliver_finish", "ip_sabotage_in", "nf_hook_slow", "ip_rcv", "__netif_receive_skb_one_core", "br_handle_frame_finish"}},
		{evidence.Input, []string{"nf_hook_slow", "ip_local_deliver", "ip_sabotage_in", "nf_hook_slow", "ip_rcv", "br_handle_frame_finish"}},
		{"", nil},
	} {
		if got := hookOfStack(c.stack); got != c.want {
			t.Errorf("%v: %q, want %q", c.stack, got, c.want)
		}
	}
}
