// SPDX-License-Identifier: Apache-2.0

// Package bpf holds the programs that run in the kernel, compiled and committed,
// and the Go twins of what they share with user space. Building needs no clang.
package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -cflags "-O2 -g -Wall -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu" -target bpfel -output-stem tracepoint -type event -type wrap_event -type nft_event Tracepoint tracepoint.bpf.c
