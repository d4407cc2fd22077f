#!/bin/sh
# Installs what is missing, builds, and runs the demo inside the lab's shell (needs root). What is
# written here ends owned by the checkout's owner, also after a failure.
set -eu
cd "$(dirname "$0")/.."
trap 'sh scripts/own.sh' EXIT
sh scripts/setup.sh
node scripts/build.mjs
sh lab/shell.sh node build/lab/demo.js
