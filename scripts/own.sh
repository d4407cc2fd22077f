#!/bin/sh
# Gives what a root run wrote in the clone to the clone's owner, or the owner's next build fails.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || exit 0
for folder in node_modules build dist; do
	[ ! -e "$folder" ] || chown -R -h --reference=. "$folder"
done
