# hub.sh - the image of a hub: JupyterHub 3.0 and its proxy as Debian has them, and a user's server of ours.
# shellcheck shell=sh disable=SC2154 # sourced by build.sh, which sets $work, $out and $here

build_hub() {
	# jupyterhub itself without what it depends on: that would be all of the notebook, which nobody here runs.
	closure "$work/packages" node-configurable-http-proxy python3-alembic python3-async-generator python3-certipy \
		python3-dateutil python3-jinja2 python3-jupyter-telemetry python3-oauthlib python3-packaging python3-pamela \
		python3-prometheus-client python3-requests python3-sqlalchemy python3-tornado python3-traitlets python3-bcrypt \
		sqlite3 dash coreutils tar
	fetch "$work/packages" jupyterhub
	without 'perl*' 'libperl*' systemd 'libsystemd-shared*' udev debconf dpkg ucf adduser login passwd util-linux 'init-*'
	unpack "$work/root" "$work/packages"
	ln -sf dash "$work/root/usr/bin/sh"
	ln -sf python3.11 "$work/root/usr/bin/python3"
	accounts "$work/root"
	mkdir -p "$work/root/srv/jupyterhub" "$work/root/home/jovyan" "$work/root/usr/local/bin"
	cp "$here/hub/server.py" "$work/root/usr/local/bin/jupyterhub-singleuser"
	chmod 755 "$work/root/usr/local/bin/jupyterhub-singleuser"
	PYTHONPATH="$work/root/usr/lib/python3/dist-packages" python3 -m compileall -q "$work/root/usr/lib/python3" || true
	pack hub "$work/root" '{"Env":["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","LANG=C.UTF-8"],"Cmd":["/bin/sh"]}'
}
