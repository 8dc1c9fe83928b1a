#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Inside the guest: ring.sh MODULES PACKAGES FAMILY... runs the tests that were built outside, with each family of
# hooks. PACKAGES "short" is the few that show that each family tells what docs/requirements.md says and names the
# right rule; "record" writes what they tell to /out. VMTESTS, a regular expression, names the tests to run; all when empty.
set -u
modules=$1 packages=$2
shift 2
for m in $modules; do
	modprobe -q "$m" || echo "no module $m on $VM_KERNEL"
done
dist=$PWD/dist/vm
failed=
one() { # PACKAGE TEST-FLAGS...
	p=$1
	shift
	began=$(date +%s)
	(cd "$p" && "$dist/$(basename "$p").test" -test.timeout 0 "$@") || failed="$failed $p($PATHTRACE_HOOKS)"
	echo "$p: $(($(date +%s) - began)) s"
}
for PATHTRACE_HOOKS in "$@"; do
	export PATHTRACE_HOOKS
	echo "== $VM_KERNEL, $PATHTRACE_HOOKS"
	case $packages in
	short)
		one tracer -test.run '^(TestFacts|TestLoadLeavesModulesAlone)$'
		[ "$PATHTRACE_HOOKS" = tracepoint ] || one cmd/pathtrace -test.v -test.run '^TestRandomRulesets$'
		continue
		;;
	record)
		PATHTRACE_RECORD=/out one tracer -test.run '^TestFacts$' -update
		continue
		;;
	esac
	for p in $packages; do
		if [ -n "${VMTESTS:-}" ]; then one "$p" -test.v -test.run "$VMTESTS"; else one "$p"; fi
	done
done
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
