// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/pathtrace/pathtrace/evidence"
)

// Two containers as Docker 20.10 wrote them down: web was created with -p 8080:80 and ports of
// UDP on 127.0.0.1, host with --network host --expose 8081, and ended with 3.
const (
	webID  = "2619e84a78353e7d3996f7128d01dc75d5a7cad040ee5d645aaab784e5b5e0b1"
	hostID = "997849f099c8cbf28209eaee70da208e9e45eb641eca2b8ad90f335ccff80fea"
)

// dockerRoot makes the files of a host that has these two below data, with replacements in config.v2.json.
func dockerRoot(t *testing.T, data string, change ...string) string {
	t.Helper()
	files := map[string]string{}
	for _, id := range []string{webID, hostID} {
		for _, name := range []string{"config.v2.json", "hostconfig.json"} {
			b, err := os.ReadFile(filepath.Join("testdata/docker", id, name))
			if err != nil {
				t.Fatal(err)
			}
			files[filepath.Join(data, "containers", id, name)] = strings.NewReplacer(change...).Replace(string(b))
		}
	}
	return hostFiles(t, files)
}

func TestContainers(t *testing.T) {
	web := func(state string, pid int, exit string) []evidence.Service {
		return []evidence.Service{{Name: "web", Kind: "container", State: state, PID: pid, Exit: exit, Container: webID, Image: "shop:1",
			File: "/var/lib/docker/containers/" + webID + "/config.v2.json"}}
	}
	running := []string{`"Running":false`, `"Running":true`, `"Pid":0`, `"Pid":412`}
	ended := []string{`"StartedAt":"0001-01-01T00:00:00Z"`, `"StartedAt":"2026-11-23T02:44:59.6Z"`, `"ExitCode":0`, `"ExitCode":137`}
	lives := []program{{evidence.Process{PID: 412, Comm: "busybox"}, 5}}
	for name, x := range map[string]struct {
		protocol  string
		port      uint16
		change    []string
		processes []program
		want      []evidence.Service
	}{
		"never started":       {protocol: "tcp", port: 8080, want: web("created", 0, "")},
		"ended":               {protocol: "tcp", port: 8080, change: ended, want: web("exited", 0, "exited 137")},
		"out of memory":       {protocol: "tcp", port: 8080, change: append(ended, `"OOMKilled":false`, `"OOMKilled":true`), want: web("exited", 0, "exited 137, out of memory")},
		"runs":                {protocol: "tcp", port: 8080, change: running, processes: lives, want: web("running", 412, "")},
		"was running":         {protocol: "tcp", port: 8080, change: running, want: web("gone", 412, "")},
		"paused":              {protocol: "tcp", port: 8080, change: append(running, `"Paused":false`, `"Paused":true`), processes: lives, want: web("paused", 412, "")},
		"another protocol":    {protocol: "udp", port: 8080},
		"udp":                 {protocol: "udp", port: 9001, want: web("created", 0, "")},
		"the port inside":     {protocol: "tcp", port: 80},
		"a range":             {protocol: "tcp", port: 8085, change: []string{`"HostPort":"8080"`, `"HostPort":"8080-8090"`}, want: web("created", 0, "")},
		"no number":           {protocol: "tcp", port: 8080, change: []string{`"HostPort":"8080"`, `"HostPort":"x"`}},
		"exposed, not shared": {protocol: "tcp", port: 443},
		"the host's network": {protocol: "tcp", port: 8081, want: []evidence.Service{{Name: "host", Kind: "container", State: "exited", Exit: "exited 3", Container: hostID,
			Image: "shop:1", File: "/var/lib/docker/containers/" + hostID + "/config.v2.json"}}},
		"another's id":       {protocol: "tcp", port: 8080, change: []string{`"ID":"2619`, `"ID":"0000`}},
		"cut off":            {protocol: "tcp", port: 8080, change: []string{`"ShmSize"`, "\x00"}},
		"a name without end": {protocol: "tcp", port: 8080, change: []string{`"/web"`, `"/` + strings.Repeat("x", 300) + `"`}},
		"a negative pid":     {protocol: "tcp", port: 8080, change: []string{`"Pid":0`, `"Pid":-1`}},
		"another kind":       {protocol: "tcp", port: 8080, change: []string{`"State":{`, `"State":7,"x":{`}},
	} {
		s := services{root: dockerRoot(t, "var/lib/docker", x.change...), processes: x.processes}
		if diff := cmp.Diff(x.want, s.containers(x.protocol, x.port)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestContainersElsewhere(t *testing.T) {
	root := dockerRoot(t, "srv/docker")
	if got := (services{root: root}).containers("tcp", 8080); got != nil {
		t.Errorf("without daemon.json: %+v", got)
	}
	if err := os.MkdirAll(filepath.Join(root, "etc/docker"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/docker/daemon.json"), []byte(`{"data-root": "/srv/docker"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := (services{root: root}).containers("tcp", 8080); len(got) != 1 || got[0].File != "/srv/docker/containers/"+webID+"/config.v2.json" {
		t.Errorf("with daemon.json: %+v", got)
	}
	if got := (services{root: root, netns: &Netns{Name: "blue"}}).containers("tcp", 8080); got != nil {
		t.Errorf("in a namespace where Docker publishes nothing: %+v", got)
	}
}

// A pipe where a file is looked for must not keep us waiting.
func TestReadSomePipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "vsftpd.pid")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { _, err := readSome(pipe, 10); done <- err }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a pipe is read")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for the pipe")
	}
}
