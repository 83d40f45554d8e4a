"""1: the database. What is in it, read-only, so that neither a lock nor a journal of ours gets in the hub's way. No token and
no hash of one is told: only whether two are the same."""

import hashlib
import json
import os
import shutil
import sqlite3
import sys

path = sys.argv[1]
KNOWN = {
    "alembic_version", "users", "groups", "user_group_map", "roles", "user_role_map", "group_role_map", "service_role_map", "services",
    "servers", "spawners", "api_tokens", "oauth_clients", "oauth_codes", "oauth_access_tokens", "api_token_role_map",
    "oauth_client_role_map", "shares", "share_codes"}
free = shutil.disk_usage(os.path.dirname(path)).free
if not os.path.exists(path):
    print(json.dumps({"free": free}))
    sys.exit()
db = sqlite3.connect("file:" + path + "?mode=ro", uri=True, timeout=30)
db.execute("begin")     # one state of it
tables = {row[0] for row in db.execute("select name from sqlite_master where type = 'table' and name not like 'sqlite_%'")}


def columns(table):
    return {row[1] for row in db.execute(f'pragma table_info("{table}")')}


def rows(query, *needed):
    """Of tables that older schemas do not have, nothing."""
    return db.execute(query).fetchall() if tables.issuperset(needed) else []


def users():
    state = "encrypted_auth_state is not null" if "encrypted_auth_state" in columns("users") else "0"
    return [{"name": name, "admin": bool(admin), "keeps_login": bool(keeps)}
            for name, admin, keeps in rows(f"select name, admin, {state} from users order by name", "users")]


def groups():
    members = {name: [] for name, in rows('select name from "groups"', "groups")}
    for group, user in rows('select g.name, u.name from user_group_map m join "groups" g on g.id = m.group_id'
                            " join users u on u.id = m.user_id", "groups", "user_group_map", "users"):
        members[group].append(user)
    return [{"name": name, "members": len(of), "same": digest("\0".join(sorted(of)))} for name, of in sorted(members.items())]


def digest(text):
    return hashlib.sha256((text or "").encode()).hexdigest()[:16]


def tokens():
    """Those that somebody made to keep; a server's own and those of logins come and go."""
    of = columns("api_tokens")
    if "hashed" not in of:
        return []
    made = "and t.client_id = 'jupyterhub'" if "client_id" in of else ""
    lasting = "and (t.expires_at is null or t.expires_at > datetime('now'))" if "expires_at" in of else ""
    return [{"user": name, "same": digest(hashed)} for name, hashed in db.execute(
        "select u.name, t.hashed from api_tokens t join users u on u.id = t.user_id"
        f" where coalesce(t.note, '') not like 'Server at /%' {made} {lasting} order by u.name")]


def revision():
    found = rows("select version_num from alembic_version", "alembic_version")
    return found[0][0] if found else None


def others():
    counts = {table: db.execute(f'select count(*) from "{table}"').fetchone()[0] for table in sorted(tables - KNOWN)}
    return [{"table": table, "rows": count} for table, count in counts.items() if count]


print(json.dumps({
    "revision": revision(), "users": users(), "groups": groups(), "tokens": tokens(), "others": others(), "free": free,
    "named_servers": len(rows("select 1 from spawners where name != ''", "spawners")), "bytes": os.path.getsize(path)}))
