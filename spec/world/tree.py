"""tree.py FOLDER [PREFIX-TO-LEAVE-OUT]... - everything about a tree that a copy must keep, one line per name.

Knows nothing of the program under test. Lines are sorted; names and values are quoted so that a line is a line.
Type, mode with its special bits, owners, size, modification time in ns, hash of the contents, link target, device
numbers, hard link group (by the first name of the group), xattrs and ACLs, and whether a file has holes.
"""

import hashlib
import os
import stat
import sys

root = os.fsencode(sys.argv[1])
left_out = [os.fsencode(p) for p in sys.argv[2:]]
KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFIFO: "fifo",
         stat.S_IFSOCK: "socket", stat.S_IFCHR: "char", stat.S_IFBLK: "block"}


def quoted(name):
    return repr(name)[1:]


def contents(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while data := f.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()[:16]


def attributes(path):
    # security.* belongs to the machine, not to the file's owner
    names = [n for n in sorted(os.listxattr(path, follow_symlinks=False)) if not n.startswith("security.")]
    return ",".join(n + "=" + os.getxattr(path, n, follow_symlinks=False).hex() for n in names)


def walk(path, name):
    if name in left_out:
        return
    yield path, name, os.lstat(path)
    if stat.S_ISDIR(os.lstat(path).st_mode):
        for entry in sorted(os.listdir(path)):
            yield from walk(path + b"/" + entry, name + b"/" + entry if name else entry)


groups = {}
for path, name, st in walk(root, b""):
    kind = KINDS[stat.S_IFMT(st.st_mode)]
    words = [quoted(name), kind, "%04o" % stat.S_IMODE(st.st_mode), "%d:%d" % (st.st_uid, st.st_gid), str(st.st_mtime_ns)]
    if kind == "file":
        words += [str(st.st_size), contents(path), "holes" if st.st_blocks * 512 + 65536 < st.st_size else "whole"]
    elif kind == "link":
        words.append(quoted(os.readlink(path)))
    elif kind in ("char", "block"):
        words.append("%d,%d" % (os.major(st.st_rdev), os.minor(st.st_rdev)))
    if kind != "dir" and st.st_nlink > 1:
        words.append("same-as=" + quoted(groups.setdefault((st.st_dev, st.st_ino), name)))
    words.append(attributes(path))
    print(" ".join(words))
