// SPDX-License-Identifier: Apache-2.0

package ticket

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

const zipType = "application/zip"

// basic is how a user with a token or password is sent (RFC 7617); a token alone is a bearer's (RFC 6750).
func (s *session) basicOrBearer() {
	value := "Bearer " + s.token
	if strings.Contains(s.token, ":") {
		value = "Basic " + base64.StdEncoding.EncodeToString([]byte(s.token))
	}
	s.header.Set("Authorization", value)
}

// rt comments through REST2 of Request Tracker 5: a comment is for the staff, the requestor does not see it.
func rt(s *session, ref Ref, c Comment) []step {
	s.header.Set("Authorization", "token "+s.token)
	path := "/REST/2.0/ticket/" + ref.ID
	return []step{{
		done: func(ctx context.Context) (bool, error) {
			// The answer to a comment on a missing ticket is 400: ask for it first.
			if err := s.get(ctx, path, nil); err != nil {
				return false, err
			}
			for page := 1; ; page++ {
				var list struct {
					Items []struct{ Filename string }
					Pages float64 // 0.0 in RT 5.0.3
				}
				if err := s.get(ctx, fmt.Sprintf("%s/attachments?fields=Filename&per_page=100&page=%d", path, page), &list); err != nil {
					return false, err
				}
				for _, x := range list.Items {
					if x.Filename == c.Name {
						return true, nil
					}
				}
				if float64(page) >= list.Pages || len(list.Items) == 0 {
					return false, nil
				}
			}
		},
		do: func(ctx context.Context) error {
			text, err := json.Marshal(map[string]string{"Subject": c.Name, "Content": c.Text, "ContentType": "text/plain"})
			if err != nil {
				return err
			}
			return s.form(ctx, path+"/comment", nil, part{field: "JSON", kind: "application/json", data: text},
				part{field: "Attachments", file: c.Name, kind: zipType, data: c.Data})
		},
	}}
}

// redmine uploads the file, then adds a note that takes it along. An upload without its note is removed by the server itself.
func redmine(s *session, ref Ref, c Comment) []step {
	s.header.Set("X-Redmine-API-Key", s.token)
	path := "/issues/" + ref.ID + ".json"
	return []step{{
		done: func(ctx context.Context) (bool, error) {
			// A wrong key still reads what is public.
			if err := s.get(ctx, "/users/current.json", nil); err != nil {
				return false, err
			}
			var got struct {
				Issue struct {
					Attachments []struct {
						Filename string `json:"filename"`
					} `json:"attachments"`
				} `json:"issue"`
			}
			err := s.get(ctx, path+"?include=attachments", &got)
			for _, a := range got.Issue.Attachments {
				if a.Filename == c.Name {
					return true, nil
				}
			}
			return false, err
		},
		do: func(ctx context.Context) error {
			var up struct {
				Upload struct {
					Token string `json:"token"`
				} `json:"upload"`
			}
			if err := s.call(ctx, http.MethodPost, "/uploads.json?filename="+url.QueryEscape(c.Name), "application/octet-stream", c.Data, &up); err != nil {
				return err
			}
			file := map[string]string{"token": up.Upload.Token, "filename": c.Name, "content_type": zipType}
			return s.json(ctx, http.MethodPut, path, map[string]any{"issue": map[string]any{"notes": redmineText(c.Text), "uploads": []any{file}}}, nil)
		},
	}}
}

// jira attaches the file, then comments, by version 2 of the API, which takes wiki markup.
func jira(s *session, ref Ref, c Comment) []step {
	s.basicOrBearer()
	s.header.Set("X-Atlassian-Token", "no-check") // else attaching counts as a forged request
	path := "/rest/api/2/issue/" + ref.ID
	var got struct {
		Fields struct {
			Attachment []struct {
				Filename string `json:"filename"`
			} `json:"attachment"`
		} `json:"fields"`
	}
	return []step{{
		done: func(ctx context.Context) (bool, error) {
			err := s.get(ctx, path+"?fields=attachment", &got)
			for _, a := range got.Fields.Attachment {
				if a.Filename == c.Name {
					return true, nil
				}
			}
			return false, err
		},
		do: func(ctx context.Context) error {
			return s.form(ctx, path+"/attachments", nil, part{field: "file", file: c.Name, kind: zipType, data: c.Data})
		},
	}, {
		done: func(ctx context.Context) (bool, error) {
			var list struct {
				Comments []struct {
					Body string `json:"body"`
				} `json:"comments"`
			}
			err := s.get(ctx, path+"/comment?orderBy=-created&maxResults=100", &list)
			for _, x := range list.Comments {
				if strings.Contains(x.Body, c.Name) {
					return true, nil
				}
			}
			return false, err
		},
		do: func(ctx context.Context) error {
			return s.json(ctx, http.MethodPost, path+"/comment", map[string]string{"body": jiraText(named(c))}, nil)
		},
	}}
}

// named is the text with the file's name, by which it is found again.
func named(c Comment) string { return c.Text + "\nAttached: " + c.Name + "\n" }

// gitlab uploads the file to the project, then adds a note that links to it.
func gitlab(s *session, ref Ref, c Comment) []step {
	s.header.Set("PRIVATE-TOKEN", s.token)
	project := "/api/v4/projects/" + url.PathEscape(ref.Project)
	notes := project + "/issues/" + ref.ID + "/notes"
	return []step{{
		done: func(ctx context.Context) (bool, error) {
			var list []struct {
				Body string `json:"body"`
			}
			err := s.get(ctx, notes+"?order_by=created_at&sort=desc&per_page=100", &list)
			for _, x := range list {
				if strings.Contains(x.Body, c.Name) {
					return true, nil
				}
			}
			return false, err
		},
		do: func(ctx context.Context) error {
			var up struct {
				Markdown string `json:"markdown"`
			}
			if err := s.form(ctx, project+"/uploads", &up, part{field: "file", file: c.Name, kind: zipType, data: c.Data}); err != nil {
				return err
			}
			return s.json(ctx, http.MethodPost, notes, map[string]string{"body": c.Text + "\n" + up.Markdown + "\n\nAttached: `" + c.Name + "`\n"}, nil)
		},
	}}
}

// gitea comments, then attaches the file to the issue. Forgejo is the same.
func gitea(s *session, ref Ref, c Comment) []step {
	s.header.Set("Authorization", "token "+s.token)
	issue := "/api/v1/repos/" + ref.Project + "/issues/" + ref.ID
	return []step{{
		done: func(ctx context.Context) (bool, error) {
			var list []struct {
				Name string `json:"name"`
			}
			err := s.get(ctx, issue+"/assets", &list)
			for _, x := range list {
				if x.Name == c.Name {
					return true, nil
				}
			}
			return false, err
		},
		do: func(ctx context.Context) error {
			return s.form(ctx, issue+"/assets?name="+url.QueryEscape(c.Name), nil, part{field: "attachment", file: c.Name, kind: zipType, data: c.Data})
		},
	}, {
		done: func(ctx context.Context) (bool, error) {
			var list []struct {
				Body string `json:"body"`
			}
			err := s.get(ctx, issue+"/comments", &list)
			for _, x := range list {
				if strings.Contains(x.Body, c.Name) {
					return true, nil
				}
			}
			return false, err
		},
		do: func(ctx context.Context) error {
			return s.json(ctx, http.MethodPost, issue+"/comments", map[string]string{"body": named(c)}, nil)
		},
	}}
}

// servicenow attaches the file to the incident, then adds a work note. Both need
// its sys_id, which is looked up by the number.
func servicenow(s *session, ref Ref, c Comment) []step {
	s.basicOrBearer()
	var id string
	lookup := func(ctx context.Context) error {
		if id != "" {
			return nil
		}
		var list struct {
			Result []struct {
				ID string `json:"sys_id"`
			} `json:"result"`
		}
		if err := s.get(ctx, "/api/now/table/incident?sysparm_limit=1&sysparm_fields=sys_id&sysparm_query=number="+ref.ID, &list); err != nil {
			return err
		}
		if len(list.Result) == 0 {
			return &Error{Status: http.StatusNotFound}
		}
		id = url.PathEscape(list.Result[0].ID)
		return nil
	}
	some := func(ctx context.Context, before, after string) (bool, error) {
		var list struct {
			Result []json.RawMessage `json:"result"`
		}
		if err := lookup(ctx); err != nil {
			return false, err
		}
		err := s.get(ctx, before+id+after, &list)
		return len(list.Result) > 0, err
	}
	name := url.QueryEscape(c.Name)
	return []step{{
		done: func(ctx context.Context) (bool, error) {
			return some(ctx, "/api/now/attachment?sysparm_limit=1&sysparm_query=table_sys_id=", "%5Efile_name="+name)
		},
		do: func(ctx context.Context) error {
			return s.call(ctx, http.MethodPost, "/api/now/attachment/file?table_name=incident&table_sys_id="+id+"&file_name="+name, zipType, c.Data, nil)
		},
	}, {
		done: func(ctx context.Context) (bool, error) {
			return some(ctx, "/api/now/table/sys_journal_field?sysparm_limit=1&sysparm_fields=sys_id&sysparm_query=element_id=", "%5EvalueLIKE"+name)
		},
		do: func(ctx context.Context) error {
			return s.json(ctx, http.MethodPatch, "/api/now/table/incident/"+id, map[string]string{"work_notes": journalText(named(c))}, nil)
		},
	}}
}
