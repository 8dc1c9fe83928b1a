// SPDX-License-Identifier: Apache-2.0

//go:build notickets

package main

import (
	"context"

	"github.com/spf13/cobra"
)

// optional subcommands: none with the tag notickets.
var optional []func(*app) *cobra.Command

func (a *app) ticketFlag(string) (func(context.Context, []byte) error, error) {
	return nil, badUse("--ticket: this pathtrace was built without")
}
