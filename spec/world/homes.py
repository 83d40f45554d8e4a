"""homes.py FOLDER HOMES FILES - home directories as people leave them, for the demo and the specs.

The same arguments always give the same tree, but for the times ctime and atime. Runs as root.
"""

import os
import random
import struct
import sys

root, homes, files = os.fsencode(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(1)
EPOCH = 1_600_000_000

ODD_HOMES = [
    b"_shared", b"auth0|5f2c9a", b"jos-c3-a9", b"m-2e-ito", b"-rf", b" leading space", b"tab\there", b"new\nline",
    b"back\\slash", b"star*", b"what?", b"a[1]", b"quo'te", b'"double"', b"$(touch hacked)", b"a:b", b"~root", b"#hash",
    "Zoë".encode(), b"not-utf8-\xff\xfe", b".hidden", b"h" * 255,
]
FOLDERS = [b".conda/pkgs", b".local/share/Trash", b"data/raw", b"notebooks", b"notebooks/.ipynb_checkpoints", b"src", b"empty"]
NAMES = [b"notes.ipynb", b"fig 1.png", b"model.pkl", b"-x", b"run\n2.log", "données.csv".encode(), b"\xfe.bin", b"core", b"a'b"]


def acl(entries):
    """What setfacl writes: version 2, then (tag, permissions, id) each."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries)


NOBODY = 0xFFFFFFFF
GUEST_ACL = acl([(1, 6, NOBODY), (2, 4, 4242), (4, 4, NOBODY), (16, 4, NOBODY), (32, 0, NOBODY)])


def settle(path, uid):
    """Owner, mode and a time with nanoseconds, for anything; never through a symlink."""
    os.lchown(path, uid, uid)
    when = (EPOCH + chance.randrange(100_000_000)) * 10**9 + chance.randrange(10**9)
    os.utime(path, ns=(when, when), follow_symlinks=False)


def fill_file(path, uid):
    size = chance.choice([0, 1, 100, 4096, 5000, chance.randrange(60_000)])
    with open(path, "wb") as f:
        f.write(chance.randbytes(size))
    kind = chance.randrange(40)
    if kind == 0:
        os.truncate(path, size + 3_000_000)  # a hole
    elif kind == 1:
        os.setxattr(path, b"user.origin", b"https://example.org/\x00data")
    elif kind == 2:
        os.setxattr(path, b"system.posix_acl_access", GUEST_ACL)
    settle(path, uid)
    os.chmod(path, chance.choice([0o644, 0o600, 0o755, 0o400, 0o664, 0o000]))


def fill_home(home, uid, count):
    os.mkdir(home)
    folders = [home] + [home + b"/" + f for f in chance.sample(FOLDERS, 4)]
    for folder in folders[1:]:
        os.makedirs(folder, exist_ok=True)
    made = []
    for i in range(count):
        folder = chance.choice([f for f in folders if not f.endswith(b"/empty")])
        path = folder + b"/%d-" % i + chance.choice(NAMES)
        kind = chance.randrange(20)
        if kind == 0 and made:
            os.link(chance.choice(made), path)
        elif kind == 1:
            os.symlink(chance.choice([b"../data", b"/etc/passwd", b"nowhere", b".", b"x" * 200]), path)
            settle(path, uid)
        elif kind == 2 and i % 7 == 0:
            os.mkfifo(path)
            settle(path, uid)
        else:
            fill_file(path, uid)
            made.append(path)
    for folder, _, _ in os.walk(home, topdown=False):
        settle(folder, uid)
        os.chmod(folder, chance.choice([0o755, 0o700, 0o2775]))


os.makedirs(root, exist_ok=True)
names = ODD_HOMES[: homes // 2] + [b"user-%d" % i for i in range(homes)]
for i, name in enumerate(names[:homes]):
    fill_home(root + b"/" + name, 1000 if i % 5 else 2000 + i, files // homes)
with open(root + b"/README", "wb") as f:
    f.write(b"Homes of the hub. A loose file beside them.\n")
os.makedirs(root + b"/lost+found", exist_ok=True)
for path in root + b"/README", root + b"/lost+found", root:
    settle(path, 0)
