// SPDX-License-Identifier: Apache-2.0

// Package evidence holds the facts of one trace and their JSON form: what the
// probe saw, what the kernel said, and the configuration that was in force.
// It knows nothing of BPF, sockets or files, so that a verdict can be repeated
// from saved facts on any machine.
package evidence

import "time"

// FormatVersion is the version of the JSON form. Minor versions add keys, major ones may break.
const FormatVersion = "1.0"

// Case is everything that was seen and read during one trace.
type Case struct {
	FormatVersion string      `json:"format_version"`
	ID            string      `json:"id"` // eight hexadecimal digits; marks the changes that this trace's fixes make
	Tool          Tool        `json:"tool"`
	Host          Host        `json:"host"`
	Target        Target      `json:"target"`
	Probe         Probe       `json:"probe"`
	Events        []Event     `json:"events"`             // in the order of Event.At
	Lost          uint64      `json:"lost"`               // events the kernel could not hand over
	Scope         string      `json:"scope,omitempty"`    // "netns": only the probe's own namespace was watched, all else is remote
	Namespaces    []Namespace `json:"namespaces"`         // those our packets met; the probe's own is always there
	Unseen        []string    `json:"unseen"`             // what could not be looked at, and why
	Walks         []Walk      `json:"walks,omitempty"`    // of the way beyond this host, made after the probe
	PathMTU       *PathMTU    `json:"path_mtu,omitempty"` // of that way, where large packets were lost
	Peers         []Peer      `json:"peers,omitempty"`    // other hosts that were watched too
	// Listeners are the processes that listened on the target's TCP port, in
	// whatever namespace, when the probe was about to leave.
	Listeners []Process `json:"listeners,omitempty"`
	// Logs are lines that programs wrote about the exchange: context, never proof.
	Logs []LogLine `json:"logs,omitempty"`
	// Counterfactual is what became of the probe with a fix in force, where one was to be tried.
	Counterfactual *Counterfactual `json:"counterfactual,omitempty"`
}

// LogLine is what a program wrote about the exchange.
type LogLine struct {
	Source string    `json:"source"` // a file, or the journal and its unit
	Time   time.Time `json:"time"`
	Text   string    `json:"text"` // with what is marked as a secret masked
}

// OwnNamespace is the [Case.Scope] of a trace that watched no other namespace than the probe's.
const OwnNamespace = "netns"

// Namespace returns the configuration of the namespace called name, or nil.
func (c *Case) Namespace(name string) *Namespace {
	for i := range c.Namespaces {
		if c.Namespaces[i].Name == name {
			return &c.Namespaces[i]
		}
	}
	return nil
}

// Tool names the program that gathered the case.
type Tool struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
}

// Host is the machine whose kernel was watched.
type Host struct {
	Name    string   `json:"name"`
	Kernel  string   `json:"kernel"`  // uname -r
	Hooks   string   `json:"hooks"`   // fentry, kprobe or tracepoint
	Missing []string `json:"missing"` // hooks and abilities this kernel or user lacks, each with the reason
	// Facts are those that functions of the kernel told, and by which hooks; all others come from tracepoints.
	Facts []HookFact `json:"facts,omitempty"`
}

// HookFact says by which family of hooks a fact of a trace was told.
type HookFact struct {
	Fact string `json:"fact"`
	By   string `json:"by"` // fentry or kprobe
}

// Target is where the probe was to go.
type Target struct {
	Input    string `json:"input"` // as the user typed it
	Address  string `json:"address"`
	Port     int    `json:"port,omitempty"`
	Protocol string `json:"protocol"` // tcp, udp or icmp
	// Lookup says step by step where the address of a name came from.
	Lookup []string `json:"lookup,omitempty"`
}

// CgroupProgram is a BPF program attached to a cgroup.
type CgroupProgram struct {
	Attach string `json:"attach"` // connect4, connect6, ingress or egress
	Cgroup string `json:"cgroup"` // path within the hierarchy of the cgroup it is attached to
	// In is the cgroup, the same or one below, about whose sockets the program decides.
	In   string `json:"effective_in,omitempty"`
	ID   uint32 `json:"id"`
	Name string `json:"name,omitempty"`
}

// Outcomes of a probe, as the program that connects would see them.
const (
	Answered    = "answered"    // connected, and bytes came back
	Connected   = "connected"   // the handshake was completed
	Refused     = "refused"     // ECONNREFUSED
	Reset       = "reset"       // ECONNRESET after the handshake
	Timeout     = "timeout"     // nothing until the deadline, or until the kernel had explained why
	Unreachable = "unreachable" // EHOSTUNREACH, ENETUNREACH or another ICMP error
	Denied      = "denied"      // EPERM or EACCES from a system call
	Closed      = "closed"      // the other end closed before it said anything
	Silent      = "silent"      // connected, and an awaited answer did not come
)

// Probe is what was sent and what came back.
type Probe struct {
	Outcome    string    `json:"outcome"`
	Netns      string    `json:"netns"` // where it started
	Local      string    `json:"local,omitempty"`
	Errno      string    `json:"errno,omitempty"` // symbolic name
	Syscall    string    `json:"syscall,omitempty"`
	Started    time.Time `json:"started"`
	DurationNS int64     `json:"duration_ns"`
	// When connect() succeeded, from the start as DurationNS: what follows is the wait for what the other end makes of it.
	ConnectedNS int64  `json:"connected_ns,omitempty"`
	TimeoutNS   int64  `json:"timeout_ns"`
	Banner      string `json:"banner,omitempty"`    // the first [MaxHeard] bytes at most
	Sent        int64  `json:"sent,omitempty"`      // bytes handed to the kernel after the handshake
	Received    int64  `json:"received,omitempty"`  // bytes that came back
	Expected    bool   `json:"expected,omitempty"`  // an answer was demanded
	Unmatched   bool   `json:"unmatched,omitempty"` // an answer came that does not fit --expect
	Cgroup      string `json:"cgroup,omitempty"`    // the probe's own cgroup v2 path
	// Programs that can refuse connect() in that cgroup, inherited ones included; read when connect() was refused.
	Programs   *Section[CgroupProgram] `json:"cgroup_programs,omitempty"`
	Retransmit int                     `json:"retransmits,omitempty"`
	// Of a TCP connection, when the probe ended: bytes that the other end's kernel has acknowledged, and bytes
	// under way that it has not; Segment is how large a packet of these is at most. Of a datagram or an echo request
	// Segment is its size. IP header included, bytes; 0 where the packet may be fragmented.
	Acked    int64     `json:"acked,omitempty"`
	Unacked  int64     `json:"unacked,omitempty"`
	Segment  int       `json:"segment,omitempty"`
	ISN      uint32    `json:"isn,omitempty"` // TCP initial sequence number, chosen by us
	Mark     uint32    `json:"mark,omitempty"`
	Device   string    `json:"device,omitempty"` // -i
	Dialogue *Dialogue `json:"dialogue,omitempty"`
}

// OutcomeNS is when the outcome came about, in ns from the start.
func (p *Probe) OutcomeNS() int64 {
	if p.Outcome == Connected && p.ConnectedNS > 0 {
		return p.ConnectedNS
	}
	return p.DurationNS
}
