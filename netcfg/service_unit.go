// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// units asks systemd about NAME.service and NAME.socket.
func (s services) units(ctx context.Context, name string) []evidence.Service {
	if s.systemctl == nil {
		return nil
	}
	out, err := s.systemctl(ctx, "show", "--no-pager", "-p", "Id,LoadState,ActiveState,SubState,ExecMainCode,ExecMainStatus,MainPID,FragmentPath", "--",
		name+".service", name+".socket")
	if err != nil {
		return nil
	}
	return parseUnits(string(out))
}

// parseUnits reads the form of "systemctl show": KEY=VALUE lines, an empty one between units.
func parseUnits(text string) []evidence.Service {
	var out []evidence.Service
	for block := range strings.SplitSeq(text, "\n\n") {
		v := map[string]string{}
		for line := range strings.Lines(block) {
			if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
				v[key] = value
			}
		}
		if v["Id"] == "" || v["LoadState"] == "not-found" || v["LoadState"] == "" {
			continue
		}
		u := evidence.Service{Name: v["Id"], Kind: "unit", State: fmt.Sprintf("%s (%s)", v["ActiveState"], v["SubState"]), File: v["FragmentPath"]}
		u.PID, _ = strconv.Atoi(v["MainPID"])
		// si_code of waitid(2)
		if word := map[string]string{"1": "exited", "2": "killed", "3": "dumped"}[v["ExecMainCode"]]; word != "" && u.PID == 0 {
			u.Exit = word + " " + v["ExecMainStatus"]
		}
		if !slices.ContainsFunc(out, func(o evidence.Service) bool { return o.Name == u.Name }) {
			out = append(out, u)
		}
	}
	return out
}

// unitFile finds how a service is started: its unit file or script, its program, its pid file.
func (s services) unitFile(name string) (file, exe, pidfile string) {
	for _, dir := range []string{"/etc/systemd/system/", "/lib/systemd/system/", "/usr/lib/systemd/system/"} {
		text := s.read(dir + name + ".service")
		if text == "" {
			continue
		}
		for line := range strings.Lines(text) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch words := strings.Fields(value); {
			case len(words) == 0:
			case key == "ExecStart" && exe == "":
				exe = strings.TrimLeft(words[0], "-@:+!|")
			case key == "PIDFile":
				pidfile = words[0]
			}
		}
		if strings.HasPrefix(exe, "/") && exe != "/bin/true" {
			return dir + name + ".service", exe, pidfile
		}
		exe = ""
	}
	for line := range strings.Lines(s.read("/etc/init.d/" + name)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if value = strings.Trim(value, `"'`); (key == "DAEMON" || key == "EXEC") && strings.HasPrefix(value, "/") && !strings.Contains(value, "$") {
			return "/etc/init.d/" + name, value, pidfile
		}
	}
	// a server that its package starts in another way, or that comes without one
	for _, pattern := range []string{"/usr/sbin/" + name, "/usr/lib/postgresql/*/bin/" + name} {
		found, _ := filepath.Glob(filepath.Join(s.root, pattern))
		if len(found) > 0 {
			exe = "/" + strings.TrimPrefix(strings.TrimPrefix(found[len(found)-1], s.root), "/")
			return exe, exe, pidfile
		}
	}
	return "", "", pidfile
}
