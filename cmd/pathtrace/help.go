// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

const helpHead = `pathtrace makes one real connection, watches its packets in the kernel, and says
where they die, which rule, route or socket did it, and how to mend and undo that.

Usage:
  pathtrace [flags] HOST:PORT
  pathtrace [flags] HOST PORT
  pathtrace [flags] URL             ` + schemeWords + `
  pathtrace COMMAND [flags]

Commands:
`

const helpTail = `
Examples:
  sudo pathtrace 10.0.0.5:80
  sudo pathtrace --netns web 'https://[2001:db8::5]/'
  sudo pathtrace -s 10.0.0.1 --json db.example 5432 >case.json
  sudo pathtrace -o case.zip db.example 5432 && pathtrace judge -v case.zip

Exit codes: 0 reached, 1 not reached and the cause is found, 2 usage or name,
3 not reached and the cause is not established, 4 cannot trace, 130 interrupted.
`

// helpFunc prints the help of the main job; the subcommands' is cobra's own.
func helpFunc(root *cobra.Command, groups []flagGroup) func(*cobra.Command, []string) {
	plain := root.HelpFunc()
	return func(cmd *cobra.Command, args []string) {
		if cmd != root {
			plain(cmd, args)
			return
		}
		w := cmd.OutOrStdout()
		io.WriteString(w, helpHead)
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(w, "  %-12s %s\n", c.Name(), c.Short)
			}
		}
		for _, g := range groups {
			fmt.Fprintf(w, "\n%s:\n%s", g.title, g.FlagUsages())
		}
		io.WriteString(w, helpTail)
	}
}
