#!/bin/sh
# pki.sh - certificates and kubeconfigs of a cluster: pki.sh FOLDER NAME ADDRESS
#
# A certificate authority of its own, so that one cluster's credentials are nothing to another.
set -eu
folder=$1
name=$2
address=$3
names=DNS:localhost,DNS:$name,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:10.96.0.1,IP:$address
mkdir -p "$folder"
cd "$folder"
log=$folder/log
new="openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650"

$new -keyout ca.key -out ca.crt -subj "/CN=$name" -addext basicConstraints=critical,CA:TRUE \
	-addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature 2>> "$log"

certificate() { # FILE SUBJECT [ALTERNATIVE NAMES]
	$new -CA ca.crt -CAkey ca.key -keyout "$1.key" -out "$1.crt" -subj "$2" -addext basicConstraints=critical,CA:FALSE \
		-addext keyUsage=digitalSignature -addext extendedKeyUsage=serverAuth,clientAuth \
		${3:+-addext "subjectAltName=$3"} 2>> "$log"
}

kubeconfig() { # FILE CERTIFICATE SERVER
	cat > "$1" <<-CONFIG
		apiVersion: v1
		kind: Config
		current-context: $name
		contexts:
		- name: $name
		  context: {cluster: $name, user: $name-$2}
		clusters:
		- name: $name
		  cluster:
		    server: $3
		    certificate-authority-data: $(base64 -w 0 ca.crt)
		users:
		- name: $name-$2
		  user:
		    client-certificate-data: $(base64 -w 0 "$2.crt")
		    client-key-data: $(base64 -w 0 "$2.key")
	CONFIG
	chmod 600 "$1"
}

certificate apiserver /CN=kube-apiserver "$names" &
certificate kubelet "/O=system:nodes/CN=system:node:$name-node" "DNS:$name-node,DNS:localhost,IP:127.0.0.1,IP:$address" &
certificate apiserver-client /O=system:masters/CN=kube-apiserver &
certificate admin /O=system:masters/CN=admin &
certificate manager /CN=system:kube-controller-manager &
certificate scheduler /CN=system:kube-scheduler &
certificate proxy /CN=system:kube-proxy &
openssl ecparam -name prime256v1 -genkey -noout -out accounts.key 2>> "$log"
openssl ec -in accounts.key -pubout -out accounts.pub 2>> "$log"
wait
for part in kubelet manager scheduler proxy admin; do
	kubeconfig $part.conf $part https://127.0.0.1:6443
done
kubeconfig kubeconfig admin "https://$address:6443"
