// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
)

func TestContainer(t *testing.T) {
	web, db := strings.Repeat("3f2a90c1", 8), strings.Repeat("3f2a77d0", 8)
	process := func(proc fstest.MapFS, pid, started int, cgroup string) {
		proc[fmt.Sprintf("%d/cgroup", pid)] = &fstest.MapFile{Data: []byte("0::" + cgroup + "\n")}
		proc[fmt.Sprintf("%d/stat", pid)] = &fstest.MapFile{Data: fmt.Appendf(nil, "%d (a (b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 %d 20", pid, started)}
	}
	proc := fstest.MapFS{"meminfo": {}, "77/cgroup": {Data: []byte("0::/\n")}}
	process(proc, 20, 900, "/system.slice/docker-"+web+".scope") // pids have wrapped: not the first
	process(proc, 4000, 500, "/system.slice/docker-"+web+".scope")
	process(proc, 50, 100, "/kubepods/burstable/pod1/cri-containerd-"+db+".scope")
	proc["51/cgroup"] = proc["50/cgroup"] // its stat is gone

	for id, want := range map[string]int{web: 4000, web[:12]: 4000, "docker://" + web: 4000, "containerd://" + db[:8]: 50} {
		if got, err := container(proc, id); got != want || err != nil {
			t.Errorf("%s: process %d, %v, want %d", id, got, err, want)
		}
	}
	for id, want := range map[string]string{
		"3f2a":              "several begin so: 3f2a77d03f2a, 3f2a90c13f2a",
		"deadbeef":          "no process of such a container",
		"web":               "4 to 64 hexadecimal digits",
		"":                  "4 to 64 hexadecimal digits",
		"../1":              "4 to 64 hexadecimal digits",
		"docker://" + "12;": "4 to 64 hexadecimal digits",
	} {
		if got, err := container(proc, id); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: process %d, %v, want %q", id, got, err, want)
		}
	}
}
