// SPDX-License-Identifier: Apache-2.0

// Package guard makes a change to this host's configuration one that is taken
// back whatever happens: a crash or SIGKILL of this process, the end of its
// terminal, a deadline.
//
// [Arm] writes an undo record and starts a guard before anything is changed. A
// guard is this program again, in a session of its own. It takes the change
// back when it is told to, at the deadline, on SIGTERM, and when the process
// that armed it has ended together with every command that [Guard.Apply] had
// started: no command can then change anything behind the undo. If the guard
// is killed as well the record stays, and [Replay] takes the change back.
//
// A record is a JSON file of mode 0600 in /run/pathtrace, locked (flock(2)) by
// the process that armed it, the guard, and the commands of both, as long as
// one of them lives. A record that can be locked is one that was left behind.
// Records of an earlier boot, and of namespaces that are gone, have nothing to undo.
//
// Every change and every undo makes one audit line: in syslog, facility auth,
// where the host has a syslog socket, else in /var/log/pathtrace/changes.log.
// If PATHTRACE_STATE_DIR is set, records and audit file are there instead.
package guard
