// SPDX-License-Identifier: Apache-2.0

// Package verdict decides, from evidence alone, why a connection failed.
// It reads no file, opens no socket and knows no clock: the same case gives the same verdict anywhere.
package verdict

import "github.com/pathtrace/pathtrace/evidence"

// Certainty says how well a cause is established.
type Certainty string

const (
	Observed Certainty = "observed" // a kernel event of our own packet, or an errno only this cause gives
	Inferred Certainty = "inferred" // weaker; the proof says from what
	None     Certainty = "none"
)

// Verdict is the answer: one cause, where, and how we know.
type Verdict struct {
	Cause     string    `json:"cause"`
	Certainty Certainty `json:"certainty"`
	Direction string    `json:"direction,omitempty"` // of the packet that died
	Summary   string    `json:"summary"`
	Where     Where     `json:"where"`
	Proof     []string  `json:"proof"`  // each a fact that was read or seen
	Fixes     []Fix     `json:"fixes"`  // the first is the smallest
	Unseen    []string  `json:"unseen"` // what could not be looked at, and why
	// Consumed is what the probe itself used up or left behind in firewall rules: limits, quotas, entries of sets.
	Consumed []string `json:"consumed,omitempty"`

	// Transient: the drop may pass by itself (limit, queue, buffer, conntrack, neighbour),
	// so that one retransmission is worth waiting for.
	Transient bool `json:"-"`
	// Copied: what died was one of several copies, or bore another host's link address;
	// the copy that counts may still be on its way.
	Copied bool `json:"-"`
}

// Where names the objects that decided. Only those that apply are set.
type Where struct {
	Host     string            `json:"host,omitempty"`
	Netns    string            `json:"netns,omitempty"`
	Device   string            `json:"device,omitempty"`
	Hook     string            `json:"hook,omitempty"`
	Function string            `json:"function,omitempty"`
	Reason   string            `json:"reason,omitempty"`
	Rule     *Rule             `json:"rule,omitempty"`
	Route    *RouteRef         `json:"route,omitempty"`
	IPRule   *IPRuleRef        `json:"ip_rule,omitempty"`
	Sysctl   *evidence.Sysctl  `json:"sysctl,omitempty"`
	Process  *evidence.Process `json:"process,omitempty"`
	Socket   *SocketRef        `json:"socket,omitempty"`
	File     *FileRef          `json:"file,omitempty"`
	Cgroup   *CgroupRef        `json:"cgroup,omitempty"`
	Program  *ProgramRef       `json:"program,omitempty"`
	Neighbor *NeighborRef      `json:"neighbor,omitempty"`
	Hop      *HopRef           `json:"hop,omitempty"`
	NAT      *NATRef           `json:"nat,omitempty"`  // of the destination, where the packet had undergone it
	SNAT     *NATRef           `json:"snat,omitempty"` // of the probe's source, anywhere on its way
}

// Rule is a firewall rule, or a policy when Number is 0.
type Rule struct {
	Backend string   `json:"backend"` // nft, iptables-nft, iptables-legacy
	Family  string   `json:"family"`
	Table   string   `json:"table"`
	Chain   string   `json:"chain"`
	Path    []string `json:"path"` // from the base chain to Chain
	Handle  uint64   `json:"handle,omitempty"`
	Number  int      `json:"number,omitempty"` // from 1, as iptables -L --line-numbers counts
	Text    string   `json:"text,omitempty"`
}

// RouteRef is a routing table entry; Text is empty when only the table is known.
type RouteRef struct {
	Text  string `json:"text,omitempty"`
	Table string `json:"table"`
}

// IPRuleRef is a rule of the routing policy database.
type IPRuleRef struct {
	Text     string `json:"text"`
	Priority int    `json:"priority"`
}

// SocketRef is the socket that decided, with its accept queue.
type SocketRef struct {
	Local   string `json:"local"`
	Backlog int    `json:"backlog"`
	Queue   int    `json:"queue"`
}

// FileRef is a line of a configuration file.
type FileRef struct {
	Path string `json:"path"`
	Line int    `json:"line"`
	Text string `json:"text"`
}

// CgroupRef is a control group, by its path below the cgroup mount.
type CgroupRef struct {
	Path string `json:"path"`
}

// ProgramRef is a BPF program, by the kernel's id.
type ProgramRef struct {
	ID   uint32 `json:"id"`
	Name string `json:"name,omitempty"`
}

// NeighborRef is an entry of the ARP or ND table.
type NeighborRef struct {
	Address string `json:"address"`
	State   string `json:"state"`
}

// HopRef is a host on the way that we do not watch.
type HopRef struct {
	TTL     int    `json:"ttl,omitempty"`
	Address string `json:"address"`
}

// NATRef is a translation of one end of the packet, address and port on both sides.
type NATRef struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Netns string `json:"netns,omitempty"` // where it was made
	Rule  *Rule  `json:"rule,omitempty"`  // by which rule; empty where that is not proven
}

// Fix is the smallest change that lets this exchange pass, with its undo.
// Commands are run by root, as they stand, in a shell, from where pathtrace was started.
type Fix struct {
	Summary  string   `json:"summary"`
	Commands []string `json:"commands"`
	Undo     []string `json:"undo"`
	Verified bool     `json:"verified,omitempty"` // tried, and it healed

	// Netns is the namespace of whose configuration in the kernel the fix changes a part, and
	// nothing else: it may be tried. Empty where it does more, as to start a program or to change a file.
	Netns string `json:"-"`
	// Mark is in the comment of every firewall rule that the fix adds; empty for other fixes.
	Mark string `json:"-"`
}

// Cause is one way for a connection to fail.
type Cause struct {
	ID      string
	Means   string   // one line for docs/causes.md
	Needs   string   // the events and sections it is proven from, for docs/causes.md
	Reasons []string // kernel drop reasons that lead here; each occurs in a recorded kernel's list
	// Find returns a verdict when the case, and the drop where it applies, proves this cause; else nil.
	// The event is nil when the cause is asked about the case as a whole.
	Find func(c *evidence.Case, e *evidence.Event) *Verdict
}
