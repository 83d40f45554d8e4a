# tools.sh - what the programs stand on: Debian's packages, unpacked and not installed.
# shellcheck shell=sh disable=SC2154 # sourced by build.sh, which sets $work, $out and $here

build_tools() {
	fetch "$work/packages" etcd-server containerd runc containernetworking-plugins kubernetes-client conntrack iptables \
		libip4tc2 libip6tc2 libxtables12 libnftnl11 libmnl0 libnetfilter-conntrack3 libnfnetlink0 libseccomp2
	unpack "$out" "$work/packages"
	# Not nf_tables': its rules are refused where the machine's kernel has only the old tables, or both are in use.
	for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
		ln -sf xtables-legacy-multi "$out/usr/sbin/$name"
	done
}
