#!/bin/sh
# What a connection to one of many Services costs a pod of this cluster, over a direct one:
# bench/cluster.ts, with pods and Services for it. On the control plane, as root, so that one machine
# has all that it takes; another cluster's figures are compared with these. Leaves Node and the
# bench's packages, and results in bench/results.
#
#   sh /vagrant/deploy/vagrant/bench.sh [SERVICES] [--quick]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
services=1000
case ${1-} in [0-9]*) services=$1 && shift ;; esac
image=$(cat "${BPFSVC_SHARE:-/var/lib/bpfsvc-vagrant}/image")
first=10.100.0.0

fail() {
	echo "bench: $*" >&2
	exit 1
}

in_bench() {
	kubectl --namespace bench "$@"
}

# Ubuntu's Node is too old: it is that of the image's own base.
install_node() {
	! command -v npm >/dev/null || return 0
	apt-get install -y -qq --no-install-recommends libatomic1 >/dev/null
	container=$(buildah from "$(sed -n 's/^ARG NODE_IMAGE=//p' deploy/Containerfile)")
	root=$(buildah mount "$container")
	mkdir -p /usr/local/lib/node_modules
	cp "$root/usr/local/bin/node" /usr/local/bin/node
	cp -R "$root/usr/local/lib/node_modules/npm" /usr/local/lib/node_modules
	ln -sf ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
	buildah rm "$container" >/dev/null
}

# A pod on this node that does nothing: the bench works in its network namespace.
pod() {
	cat <<END
apiVersion: v1
kind: Pod
metadata: { name: $1, labels: { app: $1 } }
spec:
  nodeSelector: { kubernetes.io/hostname: $(hostname) }
  terminationGracePeriodSeconds: 1
  tolerations: [{ operator: Exists }]
  containers:
    - name: $1
      image: $image
      imagePullPolicy: Never
      command: [node, -e, "setInterval(() => {}, 60_000)"]
---
END
}

# As JSON, with cluster IPs in a row.
print_services() {
	awk -v count="$services" 'BEGIN {
		ports = "{\"name\":\"tcp\",\"protocol\":\"TCP\",\"port\":80,\"targetPort\":8080}," \
			"{\"name\":\"udp\",\"protocol\":\"UDP\",\"port\":80,\"targetPort\":8080}"
		for (i = 0; i < count; i++) {
			spec = sprintf("\"clusterIP\":\"10.100.%d.%d\"", i / 256, i % 256)
			spec = spec ",\"selector\":{\"app\":\"server\"},\"ports\":[" ports "]"
			printf "{\"apiVersion\":\"v1\",\"kind\":\"Service\","
			printf "\"metadata\":{\"name\":\"service-%05d\"},\"spec\":{%s}}\n---\n", i, spec
		}
	}'
}

address_of() {
	in_bench get pod "$1" --output 'jsonpath={.status.podIP}'
}

# The file of the network namespace that has an address.
netns_of() {
	for file in /run/netns/*; do
		if nsenter --net="$file" ip -oneline -4 address | grep -qF " $1/"; then
			echo "$file"
			return
		fi
	done
	fail "no network namespace in /run/netns has the address $1"
}

proxy() {
	if kubectl --namespace kube-system get daemonset bpfsvc >/dev/null 2>&1; then
		echo bpfsvc
	else
		kubectl --namespace kube-system get configmap kube-proxy \
			--output 'jsonpath={.data.config\.conf}' | sed -n 's/^mode: *//p'
	fi
}

install_node
sh scripts/bench.sh --build
trap 'kubectl delete namespace bench --timeout 5m >/dev/null 2>&1 || :' EXIT
kubectl create namespace bench >/dev/null
{ pod client && pod server; } | in_bench create --filename - >/dev/null
echo "bench: creating $services Services"
print_services | in_bench create --filename - >/dev/null
in_bench wait --for condition=Ready pod/client pod/server --timeout 3m >/dev/null
client=$(netns_of "$(address_of client)")
endpoint=$(address_of server)
server=$(netns_of "$endpoint")
by=$(proxy)
node build/bench/incluster.js --proxy "$by" --client "$client" --server "$server" \
	--endpoint "$endpoint" --first "$first" --count "$services" "$@"
