#!/bin/sh
# Installs what is missing, builds the image of deploy/ without a container engine, and tests it as
# the DaemonSet runs it (needs root): on this machine's kernel, or on those of test:kernels that are
# named. The last line counts the tests.
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh image
trap 'sh scripts/own.sh' EXIT
node scripts/build.mjs
sh test/image/build.sh
node build/test/image/bundle.js
if [ $# -gt 0 ]; then
	sh scripts/setup.sh kernels
	node scripts/report.mjs node build/test/kernels/run.js --image "$@"
else
	node scripts/report.mjs sh lab/shell.sh node build/image/tests.mjs
fi
