"""What is done with a database in the claim it lies in. Goes before install.py, merge.py, put_back.py and settle.py.

Argument 1 is the folder; the hub that has it is stopped."""

import fcntl
import hashlib
import json
import os
import sqlite3
import sys

NAME = "jupyterhub.sqlite"
SIDES = "-journal", "-wal", "-shm"

# What kubespawner keeps of a server that ran. On another hub it would look for the pod in the old one's namespace, and
# make the next one there. Its pvc_name stays: that is where the home is.
OF_RUNNING = "pod_name", "namespace", "dns_name"


def enter():
    """Into the folder, alone: what was cut off may still be at work in this pod."""
    os.chdir(sys.argv[1])
    folder = os.open(".", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
    except OSError:     # a file system without locks
        pass


def must_be(path, sha256):
    with open(path, "rb") as file:
        seen = hashlib.sha256()
        for part in iter(lambda: file.read(1 << 20), b""):
            seen.update(part)
    if seen.hexdigest() != sha256:
        sys.exit("what arrived is not what was sent")


def remove(*paths):
    for path in paths:
        if os.path.exists(path):
            os.remove(path)


def remove_sides(path):
    remove(*(path + side for side in SIDES))


def sync(path):
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def columns(db, table):
    return [row[1] for row in db.execute(f'pragma main.table_info("{table}")')]


def at_rest(state):
    """A spawner's state, of a server that does not run."""
    try:
        return json.dumps({key: value for key, value in json.loads(state).items() if key not in OF_RUNNING})
    except (TypeError, ValueError, AttributeError):
        return state


def forget_servers(path):
    """No server of the hub that this database comes from runs where it goes."""
    db = sqlite3.connect(path)
    for column in {"server_id", "started"}.intersection(columns(db, "spawners")):
        db.execute(f"update spawners set {column} = null")
    if columns(db, "spawners"):     # JupyterHub 0.8 and newer
        for spawner, state in db.execute("select id, state from spawners").fetchall():
            db.execute("update spawners set state = ? where id = ?", (at_rest(state), spawner))
        db.execute("delete from servers where id not in (select _server_id from services where _server_id is not null)")
    db.commit()
    db.close()


def settle():
    """What a hub that was killed left half-way is undone while its journal is still beside it."""
    if os.path.exists(NAME):
        db = sqlite3.connect(NAME, isolation_level=None)
        db.execute("begin immediate")
        db.execute("rollback")
        db.execute("pragma wal_checkpoint(truncate)")
        db.close()


def put_in_place(new, kept):
    """The rename is the one moment of change; what is replaced has a second name by then."""
    sync(new)
    if os.path.exists(NAME):
        state = os.stat(NAME)
        os.chmod(new, state.st_mode & 0o7777)
        if os.geteuid() == 0:
            os.chown(new, state.st_uid, state.st_gid)
        if not os.path.exists(kept):
            os.link(NAME, kept)
    os.rename(new, NAME)
    remove_sides(NAME)
    sync(".")
