#!/bin/sh
# deps.sh - sees to what the build stands on.
#
#   deps.sh packages STAMP NAME...   installs the Debian packages that are missing, says which, touches STAMP
#   deps.sh config OUT               writes make variables with the flags of every library
#
# Debian 12 has libssh2 too old and no yyjson.  Where the system's own do not serve, they are built once from
# the source packages of the next Debian, verified by apt with the keyring that is installed, under an apt
# configuration of their own: the machine's is read for its mirror and never changed.
set -eu

next_debian=trixie
libssh2_needed=1.11
linked="lua5.4 libuv yaml-0.1 sqlite3 libcrypto ldns"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/runbook-build
recipe=2	# what is built here changed when this does
have_lock=

say() { echo "deps: $*" >&2; }
die() { say "$*"; exit 1; }

# One at a time on this machine, whatever checkout asks.
locked() {
	[ -z "$have_lock" ] || return 0
	have_lock=yes
	mkdir -p "$cache"
	exec 9>"$cache/lock"
	flock -w 3 9 || { say "waiting for another build to finish with $cache"; flock 9; }
}

missing_packages() {
	for name; do
		dpkg-query -W -f '${db:Status-Status}\n' "$name" 2>/dev/null | grep -qx installed || printf ' %s' "$name"
	done
}

# Prints the words that make the rest of a line root's; nothing for root.
as_root() {
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; } && echo sudo
	fi
}

packages() {
	stamp=$1
	shift
	command -v dpkg-query >/dev/null || die "this is no Debian; install what these packages hold, then make DEPS=no
  $*"
	locked
	missing=$(missing_packages "$@")
	if [ -n "$missing" ]; then
		root=$(as_root) || die "missing; run this as root, then call make again
  apt-get install --no-install-recommends$missing"
		say "installing$missing"
		$root apt-get -qq update || say "apt-get update failed; trying with the lists there are"
		# shellcheck disable=SC2086 # a list of names
		$root env DEBIAN_FRONTEND=noninteractive \
			apt-get -qq -y -o Dpkg::Use-Pty=0 install --no-install-recommends $missing >&2
		missing=$(missing_packages "$@")
		[ -z "$missing" ] || die "still missing:$missing"
	fi
	mkdir -p "$(dirname "$stamp")"
	touch "$stamp"
}

# next_source WORK apt-get-source-arguments...: fetches and verifies into WORK
next_source() {
	work=$1
	shift
	mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/parts"
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | sort -u | head -n 1)
	[ -n "$mirror" ] || die "apt knows no Debian mirror; run apt-get update as root first"
	echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $next_debian main" > "$work/sources.list"
	cat > "$work/apt.conf" <<-CONF
		Dir::Etc::sourcelist "$work/sources.list";
		Dir::Etc::sourceparts "$work/parts";
		Dir::Etc::preferencesparts "$work/parts";
		Dir::State::lists "$work/lists";
		Dir::Cache "$work";
		APT::Sandbox::User "$(id -un)";
	CONF
	(
		cd "$work"
		export APT_CONFIG="$work/apt.conf"
		apt-get -qq update
		apt-get -qq source "$@"
	) > "$work/log" 2>&1 || { cat "$work/log" >&2; die "cannot fetch the source of $*"; }
}

build_libssh2() {
	next_source "$1" libssh2
	cd "$1"/libssh2-*/
	# The patches touched autotools' inputs; what they generate is in the tarball and still right.
	touch aclocal.m4
	find . -name '*.in' -exec touch {} +
	touch configure
	# its own idea of hidden symbols shows those of its API, which are nobody's business here
	./configure -q --prefix="$2" --with-crypto=openssl --with-libz --with-pic --disable-shared \
		--enable-static --disable-examples-build --disable-hidden-symbols CFLAGS="-O2 -g -fvisibility=hidden"
	make -s -C src install-libLTLIBRARIES
	make -s install-includeHEADERS
}

# A file and its header; the tarball is what the archive's signed index vouches for.
build_yyjson() {
	next_source "$1" --tar-only yyjson
	cd "$1"
	tar -xf yyjson_*.orig.tar.*
	mkdir -p "$2/lib" "$2/include"
	cp ./*/src/yyjson.h "$2/include"
	cc -O2 -g -fPIC -fvisibility=hidden -c -o yyjson.o ./*/src/yyjson.c
	ar rcs "$2/lib/libyyjson.a" yyjson.o
}

# from_source NAME ARCHIVE: leaves where it is installed in $prefix
from_source() {
	prefix=$cache/$1-$next_debian-$recipe-$(cc -dumpmachine)
	[ ! -e "$prefix/lib/$2" ] || return 0
	packages "$cache/source-packages" dpkg-dev debian-archive-keyring
	say "building $1 from the source package of Debian $next_debian, once, into $prefix"
	work=$(mktemp -d "$cache/$1.XXXXXX")
	set +e	# a subshell in a condition would not stop at its first failure
	(set -e; "build_$1" "$work" "$work/prefix") > "$work/build.log" 2>&1
	status=$?
	set -e
	if [ "$status" != 0 ]; then
		cat "$work/build.log" >&2
		rm -rf "$work"
		die "cannot build $1"
	fi
	rm -rf "$prefix"
	mv "$work/prefix" "$prefix"
	rm -rf "$work"
}

# What no package gives becomes part of ours, and its symbols stay inside: libcurl, loaded later, brings a
# libssh2 of its own.
library() {
	name=$1
	condition=$2
	needs=$3	# a pkg-config name
	if pkg-config --exists "$condition"; then
		flags="$flags $(pkg-config --cflags "$name")"
		modules="$modules $name"
	else
		archive=lib${name#lib}.a
		from_source "$name" "$archive"
		flags="$flags -isystem $prefix/include"
		archives="$archives $prefix/lib/$archive"
		modules="$modules $needs"
	fi
}

config() {
	out=$1
	locked
	flags=
	archives=
	modules=$linked
	library libssh2 "libssh2 >= $libssh2_needed" zlib
	library yyjson yyjson ""
	mkdir -p "$(dirname "$out")"
	# shellcheck disable=SC2086 # lists of names
	cat > "$out.new" <<-MAKE
		DEP_CPPFLAGS := $flags $(pkg-config --cflags $modules)
		DEP_ARCHIVES := $archives
		DEP_MODULES  := $modules
		DEP_LIBS     := $(pkg-config --libs $modules) -lwslay -ldl -lpthread
	MAKE
	mv "$out.new" "$out"
}

task=$1
shift
case $task in
packages) packages "$@" ;;
config) config "$@" ;;
*) die "no such task: $task" ;;
esac
