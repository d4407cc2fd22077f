#!/bin/sh
# Prints the manifests of deploy/ as this cluster needs them: what kubectl apply -k deploy takes,
# with an image, the pods' range and the API server's address filled in.
#
#   overlay.sh IMAGE POD-RANGE API-SERVER-ADDRESS
set -eu
cd "$(dirname "$0")/../.."
image=$1 range=$2 host=$3

fail() {
	echo "overlay: $*" >&2
	exit 1
}

# kustomize reaches its bases by relative paths alone.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp -R deploy "$folder/deploy"
mkdir "$folder/cluster"
sed -i "s|^\( *clusterCIDR: \).*|\1$range|" "$folder/deploy/config.yaml"
cat >"$folder/cluster/kustomization.yaml" <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: kube-system
resources:
  - ../deploy
images:
  - name: bpfsvc
    newName: ${image%:*}
    newTag: ${image##*:}
configMapGenerator:
  - name: bpfsvc-apiserver
    literals: [host=$host, port=6443]
generatorOptions:
  disableNameSuffixHash: true
END
rendered=$(kubectl kustomize "$folder/cluster")
for wanted in "image: $image" "clusterCIDR: $range" "host: $host"; do
	echo "$rendered" | grep -qF "$wanted" || fail "'$wanted' found no place in deploy/"
done
echo "$rendered"
