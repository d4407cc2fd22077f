#!/bin/sh
# A worker, as root after node.sh: the image of the checkout, and a place in the cluster. Waits for
# the control plane, which may be made at the same time. Reads CONTROL. May run again.
set -eu
: "${CONTROL:?}"
here=$(dirname "$0")
files=http://$CONTROL:8000

fail() {
	echo "worker: $*" >&2
	exit 1
}

echo "worker: waiting for the control plane"
tries=0
until invitation=$(curl -fs "$files/join"); do
	tries=$((tries + 1))
	[ "$tries" -lt 360 ] || fail "$files/join was not there in half an hour: look at the control plane"
	sleep 5
done

archive=$(mktemp)
trap 'rm -f "$archive"' EXIT
curl -fsS --retry 5 -o "$archive" "$files/bpfsvc.tar"
sh "$here/image.sh" import "$archive"

[ ! -e /etc/kubernetes/kubelet.conf ] || exit 0
token=${invitation% *} hash=${invitation#* }
kubeadm join "$CONTROL:6443" --token "$token" --discovery-token-ca-cert-hash "$hash"
