#!/bin/sh
# The control plane, as root after node.sh: a cluster with the proxy that PROXY names and flannel,
# and what the workers need to join it. Reads ADDRESS and FLANNEL as well. May run again, with a
# changed checkout.
set -eu
: "${PROXY:?}" "${ADDRESS:?}"
here=$(dirname "$0")
export DEBIAN_FRONTEND=noninteractive
pods=10.244.0.0/16
flannel=${FLANNEL:-https://github.com/flannel-io/flannel/releases/download/v0.28.8/kube-flannel.yml}
share=/var/lib/bpfsvc-vagrant
export KUBECONFIG=/etc/kubernetes/admin.conf

fail() {
	echo "control: $*" >&2
	exit 1
}

# What the workers fetch, on the machines' own network alone.
serve_files() {
	systemctl stop bpfsvc-share 2>/dev/null || :
	systemd-run --quiet --unit bpfsvc-share --collect --property DynamicUser=yes \
		python3 -m http.server --bind "$ADDRESS" --directory "$share" 8000
}

build_image() {
	apt-get install -y -qq --no-install-recommends buildah python3 >/dev/null
	sh "$here/image.sh" build "$share"
	sh "$here/image.sh" import "$share/bpfsvc.tar"
}

make_cluster() {
	[ ! -e "$KUBECONFIG" ] || return 0
	configuration=/etc/kubernetes/bpfsvc-vagrant.yaml
	case $PROXY in
	bpfsvc) skip=addon/kube-proxy mode= ;;
	*) skip='' mode=$PROXY ;;
	esac
	cat >"$configuration" <<END
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint:
  advertiseAddress: $ADDRESS
skipPhases: [$skip]
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: $(kubeadm version -o short)
networking:
  podSubnet: $pods
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: "$mode"
END
	kubeadm init --config "$configuration"
	mkdir -p /root/.kube
	ln -sf "$KUBECONFIG" /root/.kube/config
	install -d -o vagrant -g vagrant /home/vagrant/.kube
	install -o vagrant -g vagrant -m 600 "$KUBECONFIG" /home/vagrant/.kube/config
}

apply_proxy() {
	[ "$PROXY" = bpfsvc ] || return 0
	sh "$here/overlay.sh" "$(cat "$share/image")" "$pods" "$ADDRESS" | kubectl apply -f -
}

# It takes the device of the default route, which VirtualBox gives the same address on each machine.
apply_flannel() {
	curl -fsSL --retry 5 -o "$share/flannel.yaml" "$flannel"
	sed -i "s/^\( *- \)--kube-subnet-mgr\$/&\n\1--iface-regex=^${ADDRESS%.*}\\\\./" "$share/flannel.yaml"
	grep -q -- --iface-regex "$share/flannel.yaml" || fail "$flannel has no argument --kube-subnet-mgr"
	kubectl apply -f "$share/flannel.yaml"
}

# Who has the token may become a node; it lasts a day.
invite_workers() {
	hash=$(openssl x509 -pubkey -noout -in /etc/kubernetes/pki/ca.crt |
		openssl pkey -pubin -outform der | openssl dgst -sha256 -hex | sed 's/^.* //')
	echo "$(kubeadm token create) sha256:$hash" >"$share/join.new"
	mv "$share/join.new" "$share/join"
}

mkdir -p "$share"
rm -f "$share/join"
serve_files
build_image
make_cluster
apply_proxy
apply_flannel
invite_workers
kubectl wait --for condition=Ready "node/$(hostname)" --timeout 10m
