#!/bin/sh
# On every machine, as root: a container runtime and Kubernetes' programs, nothing of a cluster yet.
# Reads KUBERNETES_APT, ADDRESS and ZONE. May run again.
set -eu
: "${KUBERNETES_APT:?}" "${ADDRESS:?}" "${ZONE:?}"
export DEBIAN_FRONTEND=noninteractive

add_packages() {
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

swapoff -a
sed -i '/\sswap\s/d' /etc/fstab
# flannel, and kube-proxy in both modes, want bridged packets in netfilter.
printf '%s\n' overlay br_netfilter >/etc/modules-load.d/kubernetes.conf
modprobe -a overlay br_netfilter
cat >/etc/sysctl.d/90-kubernetes.conf <<'END'
net.ipv4.ip_forward = 1
net.bridge.bridge-nf-call-iptables = 1
net.bridge.bridge-nf-call-ip6tables = 1
END
sysctl -q --system

add_packages ca-certificates containerd curl gpg runc
mkdir -p /etc/containerd
# Version 2 is read by containerd 1.7 and 2. Debian's containerd has another folder of plugins.
cat >/etc/containerd/config.toml <<'END'
version = 2
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/opt/cni/bin"
  conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = true
END
systemctl enable -q containerd
systemctl restart containerd

key=/etc/apt/keyrings/kubernetes.gpg
mkdir -p "${key%/*}"
curl -fsSL --retry 5 "$KUBERNETES_APT/Release.key" | gpg --dearmor --yes -o "$key"
echo "deb [signed-by=$key] $KUBERNETES_APT /" >/etc/apt/sources.list.d/kubernetes.list
add_packages kubeadm kubectl kubelet
apt-mark hold kubeadm kubectl kubelet >/dev/null

# The machine's first address is the same on each with VirtualBox.
labels=topology.kubernetes.io/zone=$ZONE
echo "KUBELET_EXTRA_ARGS=--node-ip=$ADDRESS --node-labels=$labels" >/etc/default/kubelet
