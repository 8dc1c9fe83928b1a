// SPDX-License-Identifier: Apache-2.0

// Package netcfg reads the network configuration of this host, in any of its
// network namespaces, as far as a verdict may need it: links, addresses,
// routes, ip rules, neighbours, sockets with their processes, nftables and
// both kinds of iptables, conntrack, sysctls and counters. It writes nothing;
// what changes something does so under the eyes of package guard.
//
// Every reader is a method of [Netns] and may be called from any goroutine.
// A reader of many things returns an [evidence.Section], which tells "not
// read" from "not there". Objects are identified by what the kernel says over
// netlink; the text shown for them is what the user's own tools print.
package netcfg
