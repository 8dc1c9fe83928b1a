// SPDX-License-Identifier: Apache-2.0

//go:build !tickets

package main

import "github.com/spf13/cobra"

// optional subcommands: none without the tag tickets.
var optional []func(*app) *cobra.Command
