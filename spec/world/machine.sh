#!/bin/sh
# machine.sh - the first process of a machine of the specs.  Called by spec/world/sshd.lua through
#
#     unshare --mount --propagation unchanged --uts --pid --fork --kill-child \
#         machine.sh DIRECTORY NAME [MOUNTPOINT=SIZE[:KIND]]...
#
# It has processes, mounts, /dev/shm, a host name and a boot id of its own; root, home, srv, tmp, var/tmp, opt and
# mnt are folders of DIRECTORY, as are the users.  The network is everybody's loopback.  When this
# process ends, so does everything on the machine.
set -eu
directory=$1
name=$2
shift 2

# In a chroot the root is no mount point and stays what it was outside: private, one hopes.
mount --make-rprivate / 2>/dev/null || true
mount -t proc proc /proc
echo "$name" > /proc/sys/kernel/hostname
cat /proc/sys/kernel/random/uuid > "$directory/etc/boot_id"

for file in passwd shadow group hosts hostname; do
	[ -e "/etc/$file" ] || touch "/etc/$file"
	mount --bind "$directory/etc/$file" "/etc/$file"
done
mount --bind "$directory/etc/sudoers.d" /etc/sudoers.d
mount --bind "$directory/etc/boot_id" /proc/sys/kernel/random/boot_id
mount -t tmpfs -o mode=755 run /run
mkdir /run/sshd /run/world /run/lock
mkdir -p /dev/shm
mount -t tmpfs -o mode=1777 shm /dev/shm
mount --bind "$directory/etc" /run/world

for disk; do
	mountpoint=${disk%%=*}
	size=${disk#*=}
	kind=${size#*:}
	size=${size%%:*}
	image=$directory/disks/$(echo "$mountpoint" | tr / _)
	if [ "$kind" = tmpfs ]; then
		mount -t tmpfs -o "size=$size" disk "$directory/disk$mountpoint"
	else
		[ -e "$image" ] || { truncate -s "$size" "$image"; mkfs.ext4 -q -m 0 "$image"; }
		mount -o loop "$image" "$directory/disk$mountpoint"
	fi
done
for folder in home mnt opt root srv var/tmp tmp; do	# tmp last: it may hide the directory itself
	mount --rbind "$directory/disk/$folder" "/$folder"
done

# Orphans that end are gone, and not zombies that look alive. (dash catches CHLD whatever its trap says.)
: > /run/world/up
exec env --ignore-signal=CHLD sleep infinity
