// SPDX-License-Identifier: Apache-2.0

//go:build !notickets

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pathtrace/pathtrace/report"
	"github.com/pathtrace/pathtrace/report/ticket"
)

// optional are the subcommands that the build tag notickets leaves out: HTTP makes the program 1.2 MB larger.
var optional = []func(*app) *cobra.Command{newAttachCmd}

// newAttachCmd makes the command that puts a saved bundle on a ticket.
func newAttachCmd(a *app) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "attach BUNDLE --to TICKET",
		Short: "put a saved bundle on an incident ticket",
		Long: "Puts the bundle on a ticket, with a comment that says what it found. Tickets: rt:12, redmine:12, jira:OPS-12,\n" +
			"gitlab:group/project#12, servicenow:INC0010001, gitea:owner/repository#12, forgejo:owner/repository#12.\n\n" +
			"The environment says where, and with which token: PATHTRACE_RT_URL, and PATHTRACE_RT_TOKEN or PATHTRACE_RT_TOKEN_FILE,\n" +
			"a file that only its owner may read; likewise for the other systems. Jira and ServiceNow also take USER:TOKEN.",
		Example: "  PATHTRACE_RT_URL=https://rt.example.com PATHTRACE_RT_TOKEN_FILE=~/.rt pathtrace attach case.zip --to rt:12",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badUse("attach takes one bundle, as -o wrote it")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.attach(cmd.Context(), args[0], to) },
	}
	cmd.Flags().StringVar(&to, "to", "", "the ticket: rt:12, redmine:12, jira:OPS-12 …")
	return cmd
}

func (a *app) attach(ctx context.Context, name, to string) error {
	ref, err := ticket.Parse(to)
	if err != nil {
		return badUse("--to: %w", err)
	}
	client, err := a.ticketSystem(ref.Kind)
	if err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return noCase(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, report.MaxBundle+1))
	if err != nil {
		return noCase(err)
	}
	comment, err := a.commentOf(data)
	if err != nil {
		return noCase(fmt.Errorf("%s: %w", name, err))
	}
	changed, err := a.send(ctx, client, ref, comment)
	switch {
	case err != nil:
		return err
	case !changed:
		fmt.Fprintf(&a.out, "%s has %s already\n", ref, comment.Name)
	default:
		fmt.Fprintf(&a.out, "%s has %s\n", ref, comment.Name)
	}
	return nil
}

func (a *app) send(ctx context.Context, client *ticket.Client, ref ticket.Ref, comment ticket.Comment) (bool, error) {
	done := slowly(a.progress(Options{}), fmt.Sprintf("attaching %d KiB to %s", len(comment.Data)>>10, ref))
	changed, err := client.Attach(ctx, ref, comment)
	done()
	switch {
	case err != nil && ctx.Err() != nil:
		return changed, ctx.Err()
	case err != nil:
		return changed, &TraceError{Code: "ticket", Message: "not attached: " + err.Error(), Err: err}
	}
	return changed, nil
}

// ticketFlag checks --ticket before anything is sent, and returns how to attach a bundle to it.
func (a *app) ticketFlag(to string) (func(context.Context, []byte) error, error) {
	ref, err := ticket.Parse(to)
	if err != nil {
		return nil, badUse("--ticket: %w", err)
	}
	client, err := a.ticketSystem(ref.Kind)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, bundle []byte) error {
		comment, err := a.commentOf(bundle)
		if err == nil {
			_, err = a.send(ctx, client, ref, comment)
		}
		return err
	}, nil
}

// commentOf reads a bundle, which must be sound. The file's name on the ticket
// is made of the case and of its bytes, so that the same is not attached twice.
func (a *app) commentOf(data []byte) (ticket.Comment, error) {
	s, err := report.ReadBundle(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return ticket.Comment{}, err
	}
	d := s.Document(a.judge, thisTool())
	var text strings.Builder
	if err := report.Markdown(&text, &d); err != nil {
		return ticket.Comment{}, err
	}
	sum := sha256.Sum256(data)
	return ticket.Comment{Text: text.String(), Name: fmt.Sprintf("pathtrace-%s-%x.zip", fileName(s.ID), sum[:4]), Data: data}, nil
}

// ticketSystem reads from the environment where a system is, and the token for it.
func (a *app) ticketSystem(kind string) (*ticket.Client, error) {
	prefix := "PATHTRACE_" + strings.ToUpper(kind) + "_"
	c := &ticket.Client{URL: a.getenv(prefix + "URL"), Token: a.getenv(prefix + "TOKEN")}
	if c.URL == "" {
		return nil, badUse("where is it? %sURL is not set", prefix)
	}
	if c.Token == "" {
		file := a.getenv(prefix + "TOKEN_FILE")
		if file == "" {
			return nil, badUse("no token: neither %sTOKEN nor %sTOKEN_FILE is set", prefix, prefix)
		}
		var err error
		if c.Token, err = readToken(file); err != nil {
			return nil, badUse("%sTOKEN_FILE: %w", prefix, err)
		}
	}
	return c, nil
}

// readToken reads a file that nobody but its owner may read.
func readToken(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s: not a plain file", name)
	case info.Mode().Perm()&fs.FileMode(0o077) != 0:
		return "", fmt.Errorf("%s: others may read it (%v): chmod 600 %s", name, info.Mode().Perm(), name)
	}
	data, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	if token == "" || strings.ContainsAny(token, "\r\n") {
		return "", fmt.Errorf("%s: it should hold a token, in one line", name)
	}
	return token, nil
}
