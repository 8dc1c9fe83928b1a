// SPDX-License-Identifier: Apache-2.0

// Package peer watches the other end's kernel: it carries a copy of this
// program to another host, starts it there as an agent, and talks with it in
// lines of JSON over whatever carries standard input and output: ssh, kubectl
// exec, docker exec.
//
// The agent takes three commands: trace, read and end. Neither side trusts the
// other: lines, their number, what they hold and the time they take are
// bounded, and what a peer says is evidence about itself and nothing else.
package peer
