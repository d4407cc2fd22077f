#!/bin/sh
# Installs what is missing, builds the image of deploy/ without a container engine, and tests it as
# the DaemonSet runs it (needs root). The last line counts the tests.
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh image
trap 'sh scripts/own.sh' EXIT
node scripts/build.mjs
sh test/image/build.sh
node build/test/image/bundle.js
node scripts/report.mjs sh lab/shell.sh node build/image/tests.mjs
