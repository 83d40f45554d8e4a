#!/bin/sh
# mount.sh - the kubelet's `mount`: NFS shares that the world exports are folders of this machine, whatever the kernel has.
#
# FOLDER/exports says which, a line each: SERVER:PATH, a tab, the folder.  A share nobody exports fails as mount.nfs does.
# Everything else is mount's.
if [ "$1 $2" != "-t nfs" ]; then
	exec /bin/mount "$@"
fi
shift 2
options=
while [ $# -gt 2 ]; do
	[ "$1" != -o ] || options=$2
	shift
done
share=$1
target=$2

# The export the share is in, the longest one; and what of the share is below it.
folder=$(awk -F '\t' -v share="$share" '
	share == $1 || index(share, $1 "/") == 1 { if (length($1) > best) { best = length($1); found = $2 substr(share, best + 1) } }
	END { print found }' "$(dirname "$0")/../exports" 2>/dev/null)
if [ -z "$folder" ]; then
	echo "mount.nfs: Connection timed out" >&2
	exit 32
fi
if [ ! -d "$folder" ]; then
	echo "mount.nfs: mounting $share failed, reason given by server: No such file or directory" >&2
	exit 32
fi
/bin/mount --bind "$folder" "$target" || exit 32
case ,$options, in
*,ro,*) /bin/mount -o remount,bind,ro "$target" ;;
esac
