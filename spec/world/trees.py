"""trees.py - trees to copy, what people do to them, and people who do not stop. Runs as root.

    trees.py awkward PATH [--deep N] [--largest BYTES] [--across]    every kind of name, file, attribute, hole
    trees.py many PATH [--files N] [--homes N]                       small files, as homes have them
    trees.py big PATH [--files N] [--bytes N]                        large files nothing can compress
    trees.py million PATH [--files N]                                one home, folders in folders, tiny files
    trees.py mutate PATH [--percent P] [--delete] [--rename] [--kinds A,B] [--seed N]
    trees.py storm PATH [--seed N] [--rate PER_SECOND]               until it is killed

The same arguments give the same tree, but for ctime and atime. `awkward` has a home for each class, with a terabyte of hole
and a hard link from home to home if asked. `mutate` prints as JSON how much of what it did: a share of the files, spread
over all kinds it knows, among them edits that keep size and second ("same-second"), or size and time ("same-time": only
ctime tells), and with --delete and --rename folders too.
"""

import argparse
import json
import os
import random
import socket
import stat
import struct
import sys
import time
import zlib

EPOCH = 1_600_000_000
NOBODY = 0xFFFFFFFF


def acl(*entries):
    """What setfacl writes: version 2, then (tag, permissions, id) each."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries)


def guest_acl(uid, permissions):
    return acl((1, 6, NOBODY), (2, permissions, uid), (4, 4, NOBODY), (16, permissions | 4, NOBODY), (32, 0, NOBODY))


def write(path, data=b"", at=0):
    """Write at a place without making the file shorter."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        while data:
            done = os.pwrite(fd, data, at)
            data, at = data[done:], at + done
    finally:
        os.close(fd)


def set_time(path, ns):
    os.utime(path, ns=(ns, ns), follow_symlinks=False)


# ---- every kind of thing

NAMES = [
    b"new\nline", b"\n", b"tab\there", b" leading space", b"trailing space ", b" ", b"-rf", b"--delete", b"back\\slash", b"\\", b"star*",
    b"*", b"what?", b"a[1]", b"{a,b}", b"quo'te", b'dou"ble', b"$(touch hacked)", b"`touch hacked`", b"$HOME", b"a;b", b"a&b", b"a|b",
    b"not-utf8-\xff\xfe", b"\x80", "Zoë".encode(), "Zoe\u0308".encode(), b"\x01\x7f", b"carriage\rreturn", b"n" * 255, b".dot", b"...", b"~",
    b"~root", b"#hash#", b"a:b", b"host:path", b"_shared", b"lost+found", b".nfs0001", b".runbook", b"%2F", b"con", b"x~", b"=", b"!x", b"@",
    b"UPPER", b"upper", b"\xe2\x80\xae", b"-", b"--", b"1",
]


def awkward_names(home, _):
    for i, name in enumerate(NAMES):
        write(home + b"/" + name, b"%d" % i)
        os.mkdir(home + b"/dir-" + name[:250])
        write(home + b"/dir-" + name[:250] + b"/" + name, b"below %d" % i)


def awkward_deep(home, o):
    fd = os.open(home, os.O_RDONLY)
    for i in range(o.deep):
        os.mkdir(b"level-%d" % i, dir_fd=fd)
        below = os.open(b"level-%d" % i, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open(b"bottom", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)


def awkward_types(home, _):
    for name, target in {b"relative": b"plain", b"absolute": b"/etc/passwd", b"dangling": b"nowhere", b"loop": b"loop", b"out": b"../../..",
                         b"self": b".", b"long": b"x" * 4000, b"odd\n": b"\xff $(x)\n", b"to-dir": b"sub/", b"slashes": b"//etc//"}.items():
        os.symlink(target, home + b"/link-" + name)
    write(home + b"/plain", b"plain")
    write(home + b"/empty")
    os.mkdir(home + b"/empty-dir")
    os.makedirs(home + b"/sub/sub")
    for i in range(3):
        os.link(home + b"/plain", home + b"/sub/plain-%d" % i)
        os.link(home + b"/link-relative", home + b"/sub/link-%d" % i)
    os.mkfifo(home + b"/fifo")
    os.link(home + b"/fifo", home + b"/fifo-again")
    os.mknod(home + b"/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(home + b"/far-device", 0o600 | stat.S_IFBLK, os.makedev(259, 70000))
    here = os.getcwd()
    os.chdir(home)  # a socket's address is short
    socket.socket(socket.AF_UNIX).bind(b"socket")
    os.chdir(here)


def awkward_metadata(home, _):
    for mode in (0o0, 0o1, 0o200, 0o400, 0o444, 0o1777, 0o2755, 0o4755, 0o6711, 0o7777):
        write(home + b"/mode-%04o" % mode, b"x")
        os.chown(home + b"/mode-%04o" % mode, 31337, 31338)
        os.chmod(home + b"/mode-%04o" % mode, mode)
        os.mkdir(home + b"/dir-%04o" % mode)
        write(home + b"/dir-%04o/child" % mode, b"x")
        os.chmod(home + b"/dir-%04o" % mode, mode)
    for uid in (0, 1, 65534, 65536, 4_000_000_000):
        write(home + b"/owner-%d" % uid, b"x")
        os.chown(home + b"/owner-%d" % uid, uid, uid)
        os.symlink(b"x", home + b"/owned-link-%d" % uid)
        os.lchown(home + b"/owned-link-%d" % uid, uid, uid)
    write(home + b"/acl", b"x")
    os.setxattr(home + b"/acl", "system.posix_acl_access", guest_acl(4242, 6))
    os.mkdir(home + b"/acl-dir")
    os.setxattr(home + b"/acl-dir", "system.posix_acl_default", guest_acl(4243, 7))
    write(home + b"/acl-dir/inherits", b"x")
    write(home + b"/xattr", b"x")
    for name, value in {"user.empty": b"", "user.bytes": bytes(range(256)), "user.large": b"v" * 2000, "user.=\n": b"\x00"}.items():
        os.setxattr(home + b"/xattr", name, value)
    os.setxattr(home + b"/acl-dir", "user.dir", b"d")
    write(home + b"/capable", b"x")
    os.setxattr(home + b"/capable", "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))


TIMES = {"future": 4_000_000_000 * 10**9 + 1, "past": -86400 * 10**9 - 1, "before": -1, "zero": 0, "last-ns": EPOCH * 10**9 + 999_999_999,
         "whole": EPOCH * 10**9}


def awkward_times(home, _):
    for name in TIMES:
        write(home + b"/" + name.encode(), b"x")
        os.mkdir(home + b"/dir-" + name.encode())
        os.symlink(b"x", home + b"/link-" + name.encode())


def awkward_sparse(home, o):
    huge = home + b"/huge"
    write(huge, b"data", o.largest // 3)
    os.truncate(huge, o.largest)
    large = home + b"/over-4-gib"
    for at in (0, 2**31 - 2, 2**32 - 2, 5 * 2**30 - 4):
        write(large, b"mark", min(at, o.largest))
    write(home + b"/all-hole")
    os.truncate(home + b"/all-hole", 10_000_000)
    write(home + b"/hole-first", b"x" * 5000, 3_000_000)
    write(home + b"/hole-last", b"x" * 5000)
    os.truncate(home + b"/hole-last", 3_000_001)
    for at in range(0, 40_000_000, 1_000_000):
        write(home + b"/comb", b"tooth", at)
    write(home + b"/zeros", b"\0" * 500_000)
    for size in (1, 4095, 4096, 4097, 65536, 700_001):
        write(home + b"/size-%d" % size, random.Random(size).randbytes(size))


def settled_time(path, root):
    """A time for a name, the same wherever its tree is."""
    return EPOCH * 10**9 + zlib.crc32(path[len(root):]) * 23_000_001 % 10**17


def settle(home, special):
    """Times, everywhere, children before their directories."""
    root = os.path.dirname(home)
    for folder, folders, files in os.walk(home, topdown=False):
        for name in files + folders:
            set_time(folder + b"/" + name, settled_time(folder + b"/" + name, root))
    for name, ns in TIMES.items() if special else ():
        for prefix in (b"", b"dir-", b"link-"):
            set_time(home + b"/" + prefix + name.encode(), ns)
    set_time(home, settled_time(home, root))


AWKWARD = {b"names": awkward_names, b"deep": awkward_deep, b"types": awkward_types, b"metadata": awkward_metadata,
           b"times": awkward_times, b"sparse": awkward_sparse}


def awkward(root, o):
    os.makedirs(root, exist_ok=True)
    for kind, fill in AWKWARD.items():
        os.mkdir(root + b"/" + kind)
        fill(root + b"/" + kind, o)
    if o.across:
        os.link(root + b"/types/plain", root + b"/sparse/of-another-home")
    for kind in AWKWARD:
        settle(root + b"/" + kind, kind == b"times")
    write(root + b"/loose", b"loose")
    os.mkdir(root + b"/empty-home")
    set_time(root + b"/loose", EPOCH * 10**9)
    set_time(root + b"/empty-home", EPOCH * 10**9 + 5)
    set_time(root, EPOCH * 10**9 + 7)


# ---- many, big, million

def in_processes(jobs, work):
    """Runs work(job) for all, in as many processes as there are cores."""
    children = []
    for first in range(os.cpu_count() or 1):
        pid = os.fork()
        if pid == 0:
            try:
                for job in jobs[first::os.cpu_count() or 1]:
                    work(job)
                os._exit(0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        children.append(pid)
    failed = [pid for pid in children if os.waitpid(pid, 0)[1] != 0]
    if failed:
        sys.exit("trees.py: a child failed")


class Maker:
    """Small files, quickly: slices of the same random bytes, made through a directory's descriptor."""

    def __init__(self, seed, uid):
        self.chance = random.Random(seed)
        self.noise = memoryview(random.Random(1).randbytes(1 << 20))
        self.uid = uid

    def size(self):
        kind = self.chance.random()
        return 0 if kind < 0.04 else min(int(self.chance.lognormvariate(7.1, 1.4)), 500_000)

    def fill(self, path, count, size=None, links=True):
        os.mkdir(path)
        chance, noise, folder = self.chance, self.noise, os.open(path, os.O_RDONLY)
        for i in range(count):
            name, length = b"file-%d" % i, size() if size else self.size()
            kind = chance.randrange(200) if links else 1
            if kind == 0 and i > 0:
                os.symlink(b"file-0", name, dir_fd=folder)
                os.chown(name, self.uid, self.uid, dir_fd=folder, follow_symlinks=False)
                os.utime(name, ns=(EPOCH * 10**9, EPOCH * 10**9 + i), dir_fd=folder, follow_symlinks=False)
            else:
                at = chance.randrange(500_000)
                fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if kind < 20 else 0o755 if kind < 30 else 0o644, dir_fd=folder)
                os.write(fd, noise[at:at + length])
                os.fchown(fd, self.uid, self.uid)
                os.utime(fd, ns=(EPOCH * 10**9, EPOCH * 10**9 + chance.randrange(10**17)))
                os.close(fd)
        os.close(folder)


def own(path, root, uid):
    for folder, _, _ in os.walk(path, topdown=False):
        os.chown(folder, uid, uid)
        set_time(folder, settled_time(folder, root))


def fill_home(job):
    home, number, count = job
    maker = Maker(number, 1000 + number)
    chance = maker.chance
    os.mkdir(home)
    folders = [home]
    while count > 0:
        here = min(count, 1 + int(chance.expovariate(1 / 40)))
        path = chance.choice(folders[-30:]) + b"/dir-%d" % len(folders)
        maker.fill(path, here)
        folders.append(path)
        if chance.randrange(10) == 0:
            os.link(path + b"/file-0", path + b"/link-0")
        count -= here
    own(home, os.path.dirname(home), 1000 + number)


def many(root, o):
    os.makedirs(root, exist_ok=True)
    # a few people have most of the files
    weights = [1 / (i + 3) for i in range(o.homes)]
    counts = [int(o.files * w / sum(weights)) for w in weights]
    counts[0] += o.files - sum(counts)
    in_processes([(root + b"/user-%03d" % i, i, n) for i, n in enumerate(counts)], fill_home)
    set_time(root, EPOCH * 10**9)


def big(root, o):
    os.makedirs(root, exist_ok=True)

    def one(i):
        home = root + b"/user-%02d" % (i % 4)
        os.makedirs(home, exist_ok=True)
        chance = random.Random(i)
        with open(home + b"/data-%02d.bin" % i, "wb", buffering=0) as f:
            left = o.bytes
            while left > 0:
                left -= f.write(chance.randbytes(min(left, 1 << 22)))
        set_time(home + b"/data-%02d.bin" % i, EPOCH * 10**9 + i)

    in_processes(list(range(o.files)), one)
    own(root, root, 0)


def million(root, o):
    home = root + b"/ann"
    os.makedirs(home, exist_ok=True)
    tops = max(1, o.files // 20_000)

    def top(i):
        maker, left = Maker(i, 1000), o.files // tops + (o.files % tops if i == 0 else 0)
        path = home + b"/set-%03d" % i
        os.mkdir(path)
        for n in range((left + 199) // 200):
            if n % 10 == 0:
                os.mkdir(path + b"/part-%d" % (n // 10))
            maker.fill(path + b"/part-%d/chunk-%d" % (n // 10, n), min(200, left - n * 200), lambda: maker.chance.randrange(60), links=False)

    in_processes(list(range(tops)), top)
    own(root, root, 1000)


# ---- what people do

def flip(path, times):
    """Other bytes, as many as before, at a time given the time before."""
    before = os.lstat(path)
    with open(path, "rb") as f:
        data = f.read(1)
    write(path, bytes([(data[0] ^ 0x55) if data else 0x55]))
    set_time(path, times(before.st_mtime_ns))


def rewrite(path, chance):
    os.truncate(path, 0)
    write(path, chance.randbytes(chance.randrange(1, 9000)))


def become_directory(path):
    os.unlink(path)
    os.mkdir(path)
    write(path + b"/inside", b"was a file")


def become_link(path):
    os.unlink(path)
    os.symlink(b"somewhere", path)


def replace(path, chance):
    """As editors save: a new file under the old name."""
    old = os.lstat(path)
    write(path + b".new", chance.randbytes(3000))
    os.chown(path + b".new", old.st_uid, old.st_gid)
    os.rename(path + b".new", path)


def unused(path):
    return unused(path + b"+") if os.path.lexists(path) else path


def same_second(ns):
    return ns // 10**9 * 10**9 + (ns + 1) % 10**9


EDITS = {
    "same-second": lambda p, c: flip(p, same_second),
    "same-time": lambda p, c: flip(p, lambda ns: ns),
    "edit": lambda p, c: rewrite(p, c),
    "append": lambda p, c: write(p, b"more", os.lstat(p).st_size),
    "truncate": lambda p, c: os.truncate(p, os.lstat(p).st_size // 2),
    "grow": lambda p, c: os.truncate(p, os.lstat(p).st_size + 300_000),
    "chmod": lambda p, c: os.chmod(p, os.lstat(p).st_mode & 0o7777 ^ 0o040),
    "chown": lambda p, c: os.chown(p, c.randrange(2000, 3000), c.randrange(2000, 3000)),
    "xattr": lambda p, c: os.setxattr(p, "user.touched", c.randbytes(20)),
    "acl": lambda p, c: os.setxattr(p, "system.posix_acl_access", guest_acl(c.randrange(5000, 6000), 6)),
    "touch": lambda p, c: set_time(p, time.time_ns()),
    "older": lambda p, c: (rewrite(p, c), set_time(p, 10**18 + c.randrange(10**9))),
    "replace": replace,
    "to-directory": lambda p, c: become_directory(p),
    "to-link": lambda p, c: become_link(p),
    "create": lambda p, c: write(p + b".created", c.randbytes(c.randrange(5000))),
    "link": lambda p, c: os.link(p, unused(p + b".linked")),
}
DELETES = {"delete": lambda p, c: os.unlink(p)}
RENAMES = {"rename": lambda p, c: os.rename(p, p + b".renamed")}


def files_of(root, files, folders):
    with os.scandir(root) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
                files_of(entry.path, files, folders)
            elif entry.is_file(follow_symlinks=False):
                files.append(entry.path)


def small_folders(files, folders, root, limit):
    """Folders below a home with few files in them, all told."""
    count = dict.fromkeys(folders, 0)
    for path in files:
        while (path := os.path.dirname(path)) in count:
            count[path] += 1
    return [f for f in folders if 0 < count[f] <= limit and os.path.dirname(f) != root]


def remove_tree(path):
    for folder, folders, files in os.walk(path, topdown=False):
        for name in files + [f for f in folders if os.path.islink(folder + b"/" + f)]:
            os.unlink(folder + b"/" + name)
        os.rmdir(folder)


def move_folders(o, root, files, folders, chance, done):
    n = max(1, int(len(files) * o.percent / 100 / 50))
    small = small_folders(files, folders, root, 30)
    for kind, wanted in (("delete-folder", o.delete), ("rename-folder", o.rename)):
        for path in chance.sample(small, min(n, len(small))) if wanted else []:
            if not os.path.lexists(path):
                continue
            if kind == "delete-folder":
                remove_tree(path)
            else:
                os.rename(path, path + b".moved")
            done[kind] = done.get(kind, 0) + 1


def mutate(root, o):
    sys.setrecursionlimit(100_000)
    chance, done, files, folders = random.Random(o.seed), {}, [], []
    files_of(root, files, folders)
    kinds = dict(EDITS)
    if o.delete:
        kinds.update(DELETES)
    if o.rename:
        kinds.update(RENAMES)
    chosen = o.kinds.split(",") if o.kinds else list(kinds)
    count = min(len(files), max(len(chosen), int(len(files) * o.percent / 100)))
    for i, path in enumerate(chance.sample(files, count)):
        kind = chosen[i % len(chosen)]
        kinds[kind](path, chance)
        done[kind] = done.get(kind, 0) + 1
    if not o.kinds:
        move_folders(o, root, files, folders, chance, done)
    done["files"] = len(files)
    print(json.dumps(done, sort_keys=True))


# ---- people who do not stop

def storm(root, o):
    """One thing after the other, in every home, among files of its own and those that are there."""
    sys.setrecursionlimit(100_000)
    chance, files, folders = random.Random(o.seed), [], []
    files_of(root, files, folders)
    folders = folders or [root]
    kinds = {**EDITS, **DELETES, **RENAMES}
    names = list(kinds)
    number = 0
    while True:
        number += 1
        what = chance.randrange(100)
        try:
            if what < 30 or not files:
                files.append(chance.choice(folders) + b"/storm-%d-%d" % (o.seed, number))
                write(files[-1], chance.randbytes(chance.randrange(30_000)))
            elif what < 34:
                folders.append(chance.choice(folders[-200:]) + b"/storm-%d" % number)
                os.mkdir(folders[-1])
            elif what < 36:
                place = chance.randrange(len(folders))
                if os.path.dirname(folders[place]) != root and folders[place] != root:
                    os.rename(folders[place], folders[place] + b"x")
                    folders[place] += b"x"
            elif what < 37 and len(folders) > 20:
                if b"/storm-" in folders[-1]:
                    remove_tree(folders.pop())
            elif what < 45:
                place = chance.randrange(len(files))
                other = chance.choice(folders) + b"/moved-%d-%d" % (o.seed, number)
                os.rename(files[place], other)
                files[place] = other
            else:
                kinds[chance.choice(names)](chance.choice(files), chance)
        except OSError:
            pass  # it went away under our hands: that is what a storm is
        if o.rate:
            time.sleep(1 / o.rate)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["awkward", "many", "big", "million", "mutate", "storm"])
    parser.add_argument("path", type=os.fsencode)
    parser.add_argument("--files", type=int)
    parser.add_argument("--homes", type=int)
    parser.add_argument("--bytes", type=int, default=200_000_000)
    parser.add_argument("--deep", type=int, default=60)
    parser.add_argument("--largest", type=int, default=1 << 40)
    parser.add_argument("--percent", type=float, default=0.1)
    parser.add_argument("--across", action="store_true")
    parser.add_argument("--delete", action="store_true")
    parser.add_argument("--rename", action="store_true")
    parser.add_argument("--kinds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float)
    o = parser.parse_args()
    o.files = o.files or {"many": 200_000, "big": 20, "million": 1_000_000}.get(o.what, 0)
    o.homes = o.homes or 64
    os.umask(0o022)
    globals()[o.what](o.path.rstrip(b"/"), o)


main()
