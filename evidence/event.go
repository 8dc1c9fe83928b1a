// SPDX-License-Identifier: Apache-2.0

package evidence

// Kind says what an event is.
type Kind string

const (
	Receive     Kind = "receive"      // a device handed the packet to the stack (netif_receive_skb)
	Transmit    Kind = "transmit"     // the packet was queued on a device (net_dev_queue)
	Drop        Kind = "drop"         // the packet was freed as lost (kfree_skb)
	Consume     Kind = "consume"      // the packet was freed as used up (consume_skb)
	RuleVerdict Kind = "rule"         // a firewall rule or policy took a decision about the packet
	HookPassed  Kind = "hook"         // the packet passed between two netfilter hook functions
	Route       Kind = "route"        // a routing table was asked (fib_table_lookup)
	State       Kind = "state"        // a TCP socket changed its state (inet_sock_set_state)
	ResetSent   Kind = "reset-sent"   // the TCP stack answered with a RST (tcp_send_reset)
	ResetGot    Kind = "reset-got"    // a socket took a RST (tcp_receive_reset)
	ICMPSent    Kind = "icmp-sent"    // the IPv4 stack or firewall answered with an ICMP error (icmp_send)
	NeighborEvt Kind = "neighbor"     // a next hop's link address was asked for, or was not found
	Retransmit  Kind = "retransmit"   // a TCP socket sends a segment again (tcp_retransmit_skb)
	Accept      Kind = "accept"       // a process takes the connection (security_sock_graft)
	WrapCall    Kind = "libwrap"      // a server asked tcp wrappers about our connection (uprobes on hosts_access and refuse)
	RulesOpened Kind = "libwrap-file" // a process that held our connection opened a file of rules of tcp wrappers (sys_exit)
)

// Directions of a packet, seen from the probe.
const (
	Forward = "forward" // from the probe to the target
	Reply   = "reply"   // from the target, or an ICMP error or RST about a forward packet
)

// Hooks, named as iptables and the contract name them. The arp and bridge
// families use the same names; netdev chains use INGRESS and EGRESS.
const (
	Prerouting  = "PREROUTING"
	Input       = "INPUT"
	ForwardHook = "FORWARD"
	Output      = "OUTPUT"
	Postrouting = "POSTROUTING"
	Ingress     = "INGRESS"
	Egress      = "EGRESS"
)

// Event is one thing the kernel said about one of our packets or sockets.
type Event struct {
	At        int64        `json:"at_ns"` // nanoseconds since the probe's connect() or first send
	Netns     string       `json:"netns"` // name, "init" or "net:[inode]"; empty when the kernel did not say
	Kind      Kind         `json:"kind"`
	CPU       int          `json:"cpu"`
	Direction string       `json:"direction,omitempty"`
	Device    string       `json:"device,omitempty"` // the packet's device: where it arrived, or leaves
	Hook      string       `json:"hook,omitempty"`   // netfilter hook: from the call stack, the trace or the observer
	Packet    *Packet      `json:"packet,omitempty"`
	Reason    string       `json:"reason,omitempty"`   // drop or reset reason without its prefix, by this kernel's BTF
	Function  string       `json:"function,omitempty"` // where the packet was freed or the event raised, by symbol
	Stack     []string     `json:"stack,omitempty"`    // callers of Function, innermost first, by symbol
	Rule      *RuleStep    `json:"rule,omitempty"`
	Priority  *int         `json:"priority,omitempty"` // HookPassed: the packet was alive at this priority of Hook
	Route     *RouteLookup `json:"route,omitempty"`
	ICMP      *ICMP        `json:"icmp,omitempty"`
	State     *StateChange `json:"state,omitempty"`
	Neighbor  *Neighbor    `json:"neighbor,omitempty"`
	Socket    *EventSocket `json:"socket,omitempty"` // the socket the kernel had found for the packet
	Wrap      *Wrap        `json:"libwrap,omitempty"`
	Opened    *Opened      `json:"opened,omitempty"`
	PID       int          `json:"pid,omitempty"` // the task on the CPU: the actor only in process context
	Comm      string       `json:"comm,omitempty"`
	InTask    bool         `json:"in_task,omitempty"`    // the event happened in process context, so PID is its author
	Copy      bool         `json:"copy,omitempty"`       // Drop: another buffer still had the same packet; it was flooded, mirrored or captured
	OtherHost bool         `json:"other_host,omitempty"` // Drop: the frame was for another link address, and the device takes no such frames
	SKB       string       `json:"skb,omitempty"`        // kernel address of the packet buffer: tells copies apart, nothing else
}

// Packet is what the headers said when the event happened.
type Packet struct {
	Family   int    `json:"family"`   // 4 or 6
	Protocol string `json:"protocol"` // tcp, udp, icmp, icmpv6 or a number
	Source   string `json:"source"`
	Dest     string `json:"destination"`
	SPort    int    `json:"sport,omitempty"`
	DPort    int    `json:"dport,omitempty"`
	Flags    string `json:"flags,omitempty"` // TCP flags as tcpdump prints them: S, S., R., ., P., F.
	Seq      uint32 `json:"seq,omitempty"`
	Ack      uint32 `json:"ack,omitempty"`
	TTL      int    `json:"ttl"` // or hop limit
	Length   int    `json:"length"`
	Mark     uint32 `json:"mark,omitempty"`
	ID       int    `json:"id,omitempty"`   // IPv4 identification
	Type     *int   `json:"type,omitempty"` // ICMP type and code
	Code     *int   `json:"code,omitempty"`
	Fragment bool   `json:"fragment,omitempty"` // not the first fragment: it has no ports

	Carries *Carried `json:"carries,omitempty"` // of a tunnel's packet: the probe's that is in it
}

// Carried is a packet of the probe's within one that bears a tunnel's addresses.
type Carried struct {
	Protocol string `json:"protocol"`        // tcp, udp, icmp, icmpv6
	Flags    string `json:"flags,omitempty"` // as of Packet
}

// Inner is what is known of the probe's packet in p, which is that itself where p is no tunnel's.
func (p *Packet) Inner() *Packet {
	if p.Carries == nil {
		return p
	}
	return &Packet{Protocol: p.Carries.Protocol, Flags: p.Carries.Flags}
}

// RuleStep is one decision of a firewall, as its own trace told it.
type RuleStep struct {
	Backend string `json:"backend"` // nft (iptables-nft included) or iptables-legacy
	Family  string `json:"family"`  // ip, ip6, inet, netdev, bridge or arp
	Table   string `json:"table"`
	Chain   string `json:"chain"`
	Handle  uint64 `json:"handle,omitempty"` // nft only; never reused within a table
	Number  int    `json:"number,omitempty"` // iptables-legacy: from 1 within the chain
	Policy  bool   `json:"policy,omitempty"` // the base chain's policy decided
	Verdict string `json:"verdict"`          // accept, drop, continue, return, jump, goto, queue, stolen
	Target  string `json:"target,omitempty"` // chain jumped to; iptables-legacy: name of the target
	TraceID uint32 `json:"trace_id,omitempty"`
}

// RouteLookup is one question to one routing table.
type RouteLookup struct {
	Table   string `json:"table"` // as ip route prints it: main, local, default or a number
	Source  string `json:"source,omitempty"`
	Dest    string `json:"destination"`
	IIF     string `json:"iif,omitempty"` // device the packet came in on; empty or lo for local packets
	OIF     string `json:"oif,omitempty"` // device found
	Gateway string `json:"gateway,omitempty"`
	Mark    uint32 `json:"mark,omitempty"`
	Errno   string `json:"errno,omitempty"` // "" found; EAGAIN no match here, EINVAL blackhole, EHOSTUNREACH unreachable, EACCES prohibit, ENETUNREACH none
}

// ICMP is an error that this host's stack or firewall sent.
type ICMP struct {
	Type int `json:"type"`
	Code int `json:"code"`
	Info int `json:"info,omitempty"` // fragmentation needed: the MTU
}

// StateChange of a TCP socket, by the names of include/net/tcp_states.h without TCP_.
type StateChange struct {
	Old string `json:"old"`
	New string `json:"new"`
	End *End   `json:"end,omitempty"` // where Old is ESTABLISHED or CLOSE_WAIT
}

// End is how a connection ended on this host.
type End struct {
	Received int64 `json:"received"` // bytes that the socket had taken
	Unread   int64 `json:"unread"`   // of them, bytes that no process had read
	Sent     int64 `json:"sent"`     // bytes that the socket had sent
	// Of the task on the CPU, which is the author of a close and of no more: see Event.InTask.
	Parent int   `json:"parent,omitempty"`
	Exit   *Exit `json:"exit,omitempty"` // it was at its end: the kernel closed for it
}

// Exit is how a process ended, wait(2).
type Exit struct {
	Code   int    `json:"code"`
	Signal string `json:"signal,omitempty"` // SIGSEGV …; empty: it ended by itself
	Core   bool   `json:"core,omitempty"`
}

// Steered is the listening socket that something before the TCP stack chose for the packet of e, a TPROXY
// rule or a BPF program (bpf_sk_assign, Linux 5.7); nil when nothing was seen to have chosen.
func (e *Event) Steered() *EventSocket {
	if (e.Kind == HookPassed || e.Kind == Route) && e.Socket != nil && e.Socket.State == "LISTEN" {
		return e.Socket
	}
	return nil
}

// EventSocket is the socket that the kernel held while the event happened.
type EventSocket struct {
	Local  string `json:"local,omitempty"`
	Remote string `json:"remote,omitempty"`
	State  string `json:"state,omitempty"`
	Filter bool   `json:"filter,omitempty"` // a filter is attached to it (SO_ATTACH_FILTER or SO_ATTACH_BPF)
	Aborts bool   `json:"aborts,omitempty"` // SO_LINGER with a time of 0: close() resets the connection (socket(7))
	Inode  uint64 `json:"inode,omitempty"`
	Queue  int    `json:"queue,omitempty"`   // accept queue now
	Limit  int    `json:"backlog,omitempty"` // its limit
}
