#!/bin/sh
# Installs what is missing, builds, and runs benches inside the lab's shell (needs root): all of
# them, or those named; with --build none. Only results go to standard output, so that --json can be
# piped.
set -eu
cd "$(dirname "$0")/.."
own() {
	sh scripts/own.sh
	[ ! -e bench/results ] || chown -R -h --reference=. bench/results
}
trap own EXIT
sh scripts/setup.sh bench >&2
node scripts/build.mjs >&2
[ "${1-}" = --build ] || sh lab/shell.sh node build/bench/run.js "$@"
