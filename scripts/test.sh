#!/bin/sh
# Builds and runs every test: as root inside the lab's shell, else those that need no root. Further
# arguments are AVA's. The last line counts the tests of all suites.
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh
trap 'sh scripts/own.sh' EXIT
node scripts/build.mjs
if [ "$(id -u)" = 0 ]; then
	sh lab/shell.sh node scripts/ava.mjs "$@"
else
	echo "test: not root, so tests that need the kernel are left out and say so"
	node scripts/ava.mjs "$@"
fi
