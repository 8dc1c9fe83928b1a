// SPDX-License-Identifier: Apache-2.0

// Package libwrap decides what tcp wrappers decide: whether a server that is
// linked with libwrap serves a client, by which line of hosts.allow or
// hosts.deny, and which smallest line would let the client in.
//
// It follows the behaviour of libwrap 7.6 as Debian builds it (IPv6, netgroups,
// PROCESS_OPTIONS and ACLEXEC), hosts_access(5) and hosts_options(5) where
// they are silent about it or differ from it. It runs no command and asks no
// name server: what depends on a netgroup, on the exit status of an aclexec
// command or on a name that nobody looked up is [Unknown], never a guess.
//
// All file access goes through a function that the caller gives, so that the
// files are those which the server sees: see [Root].
package libwrap
