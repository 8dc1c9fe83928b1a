// SPDX-License-Identifier: Apache-2.0

package netcfg

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pathtrace/pathtrace/evidence"
)

// hostFiles makes the files of a host below a directory.
func hostFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const etcServices = "ftp\t\t21/tcp\nhttp\t80/tcp\twww # web\ndomain 53/udp\ndaytime 13/tcp\n"

func TestServiceNames(t *testing.T) {
	s := services{root: hostFiles(t, map[string]string{"etc/services": etcServices, "etc/xinetd.d/daytime": "# ftp\nservice daytime\n{\n}\n"})}
	for _, c := range []struct {
		protocol string
		port     uint16
		scheme   string
		want     string
		none     string
	}{
		{"tcp", 21, "", "vsftpd", "nginx"},
		{"tcp", 8080, "http", "nginx", "vsftpd"},
		{"tcp", 80, "", "apache2", "vsftpd"},
		{"udp", 53, "dns", "unbound", "nginx"},
		{"tcp", 13, "", "xinetd", "vsftpd"},
		{"tcp", 21, "", "ftp", "xinetd"},
	} {
		got := s.names(c.protocol, c.port, c.scheme)
		if !slices.Contains(got, c.want) || slices.Contains(got, c.none) {
			t.Errorf("%d/%s %s: %q, want %s and not %s", c.port, c.protocol, c.scheme, got, c.want, c.none)
		}
	}
	if got := s.names("tcp", 4711, ""); len(got) != 0 {
		t.Errorf("a port that nothing is known of: %q", got)
	}
}

func TestServicesFound(t *testing.T) {
	root := hostFiles(t, map[string]string{
		"etc/services":                       etcServices,
		"lib/systemd/system/vsftpd.service":  "[Service]\nType=simple\nExecStart=/usr/sbin/vsftpd /etc/vsftpd.conf\n",
		"lib/systemd/system/nginx.service":   "[Service]\nPIDFile=/run/nginx.pid\nExecStart=/usr/sbin/nginx -g 'daemon on;'\n",
		"lib/systemd/system/apache2.service": "[Service]\nExecStart=/usr/sbin/apachectl start\n",
		"etc/init.d/lighttpd":                "DAEMON=/usr/sbin/lighttpd\n",
		"usr/sbin/vsftpd":                    "", "usr/sbin/nginx": "", "usr/sbin/lighttpd": "", "usr/sbin/dnsmasq": "",
		"etc/init.d/dnsmasq": "NAME=dnsmasq\nDAEMON=/usr/sbin/$NAME\n",
		"run/nginx.pid":      "412\n",
	})
	zombie := program{evidence.Process{PID: 7, Comm: "vsftpd", State: "Z"}, 0}
	elsewhere := program{evidence.Process{PID: 9, Comm: "vsftpd", Exe: "/usr/sbin/vsftpd", State: "S"}, 5}
	name := func(uint64) string { return "blue" }
	systemctl := func(_ context.Context, arg ...string) ([]byte, error) {
		if arg[len(arg)-2] != "vsftpd.service" {
			return []byte("Id=x.service\nLoadState=not-found\n"), nil
		}
		return []byte("Id=vsftpd.service\nLoadState=loaded\nActiveState=failed\nSubState=failed\nExecMainCode=1\nExecMainStatus=2\nMainPID=0\nFragmentPath=/lib/systemd/system/vsftpd.service\n\nId=vsftpd.socket\nLoadState=not-found\nActiveState=inactive\n"), nil
	}
	for what, c := range map[string]struct {
		s    services
		port uint16
		want []evidence.Service
	}{
		"installed": {services{}, 21, []evidence.Service{{Name: "vsftpd", Kind: "installed", State: "idle", Exe: "/usr/sbin/vsftpd", File: "/lib/systemd/system/vsftpd.service"}}},
		"no unit":   {services{}, 53, []evidence.Service{{Name: "dnsmasq", Kind: "installed", State: "idle", Exe: "/usr/sbin/dnsmasq", File: "/usr/sbin/dnsmasq"}}},
		"zombie": {services{processes: []program{zombie}}, 21, []evidence.Service{
			{Name: "vsftpd", Kind: "process", State: "zombie", PID: 7},
			{Name: "vsftpd", Kind: "installed", State: "idle", Exe: "/usr/sbin/vsftpd", File: "/lib/systemd/system/vsftpd.service"}}},
		"elsewhere": {services{processes: []program{elsewhere}, nameNetns: name}, 21, []evidence.Service{{Name: "vsftpd", Kind: "process", State: "running", PID: 9, Exe: "/usr/sbin/vsftpd", Netns: "blue"}}},
		"another namespace's": {services{netns: &Netns{Name: "red", Inode: 6}, processes: []program{elsewhere}, nameNetns: name}, 21, []evidence.Service{
			{Name: "vsftpd", Kind: "process", State: "running", PID: 9, Exe: "/usr/sbin/vsftpd", Netns: "blue"},
			{Name: "vsftpd", Kind: "installed", State: "idle", Exe: "/usr/sbin/vsftpd", File: "/lib/systemd/system/vsftpd.service"}}},
		"unit": {services{systemctl: systemctl}, 21, []evidence.Service{
			{Name: "vsftpd.service", Kind: "unit", State: "failed (failed)", File: "/lib/systemd/system/vsftpd.service", Exit: "exited 2"}}},
		"pid file": {services{}, 80, []evidence.Service{
			{Name: "nginx", Kind: "pidfile", State: "gone", PID: 412, Exe: "/usr/sbin/nginx", File: "/run/nginx.pid"},
			{Name: "nginx", Kind: "installed", State: "idle", Exe: "/usr/sbin/nginx", File: "/lib/systemd/system/nginx.service"},
			{Name: "lighttpd", Kind: "installed", State: "idle", Exe: "/usr/sbin/lighttpd", File: "/etc/init.d/lighttpd"}}},
		"pid of one that lives": {services{processes: []program{{evidence.Process{PID: 412, Comm: "other"}, 5}}}, 80, []evidence.Service{
			{Name: "nginx", Kind: "installed", State: "idle", Exe: "/usr/sbin/nginx", File: "/lib/systemd/system/nginx.service"},
			{Name: "lighttpd", Kind: "installed", State: "idle", Exe: "/usr/sbin/lighttpd", File: "/etc/init.d/lighttpd"}}},
	} {
		c.s.root = root
		got := c.s.find(t.Context(), "tcp", c.s.names(map[uint16]string{53: "udp"}[c.port]+map[bool]string{true: "tcp"}[c.port != 53], c.port, ""))
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
	}
}

func FuzzParseUnits(f *testing.F) {
	f.Add("Id=a.service\nLoadState=loaded\nExecMainCode=2\nExecMainStatus=9\n\n\n=\n")
	f.Fuzz(func(_ *testing.T, s string) { parseUnits(s) })
}
