#!/bin/sh
# build.sh - makes what the clusters of the specs are made of, once, from Debian's packages alone.
#
#   build.sh PART...     prints the folder of each part, in this order; builds those that are not there
#
#   programs   Kubernetes' five server programs, compiled from Debian's source package (about 6 minutes, 3 GB meanwhile)
#   tools      etcd, containerd, runc, iptables, kubectl: Debian's packages, unpacked and not installed
#   images     the container images every cluster knows: pause, bare, busybox, tools
#   hub        one more, with JupyterHub and its proxy
#
# A part lives in the cache under the hash of all it is made from, appears there whole or not at all, and is
# dropped when nobody has used it for 60 days.  The machine's own apt and packages are not touched: apt runs here
# under a configuration of its own, with Debian 12's signed index.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${RUNBOOK_WORLD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/runbook-world}
debian=bookworm
version=1.20.2
recipe=1	# what is built is another when this file changed how
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { echo "world-kube: $*" >&2; }
die() { say "$*"; exit 1; }

# What a part is made from; the first of them makes it.
sources_of() {
	case $1 in
	programs) printf '%s\n' "$here/programs.sh" "$here/all.go" ;;
	tools) printf '%s\n' "$here/tools.sh" ;;
	images) printf '%s\n' "$here/images.sh" "$here/image.py" ;;
	hub) printf '%s\n' "$here/hub.sh" "$here/image.py" "$here/hub/server.py" ;;
	*) die "no such part: $1" ;;
	esac
}

folder_of() {
	echo "$cache/kube-$1-$version-$recipe-$(sources_of "$1" | xargs cat | sha256sum | cut -c 1-12)"
}

# --- packages -------------------------------------------------------------------------------------------------

# The index of Debian 12, whatever this machine runs; at most a day old.
apt_setup() {
	[ -z "${APT_CONFIG:-}" ] || return 0
	[ -e "$keyring" ] || die "$keyring is missing: install debian-archive-keyring"
	apt=$cache/apt
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/parts"
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | grep /debian | sort -u | head -n 1)
	for kind in deb deb-src; do
		echo "$kind [signed-by=$keyring] ${mirror:-http://deb.debian.org/debian} $debian main"
	done > "$apt/sources.list"
	: > "$apt/status"
	cat > "$apt/apt.conf" <<-CONF
		Dir::Etc::sourcelist "$apt/sources.list";
		Dir::Etc::sourceparts "$apt/parts";
		Dir::Etc::preferencesparts "$apt/parts";
		Dir::State::lists "$apt/lists";
		Dir::State::status "$apt/status";
		Dir::State::extended_states "$apt/extended_states";
		Dir::Cache "$apt/cache";
		Debug::NoLocking "1";
		APT::Install-Recommends "0";
		APT::Sandbox::User "$(id -un)";
		Acquire::Languages "none";
		Acquire::Retries "3";
	CONF
	export APT_CONFIG="$apt/apt.conf"
	if [ -z "$(find "$apt/updated" -mtime -1 2>/dev/null)" ]; then
		apt-get -qq update --error-on=any > "$apt/log" 2>&1 ||
			{ cat "$apt/log" >&2; die "cannot reach Debian's packages: no network? Clusters are built from them once; what was built before is in $cache"; }
		touch "$apt/updated"
	fi
}

# fetch FOLDER PACKAGE...: these and nothing they depend on
fetch() {
	mkdir -p "$1"
	(cd "$1" && shift && apt-get -qq download "$@")
}

# closure FOLDER PACKAGE...: these and all they depend on, as for a machine that has nothing
closure() {
	mkdir -p "$1/partial"
	archives=$1
	shift
	apt-get -qq -y -o Dir::Cache::archives="$archives" --download-only install "$@"
}

# unpack FOLDER PACKAGES: no script of theirs runs; /bin, /sbin and /lib are links, as on an installed system
unpack() {
	for name in bin sbin lib lib64; do
		mkdir -p "$1/usr/$name"
		[ -e "$1/$name" ] || ln -s "usr/$name" "$1/$name"
	done
	for package in "$2"/*.deb; do
		dpkg-deb --fsys-tarfile "$package" | tar -x -C "$1" --no-same-owner --keep-directory-symlink \
			--exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale --exclude=./usr/share/info \
			--exclude=./usr/share/i18n --exclude=./usr/share/zoneinfo --exclude='./usr/lib/*/gconv' \
			--exclude=./lib/systemd --exclude=./usr/lib/systemd
	done
}

accounts() {
	mkdir -p "$1/etc" "$1/tmp" "$1/var/tmp" "$1/proc" "$1/sys" "$1/dev" "$1/root" "$1/run/sshd" "$1/home"
	chmod 1777 "$1/tmp" "$1/var/tmp"
	printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'sshd:x:100:65534::/run/sshd:/usr/sbin/nologin' \
		'jovyan:x:1000:100::/home/jovyan:/bin/sh' 'nobody:x:65534:65534::/:/bin/false' > "$1/etc/passwd"
	printf '%s\n' 'root:x:0:' 'users:x:100:' 'nogroup:x:65534:' > "$1/etc/group"
	printf '%s\n' 'root:*:19000:0:99999:7:::' 'sshd:*:19000:0:99999:7:::' 'jovyan:*:19000:0:99999:7:::' > "$1/etc/shadow"
	echo 'hosts: files dns' > "$1/etc/nsswitch.conf"
}

# pack NAME ROOT CONFIG
pack() { python3 "$here/image.py" "$out/$1.tar" "docker.io/world/$1:1" "$2" "$3"; }

# without NAME...: packages, or the beginnings of names with a *, that come along and that a container has no use for
without() {
	for name; do
		find "$work/packages" -name "${name}_*.deb" -delete
	done
}

# --- parts ----------------------------------------------------------------------------------------------------

words_of() {
	case $1 in
	programs) echo "compiling Kubernetes $version from Debian's source package: about 6 minutes, 150 MB to fetch, once" ;;
	tools) echo "fetching etcd, containerd and kubectl of Debian 12: 55 MB, once" ;;
	images) echo "making the container images: half a minute, once" ;;
	hub) echo "making the container image of the hub: half a minute, once" ;;
	esac
}

# One at a time on this machine, whatever checkout asks.
locked() {
	mkdir -p "$cache"
	exec 9>"$cache/lock"
	flock -n 9 || { say "waiting for another build to finish with $cache"; flock 9; }
	rm -rf "$cache"/work.*	# of builds that were killed: nobody else has the lock
	find "$cache" -mindepth 1 -maxdepth 1 -name 'kube-*' -mtime +60 -exec rm -rf {} +
}

# Prints where the part is; builds it first where it is not.
part() {
	folder=$(folder_of "$1")
	if [ ! -d "$folder" ]; then
		say "$(words_of "$1")"
		apt_setup
		work=$(mktemp -d "$cache/work.XXXXXX")
		out=$work/out
		mkdir "$out"
		set +e	# a subshell in a condition would not stop at its first failure
		(
			set -e
			# shellcheck source=/dev/null
			. "$here/$1.sh"
			"build_$1"
		) > "$work/log" 2>&1 < /dev/null
		status=$?
		set -e
		[ "$status" = 0 ] || { tail -n 40 "$work/log" >&2; die "cannot build $1"; }
		mv "$out" "$folder"
		chmod -R u+w "$work"	# Go leaves folders nobody may write
		rm -rf "$work"
	fi
	touch "$folder"
	echo "$folder"
}

for name; do
	[ -d "$(folder_of "$name")" ] || { locked; break; }
done
for name; do
	part "$name"
done
