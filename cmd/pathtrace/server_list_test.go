// SPDX-License-Identifier: Apache-2.0

package main_test

import "testing"

// server is a real one, of a Debian package, with a configuration of its own.
type server struct {
	name   string
	bin    string // "" : the newest of PostgreSQL's
	needs  string // another program, of another package
	port   uint16
	udp    bool
	url    string            // %s: the server's address
	files  map[string]string // below DIR, which is replaced in them and in args
	args   []string
	user   string // runs as this user; empty: root
	setup  func(t *testing.T, s server, dir string)
	banner string // part of what it says
	comm   string
	master string // the process that starts the one called comm when somebody connects; empty: there is none
	flags  []string
}

var servers = []server{
	{
		name: "vsftpd", bin: "/usr/sbin/vsftpd", port: 2121, url: "ftp://%s:2121", banner: "220 ", comm: "vsftpd",
		files: map[string]string{"conf": "listen=YES\nlisten_port=2121\nbackground=NO\nanonymous_enable=NO\nlocal_enable=YES\nsecure_chroot_dir=DIR\n"}, args: []string{"DIR/conf"},
	}, {
		name: "openssh-server", bin: "/usr/sbin/sshd", port: 2222, url: "ssh://%s:2222", banner: "SSH-2.0-OpenSSH", comm: "sshd",
		files: map[string]string{"conf": "Port 2222\nHostKey DIR/key.pem\nPidFile DIR/sshd.pid\nUsePAM no\n"}, args: []string{"-D", "-e", "-f", "DIR/conf"},
		setup: sshdSetup,
	}, {
		name: "xinetd", bin: "/usr/sbin/xinetd", port: 13, url: "tcp://%s:13", flags: []string{"--expect", "20[0-9][0-9]"}, banner: " 20", comm: "xinetd",
		files: map[string]string{"conf": "defaults\n{\n}\nservice daytime\n{\ntype = INTERNAL\nid = daytime-stream\nsocket_type = stream\nprotocol = tcp\nuser = root\nwait = no\n}\n"},
		args:  []string{"-dontfork", "-f", "DIR/conf", "-pidfile", "DIR/pid"},
	}, {
		name: "stunnel4", bin: "/usr/bin/stunnel4", port: 4433, url: "tls://%s:4433", banner: "", comm: "stunnel4",
		files: map[string]string{"conf": "foreground=yes\npid=\n[web]\naccept=4433\nconnect=127.0.0.1:1\ncert=DIR/cert.pem\n"}, args: []string{"DIR/conf"},
	}, {
		name: "nginx", bin: "/usr/sbin/nginx", port: 8088, url: "http://%s:8088/", banner: "HTTP/1.1 200 OK", comm: "nginx",
		files: map[string]string{"conf": "pid DIR/pid;\nerror_log DIR/error.log;\nworker_processes 1;\nevents {}\nhttp { access_log DIR/access.log;\nclient_body_temp_path DIR/a; proxy_temp_path DIR/b; fastcgi_temp_path DIR/c; uwsgi_temp_path DIR/d; scgi_temp_path DIR/e;\nserver { listen 8088; location / { return 200 fine; } } }\n"},
		args:  []string{"-c", "DIR/conf", "-g", "daemon off;"},
	}, {
		name: "nginx-tls", bin: "/usr/sbin/nginx", port: 8443, url: "https://%s:8443/", banner: "HTTP/1.1 503", comm: "nginx",
		files: map[string]string{"conf": "pid DIR/pid;\nerror_log DIR/error.log;\nworker_processes 1;\nevents {}\nhttp { access_log off;\nclient_body_temp_path DIR/a; proxy_temp_path DIR/b; fastcgi_temp_path DIR/c; uwsgi_temp_path DIR/d; scgi_temp_path DIR/e;\nserver { listen 8443 ssl; ssl_certificate DIR/cert.pem; ssl_certificate_key DIR/cert.pem; location / { return 503; } } }\n"},
		args:  []string{"-c", "DIR/conf", "-g", "daemon off;"},
	}, {
		name: "redis-server", bin: "/usr/bin/redis-server", port: 6379, url: "redis://%s", banner: "+PONG", comm: "redis-server",
		files: map[string]string{"conf": "port 6379\nbind 0.0.0.0\nprotected-mode no\ndir DIR\nsave \"\"\n"}, args: []string{"DIR/conf"},
	}, {
		name: "postgresql", port: 5432, url: "postgresql://%s", banner: "role \\\"pathtrace\\\" does not exist", comm: "postgres", user: "postgres",
		setup: initdb, args: []string{"-D", "DIR/db", "-c", "listen_addresses=0.0.0.0", "-c", "unix_socket_directories=DIR", "-c", "fsync=off"},
	}, {
		name: "dnsmasq", bin: "/usr/sbin/dnsmasq", port: 53, url: "dns+tcp://%s/web.example", banner: "NOERROR for web.example. A, 1 answers", comm: "dnsmasq",
		args: []string{"-k", "-C", "/dev/null", "-R", "-h", "-x", "DIR/pid", "-u", "root", "--address=/web.example/192.0.2.7"},
	}, {
		name: "unbound", bin: "/usr/sbin/unbound", port: 53, udp: true, url: "dns://%s/web.example", banner: "NOERROR for web.example. A, 1 answers", comm: "unbound",
		files: map[string]string{"conf": "server:\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n directory: DIR\n pidfile: DIR/pid\n use-syslog: no\n interface: 0.0.0.0\n access-control: 0.0.0.0/0 allow\n num-threads: 1\n local-data: \"web.example A 192.0.2.7\"\nremote-control:\n control-enable: no\n"},
		args:  []string{"-d", "-c", "DIR/conf"},
	}, {
		name: "exim4", bin: "/usr/sbin/exim4", port: 2525, url: "smtp://%s:2525", banner: "220 mx.example ESMTP", comm: "exim4",
		files: map[string]string{"conf": "primary_hostname = mx.example\nkeep_environment =\nspool_directory = DIR\nlog_file_path = DIR/%slog\npid_file_path = DIR/pid\nacl_smtp_rcpt = deny\nhost_lookup =\nrfc1413_query_timeout = 0s\nhosts_treat_as_local =\nbegin acl\ndeny:\n deny\n"},
		args:  []string{"-bdf", "-oX", "2525", "-C", "DIR/conf"},
		setup: func(t *testing.T, _ server, dir string) { own(t, dir, "Debian-exim") },
	}, {
		name: "dovecot-imapd", bin: "/usr/sbin/dovecot", needs: "/usr/lib/dovecot/imap-login", port: 143, url: "imap://%s", banner: "* OK ", comm: "imap-login", master: "dovecot",
		files: map[string]string{"conf": dovecot + "protocols = imap\n"}, args: []string{"-F", "-c", "DIR/conf"},
	}, {
		name: "dovecot-pop3d", bin: "/usr/sbin/dovecot", needs: "/usr/lib/dovecot/pop3-login", port: 110, url: "pop3://%s", banner: "+OK ", comm: "pop3-login", master: "dovecot",
		files: map[string]string{"conf": dovecot + "protocols = pop3\n"}, args: []string{"-F", "-c", "DIR/conf"},
	}, {
		name: "mariadb", bin: "/usr/sbin/mariadbd", port: 3306, url: "mysql://%s", banner: "MariaDB", comm: "mariadbd",
		setup: func(t *testing.T, _ server, dir string) { must(t, "mkdir", dir+"/db") },
		args:  []string{"--no-defaults", "--skip-grant-tables", "--datadir=DIR/db", "--socket=DIR/socket", "--pid-file=DIR/pid", "--user=root", "--innodb-buffer-pool-size=8M"},
	},
}

// dovecot is the part of its configuration that every protocol needs.
const dovecot = "base_dir = DIR/run\nstate_dir = DIR/state\nlog_path = DIR/log\nlisten = 0.0.0.0\nssl = no\n" +
	"mail_location = maildir:DIR/mail\npassdb {\n driver = static\n args = nopassword\n}\nuserdb {\n driver = static\n args = uid=nobody gid=nogroup home=DIR\n}\n"
