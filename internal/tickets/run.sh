#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# run.sh TEST: runs the test binary TEST, from where its package is, against a real Request Tracker 5 and a
# real Redmine from Debian's packages, in a chroot that is removed afterwards.
# The servers and the test have a network namespace of their own, with nothing
# but loopback, and end with the process namespace that they are in.
# Root and debootstrap are needed, and a Debian mirror: DEBIAN_MIRROR and DEBIAN_SECURITY_MIRROR, else those
# that this host's apt has for Debian 12, else debootstrap's own. Some 3 minutes.
set -eu

# mirror CODENAME prints where apt gets that release from.
mirror() {
	apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' | sed -n "s/^$1 //p" | head -n 1
}
debian=${DEBIAN_MIRROR:-$(mirror bookworm)}
security=${DEBIAN_SECURITY_MIRROR:-$(mirror bookworm-security)}

outer() {
	dir=$(mktemp -d /tmp/pathtrace-tickets.XXXXXX)
	trap 'rm -rf --one-file-system "$dir"' EXIT
	trap 'exit 130' INT TERM HUP
	cp "$1" "$dir/test"
	unshare --mount --pid --fork --kill-child sh -eu "$0" build "$dir"
	unshare --mount --pid --net --fork --kill-child sh -eu "$0" serve "$dir"
}

# quietly shows what a long command printed only if it fails.
quietly() {
	"$@" >"$dir/log" 2>&1 || { tail -n 40 "$dir/log" >&2; exit 1; }
}

build() {
	root=$dir/root
	echo "debootstrap"
	quietly debootstrap --variant=minbase bookworm "$root" ${debian:+"$debian"} # which writes sources.list
	mount -t proc proc "$root/proc"
	[ -z "$security" ] || echo "deb $security bookworm-security main" >>"$root/etc/apt/sources.list"
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # start no daemon
	chmod 755 "$root/usr/sbin/policy-rc.d"
	chroot "$root" debconf-set-selections <<-'END'
		request-tracker5 request-tracker5/dbconfig-install boolean true
		request-tracker5 request-tracker5/database-type select sqlite3
		request-tracker5 request-tracker5/initial-root-password password throw-away
		request-tracker5 request-tracker5/initial-root-password-again password throw-away
		redmine redmine/instances/default/dbconfig-install boolean true
		redmine redmine/instances/default/database-type select sqlite3
	END
	# The Ruby of Debian's security updates has a bundler that does not see Debian's gems.
	export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 BUNDLER_VERSION=2.3.15
	quietly chroot "$root" apt-get -qq update
	echo "Request Tracker"
	quietly chroot "$root" apt-get -qq install -y --no-install-recommends request-tracker5 rt5-db-sqlite rt5-standalone nullmailer
	echo "Redmine"
	quietly chroot "$root" apt-get -qq install -y --no-install-recommends redmine redmine-sqlite puma
	chroot "$root" dpkg-query -W request-tracker5 redmine
}

serve() {
	root=$dir/root
	export LC_ALL=C.UTF-8 HOME=/tmp
	ip link set lo up
	mount -t proc proc "$root/proc"
	mount -t proc proc /proc

	printf 'Set($WebPath, ""); Set($WebDomain, "127.0.0.1"); Set($WebPort, 8088); Set($rtname, "test"); Set($LogToSTDERR, "warning"); 1;\n' \
		>"$root/etc/request-tracker5/RT_SiteConfig.d/99-test.pm"
	cat >"$root/tmp/rt.pl" <<-'END'
		use lib "/usr/share/request-tracker5/lib";
		use RT; RT::LoadConfig(); RT::Init(); use RT::AuthToken; use RT::Ticket; use RT::CurrentUser;
		my $user = RT::CurrentUser->new; $user->LoadByName("root"); die "no root" unless $user->id;
		my ($id, undef, $why) = RT::Ticket->new($user)->Create(Queue => 1, Subject => "port 80 is dead"); die $why unless $id;
		my ($ok, $said, $token) = RT::AuthToken->new($user)->Create(Owner => $user->id, Description => "test"); die $said unless $ok;
		print "rt http://127.0.0.1:8088 $id $token\n";
	END
	chroot "$root" perl /tmp/rt.pl >"$dir/tickets"
	chroot "$root" /usr/share/request-tracker5/libexec/rt-server --host 127.0.0.1 --port 8088 >"$dir/rt.log" 2>&1 &

	export RAILS_ENV=production BUNDLER_VERSION=2.3.15
	echo 'gem "puma"' >"$root/usr/share/redmine/Gemfile.local" # Debian's has no server
	cat >"$root/tmp/redmine.rb" <<-'END'
		user = User.find_by_login("admin"); user.must_change_passwd = false; user.save!
		Setting.rest_api_enabled = "1"
		project = Project.create!(name: "Ops", identifier: "ops", is_public: false, trackers: Tracker.all, enabled_module_names: ["issue_tracking"])
		issue = Issue.create!(project: project, tracker: Tracker.first, author: user, subject: "port 80 is dead", status: IssueStatus.first, priority: IssuePriority.first)
		puts "redmine http://127.0.0.1:8089 #{issue.id} #{user.api_key}"
	END
	chroot "$root" sh -c 'cd /usr/share/redmine && bundle exec rails runner /tmp/redmine.rb' >>"$dir/tickets"
	chroot "$root" sh -c 'cd /usr/share/redmine && exec bundle exec puma -b tcp://127.0.0.1:8089' >"$dir/redmine.log" 2>&1 &

	mkdir "$dir/tmp"
	TMPDIR=$dir/tmp TICKETS=$dir/tickets "$dir/test" -test.v -test.run '^TestRealTickets$' || {
		tail -n 20 "$dir/rt.log" "$dir/redmine.log" >&2
		exit 1
	}
}

case $1 in
build | serve)
	dir=$2
	"$1"
	;;
*)
	outer "$1"
	;;
esac
