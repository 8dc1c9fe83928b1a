// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/pathtrace/pathtrace/evidence"
)

// explainServices adds to a verdict of nothing listening what the host says
// about the programs that would. The cause is the same whatever that is. Where
// one unit, pid file or container, and no other, tells of a service that has died, v names it.
func explainServices(n *evidence.Namespace, v *Verdict) {
	if n.Services == nil || !unread(v, n, "services", n.Services.Read(), n.Services.Why()) {
		return
	}
	var dead []evidence.Service
	for _, s := range n.Services.Items {
		line, gone := serviceLine(n, &s)
		v.Proof = append(v.Proof, line)
		if gone {
			dead = append(dead, s)
		}
	}
	if len(dead) != 1 {
		return
	}
	d := dead[0]
	line, _ := serviceLine(n, &d)
	v.Summary += "; " + line
	v.Where.Process = &evidence.Process{PID: d.PID, Comm: d.Name, Exe: d.Exe, Container: d.Container}
	if d.Kind == "container" && containerName.MatchString(d.Name) && n.Name == "init" {
		v.Fixes = append(v.Fixes, Fix{Summary: "start the container " + d.Name, Commands: []string{"docker start " + d.Name}, Undo: []string{"docker stop " + d.Name}})
	}
	if d.Kind != "unit" {
		return
	}
	v.Where.Process.Comm, v.Where.Process.Unit = strings.TrimSuffix(d.Name, ".service"), d.Name
	if n.Name == "init" { // where systemd starts its services
		v.Fixes = append(v.Fixes, Fix{Summary: "start " + d.Name, Commands: []string{"systemctl start " + d.Name}, Undo: []string{"systemctl stop " + d.Name}})
	}
}

// containerName is what Docker takes for one.
var containerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// containerLine is [serviceLine] of a container.
func containerLine(s *evidence.Service) (line string, dead bool) {
	line = fmt.Sprintf("Docker publishes this port for the container %s (image %s)", s.Name, s.Image)
	switch s.State {
	case evidence.ServiceRunning, "paused", "restarting":
		return line + ", which is " + s.State, false
	case evidence.ServiceGone:
		return line + fmt.Sprintf(": its process is %d by %s, and there is no such process", s.PID, s.File), true
	}
	how := s.State
	if s.Exit != "" {
		how = s.Exit
	}
	return line + ", which does not run: " + how, true
}

// serviceLine tells one fact; dead says that it is of a service that ought to run and does not.
func serviceLine(n *evidence.Namespace, s *evidence.Service) (line string, dead bool) {
	if s.Kind == "container" {
		return containerLine(s)
	}
	switch s.State {
	case evidence.ServiceGone:
		return fmt.Sprintf("%s names process %d for %s, and there is no such process", s.File, s.PID, s.Name), true
	case evidence.ServiceZombie:
		return fmt.Sprintf("%s (pid %d) has ended, wherever it ran; its parent has not taken notice (state Z)", s.Name, s.PID), false
	case evidence.ServiceIdle:
		if s.File == s.Exe {
			return fmt.Sprintf("%s is installed, and no process in %s runs %s", s.Name, name(n.Name), s.Exe), false
		}
		return fmt.Sprintf("%s is installed (%s), and no process in %s runs %s", s.Name, s.File, name(n.Name), s.Exe), false
	case evidence.ServiceRunning:
		switch {
		case s.Netns != n.Name:
			return fmt.Sprintf("%s (pid %d) runs in %s, not in %s", s.Name, s.PID, name(s.Netns), name(n.Name)), false
		case len(s.Listens) > 0:
			return fmt.Sprintf("%s (pid %d) runs in %s and listens on %s", s.Name, s.PID, name(n.Name), strings.Join(s.Listens, ", ")), false
		}
		return fmt.Sprintf("%s (pid %d) runs in %s and listens on no such socket", s.Name, s.PID, name(n.Name)), false
	}
	line = fmt.Sprintf("systemd says that %s is %s", s.Name, s.State)
	if s.Exit != "" {
		line += ", its main process " + s.Exit
	}
	return line, !strings.HasPrefix(s.State, "active") && !strings.HasPrefix(s.State, "activating") && !strings.HasSuffix(s.Name, ".socket")
}
