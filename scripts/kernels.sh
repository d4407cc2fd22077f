#!/bin/sh
# Installs what is missing, builds, and runs a subset of the tests on other kernels in virtual
# machines (needs root). --fetch takes newer packages of the kernels than those in the cache. The
# last line counts the tests of all kernels.
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh kernels
trap 'sh scripts/own.sh' EXIT
node scripts/build.mjs
node scripts/report.mjs node build/test/kernels/run.js "$@"
