// SPDX-License-Identifier: Apache-2.0

//go:build notickets

package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/pathtrace/pathtrace/report"
)

// optional subcommands: none with the tag notickets.
var optional []func(*app) *cobra.Command

func (a *app) ticketFlag(string) (func(context.Context, []byte) error, error) {
	return nil, badUse("--ticket: this pathtrace was built without")
}

func (a *app) otlpFlag(string) (func(context.Context, []report.Document) error, error) {
	return nil, badUse("--otlp: this pathtrace was built without")
}
