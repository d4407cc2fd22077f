#!/bin/sh
# The image of this checkout in a node's containerd, as root. Its tag is of its content, so that a
# changed checkout is another image.
#
#   image.sh build FOLDER    builds it; leaves it in FOLDER as bpfsvc.tar, and its name in "image"
#   image.sh import FILE     puts such a bpfsvc.tar into this node's containerd
set -eu
cd "$(dirname "$0")/../.."

case ${1-} in
build)
	folder=$2
	mkdir -p "$folder"
	# Its name is known only once it is built.
	buildah build --isolation chroot --layers --quiet --iidfile "$folder/id" \
		--file deploy/Containerfile \
		${NODE_IMAGE:+--build-arg NODE_IMAGE="$NODE_IMAGE"} \
		${DEBIAN_IMAGE:+--build-arg DEBIAN_IMAGE="$DEBIAN_IMAGE"} . >/dev/null
	id=$(sed 's/^sha256://' "$folder/id")
	name=localhost/bpfsvc:$(echo "$id" | cut -c -12)
	rm -f "$folder/bpfsvc.tar"
	buildah push --quiet "$id" "docker-archive:$folder/bpfsvc.tar:$name"
	chmod a+r "$folder/bpfsvc.tar"
	echo "$name" >"$folder/image"
	;;
import) ctr --namespace k8s.io images import "$2" >/dev/null ;;
*)
	echo "Usage: image.sh build FOLDER | import FILE" >&2
	exit 2
	;;
esac
