#!/bin/busybox sh
# shellcheck shell=dash
# The first process of a guest: puts the machine's root, which the guest must not change, under a
# layer in memory, and goes on there. The kernel's command line gives checkout, modules, node and
# kernel as environment; the modules that this takes lie in /modules, in order.
b=/bin/busybox
fail() {
	echo "initramfs: $*"
	$b poweroff -f
}
$b mkdir -p /proc /sys /dev /machine /memory /root
$b mount -t proc none /proc
$b mount -t sysfs none /sys
$b mount -t devtmpfs none /dev
for module in /modules/*; do
	$b insmod "$module" || fail "cannot load $module"
done
$b mount -t virtiofs -o ro machine /machine || fail "cannot mount the machine's root"
$b mount -t tmpfs none /memory
$b mkdir /memory/upper /memory/work
layers=lowerdir=/machine,upperdir=/memory/upper,workdir=/memory/work
$b mount -t overlay -o "$layers" none /root || fail "cannot lay memory over the machine's root"
for folder in proc sys dev; do
	$b mount --move "/$folder" "/root/$folder"
done
# shellcheck disable=SC2154 # from the kernel's command line
exec $b switch_root /root /bin/sh "$checkout/test/kernels/guest.sh"
