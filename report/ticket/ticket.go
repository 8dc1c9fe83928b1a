// SPDX-License-Identifier: Apache-2.0

// Package ticket puts a comment with a file on an incident ticket: Request
// Tracker 5, Redmine, Jira, GitLab, ServiceNow, Gitea and Forgejo. It is the only
// package that speaks HTTP.
package ticket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// Ref names a ticket: rt:12, redmine:12, jira:OPS-12, gitlab:group/project#12,
// servicenow:INC0010001, gitea:owner/repository#12, forgejo: likewise.
type Ref struct {
	Kind    string // of system
	Project string // where the system has its tickets in projects
	ID      string
}

func (r Ref) String() string {
	if r.Project == "" {
		return r.Kind + ":" + r.ID
	}
	return r.Kind + ":" + r.Project + "#" + r.ID
}

// forms are what follows the kind: group 1 is the project, group 2 the id.
var forms = map[string]struct {
	form  *regexp.Regexp
	usage string
}{
	"rt":         {regexp.MustCompile(`^()([1-9][0-9]{0,9})$`), "rt:12"},
	"redmine":    {regexp.MustCompile(`^()([1-9][0-9]{0,9})$`), "redmine:12"},
	"jira":       {regexp.MustCompile(`^()([A-Za-z][A-Za-z0-9_]{0,30}-[1-9][0-9]{0,9})$`), "jira:OPS-12"},
	"gitlab":     {regexp.MustCompile(`^([\w.-]+(?:/[\w.-]+)+)#([1-9][0-9]{0,9})$`), "gitlab:group/project#12"},
	"servicenow": {regexp.MustCompile(`^()([A-Z]{2,8}[0-9]{4,12})$`), "servicenow:INC0010001"},
	"gitea":      {regexp.MustCompile(`^([\w.-]+/[\w.-]+)#([1-9][0-9]{0,9})$`), "gitea:owner/repository#12"},
	"forgejo":    {regexp.MustCompile(`^([\w.-]+/[\w.-]+)#([1-9][0-9]{0,9})$`), "forgejo:owner/repository#12"},
}

// Parse reads a ticket's name.
func Parse(s string) (Ref, error) {
	kind, rest, ok := strings.Cut(s, ":")
	f, known := forms[kind]
	switch {
	case !ok || !known:
		return Ref{}, fmt.Errorf("ticket %q: a ticket of rt, redmine, jira, gitlab, servicenow, gitea or forgejo is written like rt:12", s)
	case !f.form.MatchString(rest) || strings.Contains(rest, ".."):
		return Ref{}, fmt.Errorf("ticket %q: written like %s", s, f.usage)
	}
	m := f.form.FindStringSubmatch(rest)
	return Ref{kind, m[1], m[2]}, nil
}

// Comment is what is put on a ticket.
type Comment struct {
	Text string // Markdown
	Name string // of the file; it also tells whether the comment is there already, so it must be the file's own
	Data []byte
}

// Client is a ticket system. The zero value of what is not documented is right.
type Client struct {
	URL   string // of the system, without the path of its API
	Token string // never logged, and taken out of errors
	HTTP  *http.Client
	Wait  func(context.Context, time.Duration) error // between attempts; nil: as long as it says
}

// step is one request that changes something, and how to find out whether it has been made.
type step struct {
	done func(context.Context) (bool, error)
	do   func(context.Context) error
}

// attempts is how often a step is tried, when the server or the network has a fault that may pass.
const attempts = 4

// Attach puts the comment with its file on the ticket, once: what is there
// already, from an earlier run or from an attempt whose answer was lost, is not
// put there again. It returns false when all of it was there.
func (c *Client) Attach(ctx context.Context, ref Ref, comment Comment) (changed bool, err error) {
	s, err := c.open()
	if err != nil {
		return false, err
	}
	make, ok := map[string]func(*session, Ref, Comment) []step{
		"rt": rt, "redmine": redmine, "jira": jira, "gitlab": gitlab, "servicenow": servicenow, "gitea": gitea, "forgejo": gitea,
	}[ref.Kind]
	if !ok {
		return false, fmt.Errorf("%s: no such ticket system", ref.Kind)
	}
	for _, x := range make(s, ref, comment) {
		did, err := c.try(ctx, x)
		if err != nil {
			return changed, fmt.Errorf("%s: %w", ref, c.hide(err))
		}
		changed = changed || did
	}
	return changed, nil
}

// try makes a step unless it was made. Before every further attempt it looks
// again: an answer that was lost does not mean that nothing happened.
func (c *Client) try(ctx context.Context, x step) (bool, error) {
	pause := 500 * time.Millisecond
	for n := 1; ; n++ {
		done, err := x.done(ctx)
		if done {
			return n > 1, nil
		}
		if err == nil {
			if err = x.do(ctx); err == nil {
				return true, nil
			}
		}
		if n == attempts || !passing(err) || ctx.Err() != nil {
			return false, err
		}
		if err := c.wait(ctx, max(pause, retryAfter(err))); err != nil {
			return false, err
		}
		pause *= 3
	}
}

func (c *Client) wait(ctx context.Context, d time.Duration) error {
	if c.Wait != nil {
		return c.Wait(ctx, d)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// passing reports whether the same request may have another answer later.
func passing(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return !errors.Is(err, errNever)
	}
	return e.Status == http.StatusTooManyRequests || e.Status >= 500 && e.Status != http.StatusNotImplemented && e.Status != http.StatusInsufficientStorage
}

func retryAfter(err error) time.Duration {
	var e *Error
	if errors.As(err, &e) {
		return min(e.after, 30*time.Second)
	}
	return 0
}

// hide takes the token out of an error, should a server have sent it back.
func (c *Client) hide(err error) error {
	if c.Token == "" || !strings.Contains(err.Error(), c.Token) {
		return err
	}
	return errors.New(strings.ReplaceAll(err.Error(), c.Token, "***HIDDEN***"))
}
