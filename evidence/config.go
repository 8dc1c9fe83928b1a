// SPDX-License-Identifier: Apache-2.0

package evidence

// Namespace is the configuration of one network namespace, as far as it was read.
// Sections that were not needed for the verdict are not read.
type Namespace struct {
	Name      string                `json:"name"` // "init", the name below /run/netns, or net:[inode]
	Inode     uint64                `json:"inode"`
	Enter     []string              `json:"enter"` // words before a command that must run in it, from where pathtrace was started; empty for its own
	Hooks     Section[Hook]         `json:"hooks"`
	Links     Section[Link]         `json:"links"`
	Addresses Section[Address]      `json:"addresses"`
	Routes    Section[RouteItem]    `json:"routes"`   // all tables, both families
	Rules     Section[IPRule]       `json:"ip_rules"` // both families, by priority
	Lookups   Section[Lookup]       `json:"lookups"`  // what the kernel answers when asked for the route of one of our packets
	Neighbors Section[Neighbor]     `json:"neighbors"`
	Sockets   Section[Socket]       `json:"sockets"`
	Wraps     Section[WrapDecision] `json:"libwrap,omitzero"` // one for each process that asked
	Chains    Section[Chain]        `json:"chains"`
	Conntrack Section[Flow]         `json:"conntrack"`
	Sysctls   Section[Sysctl]       `json:"sysctls"`
	Counters  Section[Counter]      `json:"counters"` // SNMP and netstat counters that moved during the probe
	// Programs that decide about the packets of our sockets' cgroups; read where such a program can have dropped one.
	Programs   Section[CgroupProgram] `json:"cgroup_programs,omitzero"`
	Traced     bool                   `json:"rules_traced,omitempty"`    // the trace of nftables rules was on while the probe travelled
	Generation uint32                 `json:"nft_generation,omitempty"`  // when its chains were read
	Changed    bool                   `json:"ruleset_changed,omitempty"` // another program changed the nft ruleset between the packet and the reading
	Services   *Section[Service]      `json:"services,omitempty"`        // programs that would serve the port; read where nothing listens on it
}

// Hook is one function registered with netfilter, in calling order within Family and Hook.
type Hook struct {
	Family   string `json:"family"` // ip, ip6, arp, bridge, netdev
	Hook     string `json:"hook"`
	Device   string `json:"device,omitempty"` // netdev only
	Priority int    `json:"priority"`
	Function string `json:"function"` // symbol
	Type     string `json:"type"`     // nft, iptables-legacy, bpf or kernel
	Table    string `json:"table,omitempty"`
	Chain    string `json:"chain,omitempty"`
	NFFamily string `json:"nft_family,omitempty"` // the nft table's own family, such as inet
	// NAT: a chain or table of type nat. The NAT core calls it, for the first packet of a connection only, at Priority, the core's own.
	NAT bool `json:"nat,omitempty"`
}

// Link is a network device.
type Link struct {
	Index   int      `json:"index"`
	Name    string   `json:"name"`
	Kind    string   `json:"kind,omitempty"` // veth, bridge, vlan …
	Up      bool     `json:"up"`             // administratively (IFF_UP)
	Carrier bool     `json:"carrier"`        // IFF_LOWER_UP
	State   string   `json:"state"`          // operational state as ip link prints it
	MTU     int      `json:"mtu"`
	MAC     string   `json:"mac,omitempty"`
	Master  string   `json:"master,omitempty"`
	Flags   []string `json:"flags,omitempty"`
	XDP     uint32   `json:"xdp_program,omitempty"`
	// Isolated: a bridge port that exchanges no frames with other isolated ports.
	Isolated bool `json:"isolated,omitempty"`
	// PortState of a bridge port, as `bridge link` prints it: disabled, listening, learning, forwarding or blocking.
	PortState string `json:"port_state,omitempty"`
	// STP of a bridge: a spanning tree, not the user, decides about the states of its ports. Nil: no bridge, or not read.
	STP *bool `json:"stp,omitempty"`
}

// Address of a device.
type Address struct {
	Device string `json:"device"`
	Prefix string `json:"prefix"` // 10.0.0.1/24
	Scope  string `json:"scope"`
	Flags  string `json:"flags,omitempty"` // tentative, dadfailed …
}

// RouteItem is one route.
type RouteItem struct {
	Family   int    `json:"family"`      // 4 or 6
	Type     string `json:"type"`        // unicast, local, blackhole, unreachable, prohibit, throw …
	Dest     string `json:"destination"` // prefix, or "default"
	Gateway  string `json:"gateway,omitempty"`
	Device   string `json:"device,omitempty"`
	Source   string `json:"source,omitempty"` // preferred source
	Table    string `json:"table"`            // as ip route prints it
	Metric   int    `json:"metric,omitempty"`
	Protocol string `json:"protocol,omitempty"`
	Scope    string `json:"scope,omitempty"`
	Flags    string `json:"flags,omitempty"` // linkdown, dead, onlink …
	Text     string `json:"text"`            // as ip route show prints it, without table
}

// IPRule is one rule of the routing policy database.
type IPRule struct {
	Family   int    `json:"family"`
	Priority int    `json:"priority"`
	Action   string `json:"action"` // lookup, goto, nop, blackhole, unreachable, prohibit
	Table    string `json:"table,omitempty"`
	Text     string `json:"text"` // as ip rule prints it: "200: from all fwmark 0x7 lookup 77"
}

// Lookup is the kernel's answer to "which route would this packet take" (RTM_GETROUTE).
type Lookup struct {
	Dest    string `json:"destination"`
	Source  string `json:"source,omitempty"`
	IIF     string `json:"iif,omitempty"`
	Mark    uint32 `json:"mark,omitempty"`
	Errno   string `json:"errno,omitempty"` // EINVAL blackhole, EACCES prohibit, EHOSTUNREACH unreachable, ENETUNREACH none
	Type    string `json:"type,omitempty"`
	OIF     string `json:"oif,omitempty"`
	Gateway string `json:"gateway,omitempty"`
	PrefSrc string `json:"prefsrc,omitempty"`
	Table   string `json:"table,omitempty"`
	Text    string `json:"text,omitempty"`
}

// Neighbor is an entry of the ARP or ND table.
type Neighbor struct {
	Address string `json:"address"`
	Device  string `json:"device"`
	MAC     string `json:"mac,omitempty"`
	State   string `json:"state"` // INCOMPLETE, REACHABLE, STALE, DELAY, PROBE, FAILED, NOARP, PERMANENT
}

// Socket is a listening or bound socket, or a connection of ours.
type Socket struct {
	Protocol string `json:"protocol"` // tcp or udp
	Family   int    `json:"family"`   // 4 or 6; a family 6 socket on :: takes IPv4 too unless V6Only
	Local    string `json:"local"`    // 127.0.0.1:80, [::]:80
	Remote   string `json:"remote,omitempty"`
	State    string `json:"state"` // LISTEN, ESTABLISHED, TIME_WAIT …
	V6Only   bool   `json:"v6only,omitempty"`
	Device   string `json:"device,omitempty"` // SO_BINDTODEVICE
	Queue    int    `json:"queue"`            // Recv-Q: of a listener the connections not yet accepted
	Backlog  int    `json:"backlog"`          // Send-Q: of a listener the limit of Queue
	Inode    uint64 `json:"inode"`            // 0: not yet accepted
	UID      int    `json:"uid"`
	RcvBuf   int    `json:"rcvbuf,omitempty"`
	RMem     int    `json:"rmem,omitempty"`
	// Accepted: a connection, and by when a process had it, in nanoseconds since the probe's connect(); 0: not known.
	Accepted int64     `json:"accepted_ns,omitempty"`
	Process  []Process `json:"process"` // who holds it; empty: nobody found, see Owner
	Owner    string    `json:"owner_unread,omitempty"`
}

// Process is a program on this host.
type Process struct {
	PID    int    `json:"pid"`
	Comm   string `json:"comm"`
	Exe    string `json:"exe,omitempty"`
	Unit   string `json:"unit,omitempty"`   // systemd unit
	Cgroup string `json:"cgroup,omitempty"` // cgroup v2 path, or v1 path of the name=systemd hierarchy
	State  string `json:"state,omitempty"`  // R, S, D, T, Z as ps prints it
	// Container is the identifier that runtimes put into the names of cgroups: 64 hexadecimal digits.
	Container string `json:"container,omitempty"`
	// Where its first thread waits in the kernel, read when the probe got no answer.
	Stack []string `json:"stack,omitempty"` // functions, innermost first
}

// Chain is a chain of nftables or iptables as the user's own tool prints it.
type Chain struct {
	Backend  string         `json:"backend"` // nft, iptables-nft or iptables-legacy
	Family   string         `json:"family"`
	Table    string         `json:"table"`
	Name     string         `json:"name"`
	Base     bool           `json:"base"` // registered with a hook
	Type     string         `json:"type,omitempty"`
	Hook     string         `json:"hook,omitempty"`
	Device   string         `json:"device,omitempty"`
	Priority int            `json:"priority,omitempty"`
	Policy   string         `json:"policy,omitempty"` // accept or drop
	Text     string         `json:"text,omitempty"`   // its declaration, as the tool prints it
	Total    int            `json:"total"`            // rules in the chain; Rules may hold only those near the deciding one
	Rules    []FirewallRule `json:"rules"`
	Owner    string         `json:"owner,omitempty"`       // docker, firewalld, ufw, kube …, by the chain's name
	Unread   string         `json:"text_unread,omitempty"` // why the rules have no text
}

// FirewallRule is one rule of a [Chain].
type FirewallRule struct {
	Number  int    `json:"number"` // from 1
	Handle  uint64 `json:"handle,omitempty"`
	Text    string `json:"text,omitempty"`
	Packets uint64 `json:"packets,omitempty"`
	Bytes   uint64 `json:"bytes,omitempty"`
}

// Flow is a conntrack entry.
type Flow struct {
	Protocol string `json:"protocol"`
	Original Tuple  `json:"original"`
	Reply    Tuple  `json:"reply"`
	State    string `json:"state,omitempty"`
	Mark     uint32 `json:"mark,omitempty"`
}

// Tuple is one direction of a flow; addresses with ports, "10.0.0.1:80".
type Tuple struct {
	Source string `json:"source"`
	Dest   string `json:"destination"`
}

// Sysctl is a kernel setting, by the name that sysctl takes.
type Sysctl struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Counter is an SNMP counter of the namespace, by the name nstat prints.
type Counter struct {
	Name  string `json:"name"`
	Delta uint64 `json:"delta"`
}

// Service is what the host says about a program that would serve the port: facts
// that were read, without a claim that it is the one that was meant.
type Service struct {
	Name  string `json:"name"` // of the unit, program or container
	Kind  string `json:"kind"` // unit, pidfile, process, installed or container
	State string `json:"state"`
	PID   int    `json:"pid,omitempty"`
	Exe   string `json:"exe,omitempty"`
	File  string `json:"file,omitempty"` // pid file, unit file, script, or what Docker has written down
	Netns string `json:"netns,omitempty"`
	// Exit is how the unit's or container's main process ended last: "exited 1" or "killed 9".
	Exit      string   `json:"exit,omitempty"`
	Listens   []string `json:"listens,omitempty"`   // addresses on which the process listens there
	Container string   `json:"container,omitempty"` // its id
	Image     string   `json:"image,omitempty"`     // of the container
}

// States of a [Service]; a unit's is systemd's own: failed (failed), inactive (dead) …, and a container's Docker's: exited, created, dead …
const (
	ServiceGone    = "gone"    // the pid file, or Docker's, names a process that does not exist
	ServiceZombie  = "zombie"  // it has ended, and its parent has not asked for that yet
	ServiceRunning = "running" // in Netns
	ServiceIdle    = "idle"    // installed, and no process of the namespace runs it
)
