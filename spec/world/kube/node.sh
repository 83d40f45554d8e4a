#!/bin/sh
# node.sh - a cluster of one node, in namespaces of its own.  Called by spec/world/kube.lua as
#
#     node.sh outside FOLDER
#
# with FOLDER/settings: name, address (of the node), programs, tools and images (folders of build.sh), cgroup (a
# name nobody else has), pivot (the program).  Mounts, network, processes, host name and cgroups are the node's own, the file tree is the
# machine's but for what a node keeps in it.  eth0 is put into its network from outside; FOLDER/up says that all
# runs.  When its first process ends the kernel ends and unmounts the rest.
set -eu
stage=$1
folder=$2
name='' address='' programs='' tools='' images='' cgroup='' pivot=''
# shellcheck source=/dev/null
. "$folder/settings"
gates=TTLAfterFinished=true,EphemeralContainers=true
pki=$folder/pki
log=$folder/log
library=$(echo "$tools"/usr/lib/*-linux-gnu*)
export PATH="$programs:$tools/usr/sbin:$tools/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# --- outside: a cgroup of ours in each hierarchy, which the node will see as the root ---------------------------

join_hierarchy() { # CONTROLLERS PATH
	group=/sys/fs/cgroup/$1${2%/}/$cgroup
	mkdir -p "$group"
	case ,$1, in
	*,cpuset,*)	# without these nobody may be put there
		cat "${group%/*}/cpuset.cpus" > "$group/cpuset.cpus"
		cat "${group%/*}/cpuset.mems" > "$group/cpuset.mems"
		echo 1 > "$group/cgroup.clone_children" ;;
	esac
	echo 0 > "$group/cgroup.procs"
	echo "$1" >> "$folder/hierarchies"
}

# One hierarchy for all controllers. A group that gives controllers to its children may hold no process itself.
join_unified() {
	mkdir -p "/sys/fs/cgroup/$cgroup/node"
	tr ' ' '\n' < /sys/fs/cgroup/cgroup.controllers | sed s/^/+/ | while read -r controller; do
		echo "$controller" > /sys/fs/cgroup/cgroup.subtree_control
	done
	echo 0 > "/sys/fs/cgroup/$cgroup/cgroup.procs"
}

go_inside="unshare --mount --propagation unchanged --net --pid --uts --ipc --fork --kill-child $pivot private $0 inside"

outside() {
	: > "$folder/hierarchies"
	if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
		join_unified
		exec unshare --cgroup sh -c "echo 0 > /sys/fs/cgroup/$cgroup/node/cgroup.procs && exec $go_inside $folder"
	fi
	cat /proc/self/cgroup > "$folder/cgroups"
	while IFS=: read -r _ controllers path; do
		case $controllers in
		"" | name=*) ;;
		*) [ ! -d "/sys/fs/cgroup/$controllers" ] || join_hierarchy "$controllers" "$path" ;;
		esac
	done < "$folder/cgroups"
	# shellcheck disable=SC2086 # words
	exec unshare --cgroup $go_inside "$folder"
}

# --- inside: mounts of our own, and a root for the namespace -----------------------------------------------------

mount_cgroups() {
	if [ ! -s "$folder/hierarchies" ]; then
		mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup"
		tr ' ' '\n' < "$1/sys/fs/cgroup/cgroup.controllers" | sed s/^/+/ | while read -r controller; do
			echo "$controller" > "$1/sys/fs/cgroup/cgroup.subtree_control"
		done
		return
	fi
	mount -t tmpfs -o mode=755 cgroups "$1/sys/fs/cgroup"
	while read -r controllers; do
		mkdir "$1/sys/fs/cgroup/$controllers"
		mount -t cgroup -o "$controllers" cgroup "$1/sys/fs/cgroup/$controllers"
		for controller in $(echo "$controllers" | tr , ' '); do
			[ -e "$1/sys/fs/cgroup/$controller" ] || ln -s "$controllers" "$1/sys/fs/cgroup/$controller"
		done
	done < "$folder/hierarchies"
}

inside() {
	hostname "$name-node"
	root=$folder/root
	mount --rbind / "$root"
	# The kubelet takes for its own whatever hierarchy it finds first in mountinfo, wherever that is mounted.
	awk -v at="$root/" '/ - cgroup2? / && index($5, at) == 1 { print $5 }' /proc/self/mountinfo | sort -r | xargs -r umount -l
	umount -R -l "$root/sys" 2>/dev/null || true
	umount -R -l "$root/proc" 2>/dev/null || true
	mount -t proc proc "$root/proc"
	mount -t sysfs sysfs "$root/sys"
	mount_cgroups "$root"
	mount -t tmpfs -o mode=755 run "$root/run"
	mount --bind "$folder/var-log" "$root/var/log"
	# The kubelet would set these for the whole machine.
	echo 1 > "$folder/overcommit_memory"
	mount --bind "$folder/overcommit_memory" "$root/proc/sys/vm/overcommit_memory"
	echo 10 > "$folder/panic"
	mount --bind "$folder/panic" "$root/proc/sys/kernel/panic"
	exec "$pivot" "$root" "$0" node "$folder"
}

# --- node -------------------------------------------------------------------------------------------------------

# serve NAME COMMAND...: again whenever it ends, unless FOLDER/NAME.hold is there
serve() {
	program=$1
	shift
	(
		while :; do
			while [ -e "$folder/$program.hold" ]; do sleep 0.1; done
			"$@" >> "$log/$program" 2>&1 &
			echo $! > "$folder/$program.pid"
			wait $! || true
			sleep 0.2
		done
	) &
}

network() {
	ip link set lo up
	: > "$folder/inside"
	until ip link show eth0 > /dev/null 2>&1; do sleep 0.05; done
	ip address add "$address/24" dev eth0
	ip link set eth0 up
	ip route add 10.96.0.0/16 dev eth0	# for the node's own processes; kube-proxy takes it from there
	echo 1 > /proc/sys/net/ipv4/ip_forward
	for setting in bridge/bridge-nf-call-iptables ipv4/conf/all/route_localnet; do
		[ ! -e "/proc/sys/net/$setting" ] || echo 1 > "/proc/sys/net/$setting"
	done
}

control_plane() {
	serve etcd etcd --name node --data-dir /run/etcd --logger zap --log-level warn \
		--listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
		--listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
		--initial-cluster node=http://127.0.0.1:2380
	serve apiserver kube-apiserver --etcd-servers http://127.0.0.1:2379 --advertise-address "$address" --bind-address 0.0.0.0 \
		--secure-port 6443 --tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" \
		--client-ca-file "$pki/ca.crt" --service-cluster-ip-range 10.96.0.0/16 \
		--service-account-issuer https://kubernetes.default.svc --service-account-key-file "$pki/accounts.pub" \
		--service-account-signing-key-file "$pki/accounts.key" --authorization-mode Node,RBAC \
		--enable-admission-plugins NodeRestriction --allow-privileged=true --kubelet-preferred-address-types InternalIP \
		--kubelet-client-certificate "$pki/apiserver-client.crt" --kubelet-client-key "$pki/apiserver-client.key" \
		--kubelet-certificate-authority "$pki/ca.crt" --profiling=false --feature-gates "$gates"
}

# After the API server answers: on two cores their retries would only slow it down.
controllers() {
	serve manager kube-controller-manager --kubeconfig "$pki/manager.conf" --leader-elect=false --bind-address 127.0.0.1 \
		--use-service-account-credentials --root-ca-file "$pki/ca.crt" --service-account-private-key-file "$pki/accounts.key" \
		--cluster-signing-cert-file "$pki/ca.crt" --cluster-signing-key-file "$pki/ca.key" --port 0 \
		--flex-volume-plugin-dir "$folder/plugins" --feature-gates "$gates" \
		--controllers '*,ttl-after-finished,-service,-route,-cloud-node-lifecycle'
	serve scheduler kube-scheduler --kubeconfig "$pki/scheduler.conf" --leader-elect=false --bind-address 127.0.0.1 --port 0 \
		--feature-gates "$gates"
	# Those sysctls are the machine's, not the network namespace's.
	serve proxy kube-proxy --kubeconfig "$pki/proxy.conf" --hostname-override "$name-node" --proxy-mode iptables \
		--cluster-cidr 10.244.0.0/16 --conntrack-max-per-core 0 --conntrack-min 0 \
		--conntrack-tcp-timeout-established 0 --conntrack-tcp-timeout-close-wait 0
	mkdir -p "$folder/bin"
	ln -sf "$here/mount.sh" "$folder/bin/mount"
	serve kubelet env PATH="$folder/bin:$PATH" kubelet --config "$folder/kubelet.yaml" --kubeconfig "$pki/kubelet.conf" --root-dir "$folder/kubelet" \
		--cert-dir "$pki" --container-runtime remote --container-runtime-endpoint unix:///run/containerd/containerd.sock \
		--hostname-override "$name-node" --node-ip "$address"
	serve cloud env -u LD_LIBRARY_PATH python3 "$here/cloud.py" "$folder" "$address"
}

kubelet_settings() {
	: > "$folder/resolv.conf"
	cat <<-YAML
		apiVersion: kubelet.config.k8s.io/v1beta1
		kind: KubeletConfiguration
		authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$pki/ca.crt"}}
		authorization: {mode: Webhook}
		cgroupDriver: cgroupfs
		clusterDNS: ["$address"]
		clusterDomain: cluster.local
		containerLogMaxSize: 50Mi
		enforceNodeAllocatable: []
		evictionHard: {memory.available: 50Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%}
		failSwapOn: false
		imageGCHighThresholdPercent: 100
		imageGCLowThresholdPercent: 99
		maxPods: 110
		nodeStatusUpdateFrequency: 1s
		oomScoreAdj: 0
		readOnlyPort: 0
		resolvConf: "$folder/resolv.conf"
		serializeImagePulls: false
		tlsCertFile: "$pki/kubelet.crt"
		tlsPrivateKeyFile: "$pki/kubelet.key"
		volumePluginDir: "$folder/plugins"
	YAML
}

# Root without CAP_SYS_RESOURCE cannot lower an oom score, and runc would not start anything.
containerd_settings() {
	cat <<-TOML
		version = 2
		root = "$folder/containerd"
		state = "/run/containerd"
		oom_score = 0
		disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
		  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp",
		  "io.containerd.internal.v1.tracing"]
		[grpc]
		  address = "/run/containerd/containerd.sock"
		[plugins."io.containerd.internal.v1.opt"]
		  path = "$folder/opt"
		[plugins."io.containerd.grpc.v1.cri"]
		  sandbox_image = "docker.io/world/bare:1"
		  restrict_oom_score_adj = true
		  disable_apparmor = true
		  disable_hugetlb_controller = true
		  max_container_log_line_size = 65536
		  [plugins."io.containerd.grpc.v1.cri".cni]
		    bin_dir = "$tools/usr/lib/cni"
		    conf_dir = "$folder/cni"
		  [plugins."io.containerd.grpc.v1.cri".containerd]
		    snapshotter = "overlayfs"
		    default_runtime_name = "runc"
		    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
		      runtime_type = "io.containerd.runc.v2"
		      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
		        BinaryName = "$tools/usr/sbin/runc"
	TOML
}

containers() {
	mkdir -p "$folder/cni"
	cat > "$folder/cni/bridge.conflist" <<-JSON
		{"cniVersion": "0.4.0", "name": "pods", "plugins": [
		  {"type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": true, "hairpinMode": true,
		   "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "10.244.0.0/16"}]],
		            "routes": [{"dst": "0.0.0.0/0"}]}},
		  {"type": "portmap", "capabilities": {"portMappings": true}}]}
	JSON
	containerd_settings > "$folder/containerd.toml"
	serve containerd containerd -c "$folder/containerd.toml"
	until ctr version > /dev/null 2>&1; do sleep 0.1; done
	for image in bare busybox; do
		ctr -n k8s.io images import "$images/$image.tar" >> "$log/images" 2>&1
	done
	: > "$folder/images.ready"
	ctr -n k8s.io images import "$images/tools.tar" >> "$log/images" 2>&1
	: > "$folder/tools.ready"
}

api() { curl -s --cacert "$pki/ca.crt" --cert "$pki/admin.crt" --key "$pki/admin.key" "https://127.0.0.1:6443$1"; }

node() {
	mount --make-rshared /
	export LD_LIBRARY_PATH="$library" XTABLES_LIBDIR="$library/xtables"
	network
	control_plane
	containers &
	until [ "$(api /readyz)" = ok ]; do sleep 0.2; done
	kubelet_settings > "$folder/kubelet.yaml"
	controllers
	until api "/api/v1/nodes/$name-node/status" | grep -q '"KubeletReady"' && [ -e "$folder/images.ready" ] &&
		api /api/v1/namespaces/default/serviceaccounts/default | grep -q '"secrets"'; do
		sleep 0.2
	done
	: > "$folder/up"
	# The first process of a node has orphans to bury.
	exec env --ignore-signal=CHLD sleep infinity
}

case $stage in
outside) outside ;;
inside) inside ;;
node) here=$(dirname "$0"); node ;;
esac
