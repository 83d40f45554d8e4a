# 2: the other hub's database, 3: its SHA-256, 4: the name that the database here keeps.
#
# What the other hub knows comes into a copy of the database here, which then takes its place. Rows that are on both, by what
# people call them, stay one; all others get new numbers. What only says which servers run and who has a page open stays behind.

import tempfile
from collections import namedtuple

Table = namedtuple("Table", "key blank only", defaults=((), ""))

# In this order, as rows name rows of tables before them. key: what makes a row the same on both; blank: of a server that runs;
# only: the rows that come along.
TABLES = {
    "roles": Table(("name",)),
    "groups": Table(("name",)),
    "oauth_clients": Table(("identifier",), only="""where identifier = 'jupyterhub'
        or identifier in (select oauth_client_id from other.services)"""),
    "services": Table(("name",), ("_server_id", "pid")),
    "users": Table(("name",)),
    "spawners": Table(("user_id", "name"), ("server_id", "started", "oauth_client_id")),
    "user_group_map": Table(("user_id", "group_id")),
    "user_role_map": Table(("user_id", "role_id")),
    "group_role_map": Table(("group_id", "role_id")),
    "service_role_map": Table(("service_id", "role_id")),
    # Made by people or by the configuration: what servers and logins were given belongs to what runs there.
    "api_tokens": Table(("hashed",), only="""where client_id = 'jupyterhub' and coalesce(note, '') not like 'Server at /%'
        and (expires_at is null or expires_at > datetime('now')) and (user_id is not null or service_id is not null)"""),
    "shares": Table(("owner_id", "spawner_id", "user_id", "group_id"), only="""
        where expires_at is null or expires_at > datetime('now')"""),
    "share_codes": Table(("hashed",), only="where expires_at is null or expires_at > datetime('now')"),
}
LEFT = {"alembic_version", "servers", "oauth_codes"}
OF_HUB = {"user", "admin", "server", "token"}   # roles that the hub itself writes at each start
EMPTY = None, "", "{}", "[]", "null"

# Rows that are on both: what is empty here is filled.
FILLED = {"users", "groups", "spawners"}


def plural(count):
    return f"{count} row{'' if count == 1 else 's'}"


def schema(db):
    return db.execute("select version_num from main.alembic_version").fetchone()[0]


def bring_to(path, wanted):
    """To the schema of the database here, by this hub's own JupyterHub."""
    db = sqlite3.connect(path)
    found = schema(db)
    db.close()
    if found == wanted:
        return
    # As `jupyterhub upgrade-db` does it, to one revision, and without a program `alembic`, which not every image has.
    from alembic.config import main as alembic
    from alembic.util import CommandError
    from jupyterhub.dbutil import write_alembic_ini
    with tempfile.TemporaryDirectory() as folder:
        write_alembic_ini(folder + "/alembic.ini", "sqlite:///" + os.path.abspath(path))
        try:
            alembic(["--raiseerr", "-c", folder + "/alembic.ini", "upgrade", wanted])
        except CommandError as problem:
            sys.exit(f"this hub's JupyterHub cannot bring the schema {found} to {wanted}: {problem}")


class Merge:
    def __init__(self, db):
        self.db, self.ids, self.said = db, {}, []
        self.added, self.known, self.strays = {}, {}, 0
        self.new_admins = []

    def tables(self, of):
        return {row[0] for row in self.db.execute(
            f"select name from {of}.sqlite_master where type = 'table' and name not like 'sqlite_%'")}

    def must_know(self):
        """A table or a column that nobody here knows is somebody's data."""
        there, here = self.tables("other"), self.tables("main")
        for table in sorted(there - LEFT - set(TABLES)):
            count = self.db.execute(f'select count(*) from other."{table}"').fetchone()[0]
            if count:
                sys.exit(f"table {table} holds {plural(count)}, and nobody here knows how to merge them")
        for table in sorted(there & set(TABLES)):
            lacking = {row[1] for row in self.db.execute(f'pragma other.table_info("{table}")')} - set(columns(self.db, table))
            if table not in here or lacking:
                sys.exit(f"the databases say they are of one schema, but this one lacks {table} {' '.join(sorted(lacking))}".rstrip())

    def find(self, table, record):
        test = " and ".join(f'"{name}" is ?' for name in TABLES[table].key)
        rows = self.db.execute(f'select rowid, * from main."{table}" where {test}', [record[name] for name in TABLES[table].key])
        found = rows.fetchone()
        return (found[0], dict(zip([d[0] for d in rows.description][1:], found[1:]))) if found else (None, None)

    def insert(self, table, record):
        names = ", ".join(f'"{name}"' for name in record)
        return self.db.execute(f'insert into main."{table}" ({names}) values ({", ".join("?" * len(record))})',
                               list(record.values())).lastrowid

    def update(self, table, row, changes):
        for name, value in changes.items():
            self.db.execute(f'update main."{table}" set "{name}" = ? where rowid = ?', (value, row))

    def taken(self, column, value, row):
        return self.db.execute(f'select 1 from main.users where "{column}" = ? and rowid != ?', (value, row)).fetchone()

    def one_user(self, row, here, there):
        """People come by the other hub's name, with its cookies, and with the keys that were carried from it."""
        changes = {}
        if there["admin"] and not here["admin"]:
            changes["admin"] = there["admin"]
            self.new_admins.append(here["name"])
        for name, choose in ("created", min), ("last_activity", max):
            if there.get(name) and here.get(name):
                changes[name] = choose(here[name], there[name])
        if there["encrypted_auth_state"] is not None:
            changes["encrypted_auth_state"] = there["encrypted_auth_state"]
        if not self.taken("cookie_id", there["cookie_id"], row):
            changes["cookie_id"] = there["cookie_id"]
        self.update("users", row, changes)

    def compare(self, table, here, there):
        """What stays as it is here although it is otherwise there is said."""
        if table == "roles" and here["name"] not in OF_HUB and here["scopes"] != there["scopes"]:
            self.said.append(f"role {here['name']} has other scopes on both; those here stay")
        elif table == "groups" and here.get("properties") not in EMPTY and there.get("properties") not in EMPTY \
                and json.loads(here["properties"]) != json.loads(there["properties"]):
            self.said.append(f"group {here['name']} has other properties on both; those here stay")
        elif table == "api_tokens" and (here["user_id"], here["service_id"]) != (there["user_id"], there["service_id"]):
            self.said.append(f"a token ({here['note']}) is of somebody else on both; here it stays as it is")

    def join(self, table, row, here, there):
        self.compare(table, here, there)
        if table in FILLED:
            self.update(table, row, {name: value for name, value in there.items()
                                     if here[name] in EMPTY and value not in EMPTY})
        if table == "users":
            self.one_user(row, here, there)

    def move(self, table):
        links = [(row[3], row[2]) for row in self.db.execute(f'pragma other.foreign_key_list("{table}")') if row[4] == "id"]
        rows = self.db.execute(f'select rowid as "row here", * from other."{table}" {TABLES[table].only}')
        names = [d[0] for d in rows.description][1:]
        ids = self.ids[table] = {}
        self.added[table] = self.known[table] = 0
        for there, *values in rows.fetchall():
            record = dict(zip(names, values))
            record.pop("id", None)
            record.update((name, None) for name in TABLES[table].blank if name in record)
            if "state" in record and table == "spawners":
                record["state"] = at_rest(record["state"])
            if any(record[name] is not None and record[name] not in self.ids[to] for name, to in links):
                self.strays += 1
                continue
            record.update((name, self.ids[to][record[name]]) for name, to in links if record[name] is not None)
            row, here = self.find(table, record)
            if row is None:
                self.added[table] += 1
                row = self.insert(table, record)
            else:
                self.known[table] += 1
                self.join(table, row, here, record)
            ids[there] = row

    def all(self):
        self.must_know()
        for table in TABLES:
            if table in self.tables("other"):
                self.move(table)
        if self.new_admins:
            self.said.append("admins on the other hub, and now here: " + ", ".join(sorted(self.new_admins)))
        if self.strays:
            self.said.append(f"{plural(self.strays)} of the other hub belong to nothing there and stay behind")


def problems(path):
    db = sqlite3.connect(path)
    whole = [row[0] for row in db.execute("pragma integrity_check")]
    strays = db.execute("pragma foreign_key_check").fetchall()
    db.close()
    return ([] if whole == ["ok"] else whole), len(strays)


def make(new, other):
    """The merged database beside the one here; what it took."""
    remove(new)
    remove_sides(new)
    here, db = sqlite3.connect(NAME), sqlite3.connect(new, isolation_level=None)
    here.backup(db)
    here.close()
    db.execute("pragma journal_mode = delete")
    db.execute("attach ? as other", (other,))
    db.execute("begin immediate")
    merge = Merge(db)
    merge.all()
    db.execute("commit")
    missing = db.execute("select count(*) from other.users where name not in (select name from main.users)").fetchone()[0]
    db.close()
    whole, strays = problems(new)
    if whole or missing or strays > problems(NAME)[1]:
        sys.exit("what came out is not whole: " + "; ".join(whole + [f"{plural(strays)} of nothing, {missing} missing users"]))
    return merge


def main():
    other, sha256, kept = sys.argv[2:5]
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)   # what JupyterHub prints is no report
    enter()
    must_be(other, sha256)
    settle()
    db = sqlite3.connect(NAME)
    wanted = schema(db)
    db.close()
    bring_to(other, wanted)
    new = NAME + ".runbook-new"
    merge = make(new, other)
    put_in_place(new, kept)
    report.write(json.dumps({"added": merge.added, "known": merge.known, "said": merge.said}) + "\n")
    report.close()


main()
