local effect = require "runbook.effect"
local errors = require "runbook.errors"
local gate = require "runbook.core.gate"
local library = require "runbook.sqlite"
local sqlite = require "runbook.core.sqlite"
local world = require "spec.world"

local directory

local function path(name)
  return directory .. "/" .. name
end

local function fresh(name, options)
  options = options or {}
  options.create = true
  return assert(sqlite.open(path(name), options))
end

describe("runbook.sqlite", function()
  local function make(name, rows)
    local db <close> = fresh(name)
    assert(db:run { "CREATE TABLE t (a)" })
    for i = 1, rows do
      assert(db:run { "INSERT INTO t VALUES (?)", i })
    end
  end

  local function failure_of(fn, ...)
    local ok, e = pcall(fn, ...)
    assert.is_false(ok)
    assert.is_true(errors.is(e), tostring(e))
    return e
  end

  local function names()
    return world.must("ls " .. directory .. " | grep -v -e -shm$ -e -wal$")
  end

  before_each(function()
    directory = world.folder "sqlite"
    gate.call("change", make, "source", 3)
  end)

  it("reads records, and problems", function()
    assert.same({ { a = 2 } }, library.query(path "source", "SELECT a FROM t WHERE a = ?", 2))
    assert.same({}, library.integrity(path "source"))
    local e = failure_of(library.query, path "source", "SELEKT 1")
    assert.equal("usage", e.kind)
    assert.equal(path "source", e.target)
    assert.equal("missing", failure_of(library.query, path "none", "SELECT 1").kind)
  end)

  it("never changes what it reads", function()
    assert.equal("usage", failure_of(library.query, path "source", "DELETE FROM t").kind)
    assert.equal(3, library.query(path "source", "SELECT count(*) AS n FROM t")[1].n)
  end)

  it("copies to a new name with the source's mode", function()
    os.execute("chmod 640 " .. path "source")
    library.copy { from = path "source", to = path "copy" }
    assert.equal(3, library.query(path "copy", "SELECT count(*) AS n FROM t")[1].n)
    assert.equal("640", world.must("stat -c %a " .. path "copy"))
    assert.equal("copy\nsource", names())
  end)

  it("gives the copy mode and owner of what it replaces, and keeps that beside it", function()
    gate.call("change", make, "target", 7)
    os.execute(("chmod 604 %s; chown 1234:1235 %s 2>/dev/null"):format(path "target", path "target"))
    local dressed = world.must("stat -c '%a %u %g' " .. path "target")
    library.copy { from = path "source", to = path "target", replace = true }
    assert.equal(dressed, world.must("stat -c '%a %u %g' " .. path "target"))
    assert.equal(3, library.query(path "target", "SELECT count(*) AS n FROM t")[1].n)
    local kept = names():match "target%.before%-%d+"
    assert.equal(7, library.query(path(kept), "SELECT count(*) AS n FROM t")[1].n)
  end)

  it("is undone by its inverse, also twice and after half", function()
    gate.call("change", make, "target", 7)
    local verb = effect.find "sqlite.copy"
    local options = { from = path "source", to = path "target", replace = true }
    local inverse = effect.reading(verb.inverse, options)
    effect.call(table.unpack(inverse)) -- nothing happened yet
    assert.equal(7, library.query(path "target", "SELECT count(*) AS n FROM t")[1].n)
    library.copy(options)
    effect.call(table.unpack(inverse))
    effect.call(table.unpack(inverse))
    assert.equal(7, library.query(path "target", "SELECT count(*) AS n FROM t")[1].n)
    local undone = names():match "target%.undone%-%d+"
    assert.equal(3, library.query(path(undone), "SELECT count(*) AS n FROM t")[1].n)

    options = { from = path "source", to = path "new" }
    inverse = effect.reading(verb.inverse, options)
    effect.call(table.unpack(inverse))
    library.copy(options)
    effect.call(table.unpack(inverse))
    effect.call(table.unpack(inverse))
    assert.is_nil(io.open(path "new"))
    assert.is_truthy(names():match "new%.undone%-%d+")
  end)

  it("replaces nothing that somebody has open with changes beside it", function()
    local db = gate.call("change", fresh, "target", { pragmas = { journal_mode = "WAL" } })
    gate.call("change", db.run, db, { "CREATE TABLE t (a)" })
    local e = failure_of(library.copy, { from = path "source", to = path "target", replace = true })
    assert.equal("busy", e.kind)
    assert.matches("wal_checkpoint", e.hint)
    db:close()
  end)

  it("leaves no half behind when the source is damaged", function()
    world.write(path "noise", ("no database"):rep(1000))
    assert.equal("unknown", failure_of(library.copy, { from = path "noise", to = path "copy" }).kind)
    assert.equal("noise\nsource", names())
  end)

  it("refuses a target that exists, and one that is the source", function()
    world.write(path "copy", "precious")
    local e = failure_of(library.copy, { from = path "source", to = path "copy" })
    assert.equal("conflict", e.kind)
    assert.equal("precious", world.read(path "copy"))
    e = failure_of(library.copy, { from = path "source", to = path "source", replace = true })
    assert.matches("onto itself", e.message)
    assert.equal("usage", failure_of(library.copy, { from = path "source", too = "x" }).kind)
  end)
end)
