# SPDX-License-Identifier: Apache-2.0
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build generate check-generated demo test pure vm-test vm-build vm-short vm-try vm-record test-tickets bench lint fuzz install clean vagrant need-go need-tools need-oracle need-servers need-vm need-clang

# Go is often not in the PATH that sudo or su gives to root.
GO ?= $(or $(shell command -v go),$(firstword $(wildcard /usr/local/go/bin/go /usr/lib/go/bin/go /snap/bin/go \
	$(HOME)/go/bin/go $(HOME)/sdk/go*/bin/go $(if $(SUDO_USER),/home/$(SUDO_USER)/go/bin/go /home/$(SUDO_USER)/sdk/go*/bin/go))))
# Servers that tests run and that cannot be installed beside each other are unpacked here.
UNPACKED := $(CURDIR)/.servers
export PATH := $(PATH):$(patsubst %/,%,$(dir $(GO))):/usr/sbin:/sbin:$(UNPACKED)/usr/sbin
export CGO_ENABLED := 0
# Root builds what a user has cloned: git refuses to describe it unless told that it is meant.
export GIT_CONFIG_COUNT := 1
export GIT_CONFIG_KEY_0 := safe.directory
export GIT_CONFIG_VALUE_0 := $(CURDIR)

PREFIX ?= /usr/local
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 10s

# How to become root: not at all when we are, else through sudo, with what sudo would drop.
ROOT = $(if $(filter-out 0,$(shell id -u)),sudo env "PATH=$$PATH" CGO_ENABLED=0 "CI=$${CI:-}" "GOMODCACHE=$$($(GO) env GOMODCACHE)" \
	GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory "GIT_CONFIG_VALUE_0=$(CURDIR)")

# $(call apt,COMMAND:PACKAGE ...) installs the packages whose command is missing.
define apt
	@missing=; for want in $(1); do \
		[ -e "$${want%%:*}" ] || command -v "$${want%%:*}" >/dev/null || missing="$$missing $${want#*:}"; \
	done; \
	[ -z "$$missing" ] && exit 0; \
	command -v apt-get >/dev/null || { echo "please install:$$missing" >&2; exit 1; }; \
	echo "installing:$$missing"; \
	$(ROOT) env DEBIAN_FRONTEND=noninteractive apt-get -qq update; \
	$(ROOT) env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing
endef

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

build: need-go ## compile ./pathtrace
	$(GO) build -trimpath -o pathtrace ./cmd/pathtrace

demo: need-tools build ## build a lab of namespaces, break it with iptables, and let pathtrace find out
	@# 1 is the exit code of a cause that was found.
	$(ROOT) ./pathtrace demo $(FAULT) || [ $$? = 1 ]

test: need-tools need-oracle need-servers lint ## install what is missing, run every test that this kernel allows (as root, or through sudo)
	$(if $(ROOT),$(GO) test ./...)
	$(ROOT) $(GO) test -count=1 -timeout 45m ./...
	@$(MAKE) --no-print-directory vm-try
	@$(GO) test -count=1 -v -run '^TestFaultsAreWellFormed$$' ./internal/lab | sed -n 's/^ *faults_test.go:[0-9]*: /the lab: /p'

pure: need-go ## run the tests that need no root
	$(GO) test ./...

# What runs on another kernel is built here: a compiler takes minutes in a machine without KVM.
KERNEL ?= 6.12
VMKERNELS = 6.1 6.12
VM = dist/vm/run -k $(KERNEL) -t $(VMTIME) -m 2048 --
VMTIME ?= 90m
VMPACKAGES = tracer netcfg probe internal/lab cmd/pathtrace
# Modules come first: functions of those that come later are not hooked.
VMMODULES = nf_tables nft_reject_inet nft_ct nft_nat nft_compat ip_tables ip6_tables iptable_filter iptable_nat iptable_mangle iptable_raw \
	iptable_security ip6table_filter ipt_REJECT xt_multiport xt_tcpudp xt_mark nf_conntrack nf_conntrack_netlink veth bridge vxlan tcp_diag udp_diag

vm-build: need-go need-vm
	mkdir -p dist/vm
	$(GO) build -o dist/vm/run ./internal/vm
	$(GO) build -trimpath -o dist/vm/pathtrace ./cmd/pathtrace
	for p in $(VMPACKAGES); do $(GO) test -c -o dist/vm/$$(basename $$p).test ./$$p; done

# An emulated machine is ten times slower or more: all of it takes hours. HOOKS, VMPACKAGES and VMTESTS name a part of it.
HOOKS ?= fentry kprobe tracepoint
vm-test: VMTIME = 12h
vm-test: vm-build ## run the tests that need root on a Debian kernel under QEMU (KERNEL=6.1 or 6.12), with each family of HOOKS; hours
	$(ROOT) env PATHTRACE="$(CURDIR)/dist/vm/pathtrace" VMTESTS='$(VMTESTS)' $(VM) sh internal/vm/ring.sh "$(VMMODULES)" "$(VMPACKAGES)" $(HOOKS)

vm-short: VMPACKAGES = tracer cmd/pathtrace
vm-short: vm-build
	for k in $(VMKERNELS); do \
		$(ROOT) dist/vm/run -k $$k -t 8m -m 2048 -- sh internal/vm/ring.sh "$(VMMODULES)" short fentry kprobe tracepoint; \
	done

# The short ring where QEMU and the kernels can be had, else the reason why not.
vm-try:
	@why=; [ "$$(uname -m)" = x86_64 ] || why="the guests are amd64"; \
	[ -n "$$why" ] || command -v apt-get >/dev/null || why="their packages are fetched by apt-get"; \
	[ -n "$$why" ] || $(MAKE) --no-print-directory need-vm || why="QEMU cannot be installed"; \
	listed() { for k in $(VMKERNELS); do apt-cache pkgnames linux-image-$$k. | grep amd64 >/dev/null || { echo "apt lists no Linux $$k"; return; }; done; }; \
	[ -n "$$why" ] || why=$$(listed); \
	case "$$why" in "apt lists "*) $(ROOT) apt-get -qq update && why=$$(listed);; esac; \
	if [ -n "$$why" ]; then echo "not tried on Linux $(VMKERNELS): $$why" >&2; else $(MAKE) --no-print-directory vm-short; fi

vm-record: VMPACKAGES = tracer
vm-record: vm-build ## take down again, on each kernel, what the decoder's tests and docs/requirements.md are made of
	for k in $(VMKERNELS); do \
		$(ROOT) dist/vm/run -k $$k -t 10m -m 2048 -o tracer/testdata -- sh internal/vm/ring.sh "$(VMMODULES)" record fentry kprobe tracepoint; \
	done
	$(ROOT) $(GO) test -count=1 ./tracer -run '^TestFacts$$' -update
	$(GO) test -count=1 ./tracer -run '^(TestDecode|TestReasonLists)$$' -update
	$(GO) generate ./tracer

test-tickets: need-go ## attach bundles to a real Request Tracker and Redmine, in a chroot that is removed afterwards (needs Debian's mirror)
	$(call apt,debootstrap:debootstrap unshare:util-linux ip:iproute2)
	mkdir -p dist
	$(GO) test -c -tags tickets -o dist/tickets.test ./cmd/pathtrace
	cd cmd/pathtrace && $(ROOT) sh ../../internal/tickets/run.sh ../../dist/tickets.test

# On another kernel there is no KVM, and every figure is that of an emulated machine.
RUNS ?= 50
ifeq ($(origin KERNEL),command line)
bench: vm-build
	$(GO) build -o dist/vm/bench ./internal/bench
	$(ROOT) dist/vm/run -k $(KERNEL) -t $(VMTIME) -m 2048 -o dist/vm -- sh -c 'for m in $(VMMODULES); do modprobe -q $$m; done; \
		dist/vm/bench -n 5 -only size,cold,programs,others -state /out/bench-$(KERNEL).json -o /out/benchmarks-$(KERNEL).md dist/vm/pathtrace'
	cp dist/vm/benchmarks-$(KERNEL).md docs/
else
bench: need-tools build ## measure pathtrace beside its peers and write docs/benchmarks.md (KERNEL=6.12: in a virtual machine, to docs/benchmarks-6.12.md)
	mkdir -p dist/vm
	$(GO) build -o dist/vm/bench ./internal/bench
	$(ROOT) dist/vm/bench -n $(RUNS) ./pathtrace
endif

lint: need-go
	$(GO) vet ./...
	$(GO) vet -tags tickets ./cmd/pathtrace
	@if $(GO) run $(STATICCHECK) -version >/dev/null 2>&1; then $(GO) run $(STATICCHECK) ./...; \
	else echo "staticcheck cannot be fetched: not run" >&2; fi

fuzz: need-go ## run each fuzz test for a short time (FUZZTIME=10s)
	@for package in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$package | sed -n '/^Fuzz/p'); do \
			$(GO) test $$package -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME); \
		done; \
	done

generate: need-clang need-go ## compile the BPF programs again, and what else is generated
	$(GO) generate ./...

check-generated: generate ## the same, and fail when anything differs from what is committed
	git diff --exit-code

install: build ## install it below PREFIX=/usr/local
	install -D -m 0755 pathtrace $(DESTDIR)$(PREFIX)/bin/pathtrace
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/man/man8 docs/man/*.8

clean: ## remove what was built
	rm -rf pathtrace dist

vagrant: ## start three Debian machines wired like the lab (needs Vagrant and a provider)
	vagrant validate
	vagrant up

need-go:
	@[ -x "$(GO)" ] || { echo "Go 1.26 is needed (or 1.21 and later, which fetches it), and is not in the PATH" >&2; exit 1; }

need-tools:
	$(call apt,nft:nftables iptables:iptables ip:iproute2 sysctl:procps /etc/ssl/certs/ca-certificates.crt:ca-certificates)

# Real servers for the tests. None of them is started, now or when the machine
# boots, but for those that were there before. inetd conflicts with xinetd.
SERVERS := vsftpd:vsftpd tcpd:tcpd xinetd:xinetd stunnel4:stunnel4 sshd:openssh-server nginx:nginx-light redis-server:redis-server \
	unbound:unbound dnsmasq:dnsmasq-base exim4:exim4-daemon-light pg_ctlcluster:postgresql mariadbd:mariadb-server-core \
	/usr/lib/dovecot/imap-login:dovecot-imapd /usr/lib/dovecot/pop3-login:dovecot-pop3d
need-servers:
	@missing=; for want in $(SERVERS); do command -v "$${want%%:*}" >/dev/null || missing="$$missing $${want#*:}"; done; \
	inetd=; command -v inetd >/dev/null || inetd=yes; \
	[ -n "$$missing$$inetd" ] || exit 0; \
	command -v apt-get >/dev/null || { echo "please install:$$missing openbsd-inetd" >&2; exit 1; }; \
	echo "installing:$$missing$${inetd:+ openbsd-inetd (in $(UNPACKED))}"; \
	$(ROOT) sh -eu -c 'deny=/usr/sbin/policy-rc.d; missing=$$1; inetd=$$2; unpacked=$$3; export DEBIAN_FRONTEND=noninteractive; \
		apt-get -qq update; \
		if [ -n "$$missing" ]; then \
			if [ ! -e $$deny ]; then trap "rm -f $$deny" EXIT; printf "#!/bin/sh\nexit 101\n" >$$deny; chmod 755 $$deny; fi; \
			apt-get -qq install -y --no-install-recommends $$missing; \
			for s in $$missing; do s=$${s#openssh-server}; s=$${s%-light}; s=$${s%-daemon}; s=$${s%-imapd}; update-rc.d "$${s:-ssh}" disable >/dev/null 2>&1 || :; done; \
		fi; \
		if [ -n "$$inetd" ]; then \
			apt-get -qq install -y --no-upgrade --no-install-recommends libevent-2.1-7 libbsd0 libtirpc3 libwrap0; \
			dir=$$(mktemp -d); cd $$dir; apt-get -qq download openbsd-inetd 2>/dev/null; dpkg-deb -x openbsd-inetd_*.deb "$$unpacked"; cd /; rm -rf "$$dir"; \
		fi' sh "$$missing" "$$inetd" "$(UNPACKED)"

# QEMU and Debian's kernels, fetched by name: no KVM is needed.
need-vm:
	$(call apt,qemu-system-x86_64:qemu-system-x86 depmod:kmod xz:xz-utils)

# The real libwrap, which our reading of hosts.allow and hosts.deny is held against.
need-oracle:
	$(call apt,gcc:gcc /usr/include/stdlib.h:libc6-dev /usr/include/tcpd.h:libwrap0-dev)

need-clang:
	$(call apt,clang-14:clang-14 llvm-strip-14:llvm-14 /usr/include/bpf/bpf_helpers.h:libbpf-dev /usr/include/linux/bpf.h:linux-libc-dev git:git)
