#!/bin/sh
# What a guest does: makes a running system of the root that initramfs.sh gave it, runs the bundled
# tests, says how they ended, and switches itself off. The first serial line is for the results
# alone, the second one is the console.
# shellcheck disable=SC2154 # checkout, modules, node and tests are from the kernel's command line
results=/dev/ttyS0
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
export CI=1 BPFSVC_PATIENCE=5
# Compiling pays off less where every new instruction has to be translated once more.
export NODE_OPTIONS="--require=$checkout/test/kernels/interpret.cjs"

mkdir -p /dev/pts /dev/shm /lib/modules
mount -t devpts none /dev/pts
mount -t tmpfs none /dev/shm
mount -t tmpfs none /run
mount --bind "$modules" /lib/modules
stty -F "$results" raw -echo
ip link set lo up

cd "$checkout" || exit
sh lab/shell.sh "$node" "$tests" >"$results"
echo "guest: exit $?" >"$results"
echo o >/proc/sysrq-trigger
# Process 1 must not end before the power does.
while :; do sleep 1; done
