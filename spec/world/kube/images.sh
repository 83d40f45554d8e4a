# images.sh - the container images every cluster knows.
# shellcheck shell=sh disable=SC2154 # sourced by build.sh, which sets $work, $out and $here

build_images() {
	mkdir -p "$work/bare" "$work/busybox/bin"
	programs=$(part programs)
	cp "$programs/pause" "$work/bare/pause"
	pack bare "$work/bare" '{"Entrypoint":["/pause"],"User":"65535:65535"}'

	fetch "$work/static" busybox-static
	unpack "$work/static/root" "$work/static"
	cp "$work/static/root/bin/busybox" "$work/busybox/bin/"
	"$work/busybox/bin/busybox" --list | grep -vx busybox | while read -r name; do
		ln -s busybox "$work/busybox/bin/$name"
	done
	accounts "$work/busybox"
	pack busybox "$work/busybox" '{"Env":["PATH=/bin"],"Cmd":["sh"]}'

	# what is essential nobody depends on by name
	closure "$work/packages" dash bash coreutils findutils sed mawk grep attr openssh-server rsync python3-minimal libpython3.11-stdlib sqlite3 socat tar procps
	without 'perl*' 'libperl*' systemd 'libsystemd-shared*' udev debconf dpkg ucf adduser login passwd util-linux 'init-*'
	unpack "$work/tools" "$work/packages"
	ln -sf dash "$work/tools/usr/bin/sh"
	ln -sf mawk "$work/tools/usr/bin/awk" # which is for alternatives to say
	ln -sf python3.11 "$work/tools/usr/bin/python3"
	accounts "$work/tools"
	printf '%s\n' 'HostKey /tmp/host_key' 'UsePAM no' 'PermitRootLogin prohibit-password' 'StrictModes no' \
		'Subsystem sftp internal-sftp' > "$work/tools/etc/ssh/sshd_config"
	pack tools "$work/tools" '{"Env":["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["/bin/bash"]}'
}
