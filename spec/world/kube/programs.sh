# programs.sh - Kubernetes' server programs, from Debian's source package.
# shellcheck shell=sh disable=SC2154 # sourced by build.sh, which sets $work, $out and $here

go=1.19

kubernetes_source() {
	apt-get -qq source --download-only kubernetes
	tar -xf kubernetes_*.orig.tar.gz
	source=$work/kubernetes-$version
	[ -d "$source" ] || die "Debian's source package is not Kubernetes $version any more"
	fetch "$work/packages" "golang-$go-go" "golang-$go-src" golang-github-modern-go-reflect2-dev
	unpack "$work/go" "$work/packages"
	# With Go 1.18 the runtime changed under reflect2 1.0.1, of this tree: the API server would die at the first
	# custom resource that is written.
	reflect=$source/vendor/github.com/modern-go/reflect2
	rm -f "$reflect"/*.go "$reflect"/*.s
	cp "$work/go/usr/share/gocode/src/github.com/modern-go/reflect2"/*.go \
		"$work/go/usr/share/gocode/src/github.com/modern-go/reflect2"/*.s "$reflect/"
}

replace() { # FILE OLD NEW: OLD, a basic regular expression, has to be there
	grep -q "$2" "$1" || die "$1 has no '$2' any more"
	sed -i "s/$2/$3/" "$1"
}

# The one generated file that is not in the source; the API server needs it.
openapi() {
	go build -trimpath -o "$work/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen
	inputs=$(grep -rl --include='*.go' --exclude='zz_*' '+k8s:openapi-gen=' pkg cmd plugin vendor/k8s.io/*/ |
		grep -vE '^vendor/k8s.io/(code-generator|sample-apiserver)/|/testdata/|_test.go' |
		xargs -n 1 dirname | LC_ALL=C sort -u | sed 's,^,k8s.io/kubernetes/,' | paste -sd , -)
	"$work/openapi-gen" -i "$inputs" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
		-h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$work/violations"
}

build_programs() {
	cd "$work" || exit
	kubernetes_source
	# GOPATH mode: by modules, this Go refuses that old go.mod.
	export GOROOT="$work/go/usr/lib/go-$go" GOPATH="$work/gopath" GOCACHE="$work/gocache" GOTMPDIR="$work" \
		GO111MODULE=off GOFLAGS='' GOPROXY=off CGO_ENABLED=0
	export PATH="$GOROOT/bin:$PATH"
	mkdir -p "$GOPATH/src/k8s.io"
	ln -s "$source" "$GOPATH/src/k8s.io/kubernetes"
	cd "$GOPATH/src/k8s.io/kubernetes" || exit
	[ -s pkg/generated/openapi/zz_generated.openapi.go ] || openapi
	# A deleted pod would linger for a round of these, 10 s and a minute.
	replace pkg/kubelet/status/status_manager.go 'syncPeriod = 10 \* time.Second' 'syncPeriod = 1 * time.Second'
	replace pkg/kubelet/kubelet.go 'ContainerGCPeriod = time.Minute' 'ContainerGCPeriod = 2 * time.Second'
	flags="-s -w"
	for package in k8s.io/kubernetes/vendor/k8s.io/component-base/version k8s.io/kubernetes/vendor/k8s.io/client-go/pkg/version; do
		flags="$flags -X $package.gitVersion=v$version -X $package.gitMajor=1 -X $package.gitMinor=20 -X $package.gitTreeState=clean"
	done
	mkdir cmd/all
	cp "$here/all.go" cmd/all/main.go
	go build -trimpath -tags providerless,dockerless -ldflags "$flags" -o "$out/kube-all" k8s.io/kubernetes/cmd/all
	for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy; do
		ln -s kube-all "$out/$name"
	done
	cc -Os -static -s -o "$out/pause" build/pause/linux/pause.c
}
