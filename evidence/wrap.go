// SPDX-License-Identifier: Apache-2.0

package evidence

// Wrap is a call of libwrap about our connection, hosts_access(3).
type Wrap struct {
	// Granted is what hosts_access returned; nil when the event is that it, or refuse, was called.
	Granted *bool  `json:"granted,omitempty"`
	FD      int    `json:"fd"` // of our connection in the server; -1: the server gave the client's address alone, as hosts_ctl does
	Daemon  string `json:"daemon"`
	// What libwrap had found out about the client by then; empty: it had not asked.
	Client  string `json:"client,omitempty"` // name, or unknown, or paranoid
	Address string `json:"address,omitempty"`
	User    string `json:"user,omitempty"`
	// Tables are the files of rules, hosts.allow first, by the names that the library has for them; empty: not known.
	Tables [2]string `json:"tables"`
	Parent int       `json:"parent,omitempty"` // process id of the caller's parent
	Root   *Root     `json:"root,omitempty"`
}

// Opened is that a process which held our connection opened hosts.allow or
// hosts.deny: what is seen of libwrap where its calls are not.
type Opened struct {
	Path  string `json:"path"`            // as the process named it, open(2); empty: it could not be read
	Errno string `json:"errno,omitempty"` // why it was not opened
	Argv0 string `json:"argv0,omitempty"` // by which the process was started
	// Others are the connections that the process held beside ours, and that it
	// may have had in mind; -1: it had too many descriptors to look at all.
	Others int   `json:"others"`
	Parent int   `json:"parent,omitempty"` // process id
	Root   *Root `json:"root,omitempty"`
}

// Root tells where a process sees its files: two with the same Root see the same.
type Root struct {
	MountNS uint64 `json:"mount_ns"` // inode number of the mount namespace
	Device  uint64 `json:"device"`   // of the root directory, as stat(2) has it
	Inode   uint64 `json:"inode"`
}

// WrapDecision is what hosts.allow and hosts.deny, as the server sees them,
// say about the request of a [Wrap] event, or about the one that led to [Opened] events.
type WrapDecision struct {
	Process Process    `json:"process"` // who asked
	Daemon  string     `json:"daemon"`  // its name for libwrap; empty after Opened events: not known, the verdict holds for any
	Address string     `json:"address"` // of the client
	Verdict string     `json:"verdict"` // granted, denied, delegated or unknown
	File    *FileLine  `json:"file,omitempty"`
	Matched [2]Element `json:"matched"` // on the daemons' side, on the clients' side; empty: no rule decided
	Option  string     `json:"option,omitempty"`
	Fault   string     `json:"fault,omitempty"`   // the mistake that decided, in libwrap's words
	Reasons []string   `json:"reasons,omitempty"` // what could not be evaluated
	// Warnings are where the files do not say what they seem to.
	Warnings []string `json:"warnings,omitempty"`
	ReadAt   string   `json:"read_at,omitempty"` // the directory that is the server's root to us
	Library  string   `json:"library,omitempty"` // the libwrap that the server maps, by its own name for it
	Linked   []string `json:"linked,omitempty"`  // from the program to the library, each needs the next (DT_NEEDED)
	// Allow is the smallest rule that lets the client in, with the commands that
	// put it on top of hosts.allow, and take it away.
	Allow    string   `json:"allow,omitempty"`
	Commands []string `json:"commands,omitempty"`
	Undo     []string `json:"undo,omitempty"`
	Unread   string   `json:"unread,omitempty"` // why the files were not read
}

// FileLine is a line of a file, by the path that the program has for it.
type FileLine struct {
	Path  string `json:"path"`
	First int    `json:"first,omitempty"` // where a continued line begins
	Line  int    `json:"line"`            // where it ends, from 1; 0: the file as a whole
	Text  string `json:"text,omitempty"`
}

// Element is the pattern of a rule that matched, and by what of the request.
type Element struct {
	Kind    string `json:"kind,omitempty"` // all, daemon, port, address, name, user, netgroup
	Pattern string `json:"pattern,omitempty"`
}
