#!/bin/sh
# Asks Services of a running cluster, whichever proxy it has, and compares who answers with who
# should. On the control plane: sh /vagrant/deploy/vagrant/smoke.sh. Prints a line for each thing,
# and fails if one of them is not as it should be. Leaves nothing behind.
# shellcheck disable=SC2317 # functions that "expect" calls
set -eu
here=$(dirname "$0")
image=$(cat "${BPFSVC_SHARE:-/var/lib/bpfsvc-vagrant}/image")
failed=0
patience=10
in_smoke() {
	kubectl --namespace smoke "$@"
}

# ask CLIENT NODE PROTOCOL HOST PORT COUNT: who answered, as "4 pods on worker-a worker-b", and what
# errors there were instead.
ask() {
	pod=$(in_smoke get pod --selector "app=$1" --field-selector "spec.nodeName=$2" --output name)
	shift 2
	in_smoke exec "$pod" -- node /smoke/smoke.mjs ask "$@" | awk '
		NF == 3 { pods++; if (!($2 in seen)) nodes = nodes " " $2; seen[$2] }
		NF != 3 { errors = errors " " $2 }
		END { if (pods) printf "%d pods on%s", pods, nodes; print errors }' | sed 's/^ //'
}

# expect TITLE PATTERN COMMAND...: whether the command comes to print that within $patience tries.
expect() {
	title=$1 pattern=$2
	shift 2
	tries=0
	while :; do
		printed=$("$@" 2>&1) || :
		# shellcheck disable=SC2254 # a pattern
		case $printed in
		$pattern)
			echo "ok: $title"
			return
			;;
		esac
		tries=$((tries + 1))
		[ "$tries" -lt "$patience" ] || break
		sleep 2
	done
	echo "NOT OK: $title: '$printed' instead of '$pattern'"
	failed=1
}

address_of() {
	kubectl get node "$1" --output 'jsonpath={.status.addresses[?(@.type=="InternalIP")].address}'
}

# The node port of a Service for a protocol.
port_of() {
	in_smoke get service "$1" --output "jsonpath={.spec.ports[?(@.name==\"$2\")].nodePort}"
}

from_inside() {
	everybody='4 pods on worker-a worker-b'
	for client in pod-client node-client; do
		for protocol in tcp udp; do
			what="$protocol from a $client"
			expect "$what, to all" "$everybody" ask $client worker-a $protocol who.smoke.svc 80 60
			expect "$what, to a Service without endpoints" ECONNREFUSED \
				ask $client worker-a $protocol nobody.smoke.svc 80 1
			expect "$what, with affinity" '1 pods on worker-[ab]' \
				ask $client worker-a $protocol sticky.smoke.svc 80 20
			for node in worker-a worker-b; do
				expect "$what of $node, to its zone" "2 pods on $node" \
					ask $client $node $protocol near.smoke.svc 80 20
			done
		done
	done
}

# From the control plane: what comes to a worker's port comes from outside of it.
from_outside() {
	for protocol in tcp udp; do
		anywhere=$(port_of anywhere $protocol) local=$(port_of local $protocol)
		for node in worker-a worker-b; do
			address=$(address_of $node)
			expect "$protocol to the node port of $node" '4 pods on worker-a worker-b' \
				ask node-client control $protocol "$address" "$anywhere" 60
			expect "$protocol to the node port of $node, policy Local" "2 pods on $node" \
				ask node-client control $protocol "$address" "$local" 20
		done
		expect "$protocol to a node port with policy Local where no endpoint is" ETIMEDOUT \
			ask node-client worker-a $protocol "$(address_of control)" "$local" 1
	done
}

# The proxy is stopped and started on all nodes while a client asks on.
through_a_restart() {
	kubectl --namespace kube-system delete pod --selector "$1" --wait=false >/dev/null
	ask pod-client worker-a tcp who.smoke.svc 80 3000
	kubectl --namespace kube-system rollout status daemonset "$2" --timeout 2m >/dev/null
}

after_changes() {
	if kubectl --namespace kube-system get daemonset bpfsvc >/dev/null 2>&1; then
		expect "bpfsvc tells what is in the kernel" '*smoke/who:tcp/TCP*' \
			kubectl --namespace kube-system exec daemonset/bpfsvc -- bpfsvc dump smoke/who
		set -- app.kubernetes.io/name=bpfsvc bpfsvc
	else
		set -- k8s-app=kube-proxy kube-proxy
	fi
	patience=1
	expect "$2 starts again, and nobody notices" '4 pods on worker-a worker-b' \
		through_a_restart "$@"
	patience=10
	in_smoke scale deployment who --replicas 2 >/dev/null
	expect "endpoints that have left are asked no more" '2 pods on *[ab]' \
		ask pod-client worker-a tcp who.smoke.svc 80 60
}

trap 'kubectl delete namespace smoke --timeout 5m >/dev/null 2>&1 || :' EXIT
kubectl create namespace smoke >/dev/null
in_smoke create configmap smoke --from-file "$here/smoke.mjs" >/dev/null
sed "s|IMAGE|$image|" "$here/smoke.yaml" | in_smoke apply --filename - >/dev/null
for workload in deployment/who daemonset/pod-client daemonset/node-client; do
	in_smoke rollout status "$workload" --timeout 3m
done
from_inside
from_outside
after_changes
exit "$failed"
