"""image.py OUT.tar NAME FOLDER CONFIG: packs a folder as a container image of one layer (an OCI archive).

Everything in it belongs to root; the same folder gives the same bytes. CONFIG is the image's own, as JSON."""

import hashlib
import io
import json
import os
import platform
import sys
import tarfile

MEDIA = "application/vnd.oci.image."


def layer(folder, out):
    def plain(info):
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        return info

    with tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as tar:
        for where, folders, files in os.walk(folder):
            folders.sort()
            for name in sorted(files + [f for f in folders if os.path.islink(os.path.join(where, f))]):
                path = os.path.join(where, name)
                tar.add(path, os.path.relpath(path, folder), recursive=False, filter=plain)
            for name in folders:
                path = os.path.join(where, name)
                if not os.path.islink(path):
                    tar.add(path, os.path.relpath(path, folder), recursive=False, filter=plain)


def main():
    out, name, folder, config = sys.argv[1:]
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    packed = out + ".layer"
    layer(folder, packed)
    with open(packed, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()

    with tarfile.open(out, "w") as tar:
        def put(path, data):
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        def blob(kind, value):
            data = json.dumps(value).encode()
            digest = hashlib.sha256(data).hexdigest()
            put("blobs/sha256/" + digest, data)
            return {"mediaType": MEDIA + kind, "digest": "sha256:" + digest, "size": len(data)}

        tar.add(packed, "blobs/sha256/" + digest)
        description = blob("config.v1+json", {
            "architecture": machine, "os": "linux", "config": json.loads(config),
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest]}})
        manifest = blob("manifest.v1+json", {
            "schemaVersion": 2, "mediaType": MEDIA + "manifest.v1+json", "config": description,
            "layers": [{"mediaType": MEDIA + "layer.v1.tar", "digest": "sha256:" + digest, "size": os.path.getsize(packed)}]})
        manifest["annotations"] = {"io.containerd.image.name": name}
        put("index.json", json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode())
        put("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    os.remove(packed)


main()
