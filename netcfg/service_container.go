// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pathtrace/pathtrace/evidence"
)

const (
	// maxContainers bounds how many containers are looked at, maxContainer what is read of each file, in bytes.
	maxContainers = 512
	maxContainer  = 1 << 20
)

// dockerState is what matters here of config.v2.json (container.Container of
// Moby 1.9 and later): the daemon writes it at each change of the state.
type dockerState struct {
	ID, Name string
	State    struct {
		Running, Paused, Restarting, Dead, OOMKilled bool
		Pid, ExitCode                                int
		StartedAt                                    time.Time
	}
	Config struct {
		Image        string
		ExposedPorts map[string]struct{}
	}
}

// dockerPorts is the same of hostconfig.json.
type dockerPorts struct {
	NetworkMode  string
	PortBindings map[string][]struct{ HostPort string }
}

// containers are those that Docker has published the port of, or that share the
// host's network and expose it, by the files of the daemon: it is not asked.
// Podman and containerd keep the like in databases, which are not read.
func (s services) containers(protocol string, port uint16) []evidence.Service {
	if s.netns != nil && s.netns.Name != "init" { // where the daemon publishes ports
		return nil
	}
	root := "/var/lib/docker"
	var daemon struct {
		DataRoot string `json:"data-root"`
	}
	if json.Unmarshal([]byte(s.read("/etc/docker/daemon.json")), &daemon) == nil && filepath.IsAbs(daemon.DataRoot) {
		root = filepath.Clean(daemon.DataRoot)
	}
	dir, err := os.Open(filepath.Join(s.root, root, "containers"))
	if err != nil {
		return nil
	}
	defer dir.Close()
	ids, _ := dir.Readdirnames(maxContainers) // what was read before an error counts
	slices.Sort(ids)
	var out []evidence.Service
	for _, id := range ids {
		file := filepath.Join(root, "containers", id, "config.v2.json")
		var c dockerState
		var p dockerPorts
		if !s.decode(file, &c) || !s.decode(filepath.Join(filepath.Dir(file), "hostconfig.json"), &p) || !c.plausible(id) || !p.publishes(c, protocol, port) {
			continue
		}
		out = append(out, s.container(c, file))
	}
	return out
}

// plausible reports whether it is one that Docker has written: a name has at most 255 bytes.
func (c dockerState) plausible(id string) bool {
	return c.ID == id && c.State.Pid >= 0 && len(c.Name) < 256 && len(c.Config.Image) < 512
}

// decode reads a file as JSON, and reports whether it is there and is that.
func (s services) decode(file string, v any) bool {
	data, err := readSome(filepath.Join(s.root, file), maxContainer)
	return err == nil && json.Unmarshal(data, v) == nil
}

// publishes reports whether packets to the host's port are for the container.
func (p dockerPorts) publishes(c dockerState, protocol string, port uint16) bool {
	if p.NetworkMode == "host" {
		_, ok := c.Config.ExposedPorts[fmt.Sprintf("%d/%s", port, protocol)]
		return ok
	}
	for inside, bindings := range p.PortBindings {
		if !strings.HasSuffix(inside, "/"+protocol) {
			continue
		}
		for _, b := range bindings {
			from, to, isRange := strings.Cut(b.HostPort, "-")
			if !isRange {
				to = from
			}
			low, err1 := strconv.ParseUint(from, 10, 16)
			high, err2 := strconv.ParseUint(to, 10, 16)
			if err1 == nil && err2 == nil && low <= uint64(port) && uint64(port) <= high {
				return true
			}
		}
	}
	return false
}

// container tells of one in the words of docker ps.
func (s services) container(c dockerState, file string) evidence.Service {
	one := evidence.Service{Name: strings.TrimPrefix(c.Name, "/"), Kind: "container", Container: c.ID, Image: c.Config.Image, File: file}
	switch x := c.State; {
	case x.Running && !slices.ContainsFunc(s.processes, func(p program) bool { return p.PID == x.Pid }):
		one.State, one.PID = evidence.ServiceGone, x.Pid // the daemon ended with it
	case x.Paused:
		one.State, one.PID = "paused", x.Pid
	case x.Restarting:
		one.State = "restarting"
	case x.Running:
		one.State, one.PID = evidence.ServiceRunning, x.Pid
	case x.Dead:
		one.State = "dead"
	case x.StartedAt.IsZero():
		one.State = "created"
	default:
		one.State, one.Exit = "exited", fmt.Sprintf("exited %d", x.ExitCode)
		if x.OOMKilled {
			one.Exit += ", out of memory"
		}
	}
	return one
}
