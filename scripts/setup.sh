#!/bin/sh
# Installs what a bare Debian 12 or Ubuntu 24.04 with Node and npm lacks: Debian packages (as root)
# and npm packages. Costs next to nothing when nothing is missing. Arguments name groups of further
# Debian packages that only some commands need.
set -eu
cd "$(dirname "$0")/.."

# Each line: a file that the package brings, and the package.
wanted='
/usr/bin/clang clang
/usr/bin/clang-format clang-format
/usr/include/bpf/bpf_helpers.h libbpf-dev
/usr/bin/shellcheck shellcheck
/usr/bin/git git
/usr/bin/setpriv util-linux
/bin/ip iproute2
/bin/ping iputils-ping
/usr/bin/curl curl
/usr/bin/dig bind9-dnsutils
/usr/sbin/dnsmasq dnsmasq-base
/usr/bin/iperf3 iperf3
/usr/sbin/ethtool ethtool
/usr/sbin/iptables iptables
/usr/sbin/nft nftables
/usr/sbin/conntrack conntrack
/usr/lib/python3/dist-packages/scapy python3-scapy
'
# What the bench compares with.
wanted_bench='
/usr/sbin/bpftool bpftool
'
# What test:kernels boots other kernels with.
wanted_kernels='
/usr/bin/qemu-system-x86_64 qemu-system-x86
/usr/share/doc/busybox-static/copyright busybox-static
/usr/bin/cpio cpio
/usr/sbin/depmod kmod
'
# What test:image builds and runs an image with.
wanted_image='
/usr/bin/buildah buildah
/usr/bin/crun crun
/usr/bin/mmdebstrap mmdebstrap
'
# What the tests read the Vagrantfile with, where it is there.
wanted_vagrant='
/usr/bin/vagrant vagrant
/usr/share/doc/vagrant-libvirt/copyright vagrant-libvirt
'

fail() {
	echo "setup: $*" >&2
	exit 1
}

for group in "$@"; do
	case $group in
	bench) wanted="$wanted$wanted_bench" ;;
	kernels) wanted="$wanted$wanted_kernels" ;;
	image) wanted="$wanted$wanted_image" ;;
	vagrant) wanted="$wanted$wanted_vagrant" ;;
	*) fail "there is no group '$group': there are bench, kernels, image and vagrant" ;;
	esac
done

node_version=$(node --version 2>/dev/null) || fail "Node is missing: install Node 20.19 or later, with npm 9 or later"
node -e '
  const [major, minor] = process.versions.node.split(".").map(Number);
  process.exit(major > 20 || (major === 20 && minor >= 19) ? 0 : 1);
' || fail "Node $node_version is too old: install Node 20.19 or later"

missing=$(echo "$wanted" | while read -r file package; do
	[ -z "$file" ] || [ -e "$file" ] || echo "$package"
done)
# libbpf.so.1 lies in a folder named after the machine.
ls /usr/lib/*/libbpf.so.1 >/dev/null 2>&1 || missing="$missing libbpf1"

if [ -n "$missing" ]; then
	# shellcheck disable=SC2086 # a list of packages
	set -- $missing
	[ "$(id -u)" = 0 ] || fail "these Debian packages are missing: $*; run this as root once"
	echo "setup: installing $*"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends "$@" >/dev/null
fi

# npm writes this file last, so it is as new as the lock file only after a whole installation.
stamp=node_modules/.bpfsvc-installed
if [ ! -e "$stamp" ] || ! cmp -s package-lock.json "$stamp"; then
	echo "setup: installing npm packages"
	npm ci --no-audit --no-fund --loglevel=error
	cp package-lock.json "$stamp"
fi
