#!/bin/sh
# The lab's shell: runs a command once inside private namespaces (mounts, processes, network,
# cgroup view) and leaves nothing behind, however it ends: kill this process, even with -9, and
# every process, network namespace, pin and program made inside is gone.
# Knows nothing of nodes, pods or Services: lab.ts builds those inside.
#
#   sh lab/shell.sh COMMAND [ARGUMENT...]
#
# Three processes follow each other: the outer one (holds the cgroup folder, turns signals into
# KILL), `unshare`, and the inner shell, which is process 1 of the new namespaces.
set -eu

tree=/sys/fs/cgroup

fail() {
	echo "lab/shell.sh: $*" >&2
	exit 1
}

# The start of process $1 in clock ticks since boot (field 22 of proc/PID/stat), or nothing.
# With the process id it names a process for good: ids are used again.
start_of() {
	sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20
}

# Shows the cgroup v2 tree at $tree, and nothing else. The tmpfs in between is needed: the kernel
# refuses to mount the same tree twice on one folder.
mount_tree() {
	mount -t tmpfs none "$tree"
	mount -t cgroup2 none "$tree" || fail "Cannot mount cgroup v2: the kernel needs CONFIG_CGROUPS"
}

# Takes the machine's own cgroup v2 trees out of this mount namespace: an agent takes the first that
# it can see, and what it attaches there is the whole machine's. On top are the outer process's two
# mounts; a tree that lies under another mount nobody can see.
hide_trees() {
	umount -l "$tree"
	umount -l "$tree"
	sed -n 's/^\([^ ]* \)\{4\}\([^ ]*\) .* - cgroup2 .*/\2/p' /proc/self/mountinfo |
		while read -r mounted; do
			mounted=$(printf '%b' "$mounted")
			[ "$(stat -f -c %T "$mounted" 2>/dev/null)" = cgroup2fs ] || continue
			umount -l "$mounted" || fail "Cannot hide '$mounted'"
		done
}

# A bare chroot's root is no mount point, so its mounts cannot be made private. That does no
# harm where no mount is shared with other namespaces to begin with.
choose_propagation() {
	if unshare --mount --propagation private true 2>/dev/null; then
		echo private
	elif ! grep -q ' shared:' /proc/1/mountinfo; then
		echo unchanged
	else
		fail "This chroot's folder is no mount point: run 'mount --bind FOLDER FOLDER' before chroot"
	fi
}

remove_cgroup() {
	find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || :
}

# Folders of runs that were killed with -9 stay behind, empty. A live run has processes in its
# folder or, in its first moments, a live process that owns the name.
sweep() {
	for folder in "$tree"/bpfsvc-lab-*-*; do
		[ -d "$folder" ] || continue
		owner=${folder##*/bpfsvc-lab-}
		[ "$(start_of "${owner%-*}")" != "${owner#*-}" ] || continue
		grep -q '^populated 0' "$folder/cgroup.events" 2>/dev/null || continue
		remove_cgroup "$folder"
	done
}

# The first call: checks, then goes on as the outer process, in a mount namespace of its own.
enter() {
	[ $# -gt 0 ] || { echo "Usage: sh lab/shell.sh COMMAND [ARGUMENT...]" >&2; exit 2; }
	[ "$(id -u)" = 0 ] || fail "The lab needs root: run it with sudo"
	for tool in setpriv unshare nsenter ip; do
		command -v "$tool" >/dev/null || fail "'$tool' is missing: run 'sh scripts/setup.sh'"
	done
	[ -d "$tree" ] || fail "'$tree' is missing: mount sysfs on /sys"
	propagation=$(choose_propagation)
	exec unshare --mount --propagation "$propagation" -- sh "$0" --outer "$propagation" "$@"
}

# All of the run happens below one folder of the cgroup tree, since nothing may ever be attached
# to its root; --cgroup makes that folder the root of what the inside can see. --net keeps
# the lab's traffic off the machine's devices.
outer() {
	propagation=$1
	shift
	mount_tree
	sweep
	cgroup=$tree/bpfsvc-lab-$$-$(start_of $$)
	mkdir "$cgroup"
	# A background command's input is /dev/null unless it has been kept on another descriptor.
	exec 3<&0
	# Tests make sure that they are not in here (lab.ts).
	BPFSVC_OUTSIDE=$(readlink /proc/self/ns/net)
	export BPFSVC_OUTSIDE
	(
		echo 0 >"$cgroup/cgroup.procs"
		exec setpriv --pdeathsig KILL unshare --cgroup --net --pid --fork --kill-child=KILL \
			--mount --propagation "$propagation" --mount-proc -- sh "$0" --inner "$@" <&3 3<&-
	) &
	child=$!
	signal=
	trap 'signal=129; kill -KILL $child' HUP
	trap 'signal=130; kill -KILL $child' INT
	trap 'signal=143; kill -KILL $child' TERM
	status=0
	wait "$child" 2>/dev/null || status=$?
	trap '' HUP INT TERM
	wait_until_empty
	remove_cgroup "$cgroup"
	exit "${signal:-$status}"
}

# After KILL the inside dies a moment later than `unshare`.
wait_until_empty() {
	tries=0
	until grep -q '^populated 0' "$cgroup/cgroup.events" || [ "$tries" -ge 100 ]; do
		tries=$((tries + 1))
		sleep 0.05
	done
}

# The command path without what npm puts before it: a package of ours brings an `nft` that is none.
machine_path() {
	echo "$PATH" | tr : '\n' | grep -v /node_modules/ | paste -sd :
}

# Process 1 inside. It stays, instead of becoming the command: a shell that waits for one child
# reaps orphans as well, which most commands would not do.
inner() {
	mkdir -p /run/netns
	mount -t tmpfs none /run/netns
	mount -t bpf none /sys/fs/bpf || fail "Cannot mount bpffs: the kernel needs CONFIG_BPF_SYSCALL"
	hide_trees
	mount_tree
	ip link set lo up
	PATH=$(machine_path)
	export PATH BPFSVC_LAB=1
	# A Node that is told of further certificates parses all of them at each start, which is more
	# than half of the start, and nothing in here talks to the world.
	unset NODE_EXTRA_CA_CERTS
	status=0
	"$@" || status=$?
	exit "$status"
}

case ${1-} in
--outer) shift; outer "$@" ;;
--inner) shift; inner "$@" ;;
*) enter "$@" ;;
esac
