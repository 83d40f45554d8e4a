local gate = require "runbook.core.gate"
local sqlite = require "runbook.core.sqlite"
local task = require "runbook.core.task"
local world = require "spec.world"

local binary = (os.getenv "RUNBOOK_BUILD" or "build") .. "/runbook"

local function output(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read "a"
  return text, pipe:close()
end

local function write(path, text)
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(text))
end

local function read(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

local directory

local function path(name)
  return directory .. "/" .. name
end

-- As the body of a verb would call it.
local function gated(fn)
  return function()
    return gate.call("change", fn)
  end
end

local function fresh(name, options)
  options = options or {}
  options.create = true
  return assert(sqlite.open(path(name), options))
end

local function count(db, name)
  return assert(db:query("SELECT count(*) FROM " .. (name or "t")))[1][1]
end

local function failure(...)
  local value, message, code = ...
  assert.is_nil(value)
  return code, message
end

local function assert_ungated(words, fn)
  local ok, e = pcall(fn)
  assert.is_false(ok)
  assert.equal("ungated", e.code)
  assert.matches(words, e.message, 1, true)
end

before_each(function()
  directory = output("mktemp -d"):gsub("\n", "")
end)

after_each(function()
  os.execute("rm -rf " .. directory)
end)

describe("runbook.core.sqlite", function()
  it("opens nothing outside of a verb, and for reading only with permit to read", function()
    assert_ungated("outside of a verb", function() sqlite.open(path "x") end)
    gate.call("read", function()
      assert_ungated("a change outside of a verb", function() sqlite.open(path "x", { create = true }) end)
      assert.equal("ENOENT", (failure(sqlite.open(path "x", { readonly = true }))))
    end)
    assert.is_nil(io.open(path "x"))
  end)

  it("asks the gate at each call, too", function()
    local db = gate.call("change", function() return fresh "x" end)
    assert_ungated("a read outside of a verb", function() db:query "SELECT 1" end)
    gate.call("read", function()
      assert_ungated("a change outside of a verb", function() db:run { "CREATE TABLE t (a)" } end)
      assert_ungated("a change outside of a verb", function() db:backup(path "y") end)
      assert.same({ 1, n = 1 }, db:query("SELECT 1")[1])
    end)
    db:close()
  end)

  it("gives back the values it was given", gated(function()
    local db <close> = fresh "x"
    assert(db:run { "CREATE TABLE t (a)" })
    local values = { 1, -1, math.maxinteger, math.mininteger, 0.5, -1e300, "", "text", "nul\0inside", "\xff\xfe", "«é»" }
    for _, value in ipairs(values) do
      assert(db:run { "INSERT INTO t VALUES (?)", value })
    end
    for i, row in ipairs(db:query "SELECT a FROM t ORDER BY rowid") do
      assert.equal(values[i], row[1])
      assert.equal(math.type(values[i]), math.type(row[1]))
    end
  end))

  it("keeps NULL, false and true, wherever they stand", gated(function()
    local db <close> = fresh "x"
    assert(db:run { "CREATE TABLE t (a, b, c)" })
    assert(db:run { "INSERT INTO t VALUES (?, ?, ?)", nil, false, nil, n = 3 })
    assert(db:run { "INSERT INTO t VALUES (?, ?, ?)", true })
    local rows, names = db:query "SELECT * FROM t"
    assert.same({ { nil, 0, nil, n = 3 }, { 1, nil, nil, n = 3 } }, rows)
    assert.same({ "a", "b", "c" }, names)
    assert.same({ { b = 0 }, { a = 1 } }, db:records "SELECT * FROM t")
    assert.same({ { 1, n = 1 } }, (db:query("SELECT ? IS NULL", nil)))
  end))

  it("names the columns of an empty answer", gated(function()
    local db <close> = fresh "x"
    local rows, names = db:query "SELECT 1 AS one, 2 AS two WHERE 0"
    assert.same({}, rows)
    assert.same({ "one", "two" }, names)
  end))

  it("refuses wrong statements with ESQL, each in words", gated(function()
    local db <close> = fresh "x"
    assert(db:run { "CREATE TABLE t (a)" })
    for statement, words in pairs {
      ["SELEKT 1"] = "syntax error", ["SELECT b FROM t"] = "no such column", [""] = "no statement",
      ["-- nothing"] = "no statement", ["SELECT 1; SELECT 2"] = "more than one", ["SELECT\0 1"] = "NUL",
      ["INSERT INTO t VALUES (1)"] = "run does", ["INSERT INTO t VALUES (1) RETURNING a"] = "run does",
      ["PRAGMA user_version = 4"] = "refused", ["PRAGMA wal_checkpoint"] = "refused", ["BEGIN"] = "refused",
      ["ATTACH '" .. path "other" .. "' AS o"] = "refused", ["SELECT ?"] = "0 values for 1",
    } do
      local code, message = failure(db:query(statement))
      assert.equal("ESQL", code, statement)
      assert.matches(words, message, 1, true)
    end
    assert.equal("ESQL", (failure(db:query("SELECT 1", 2))))
    assert.equal("ESQL", (failure(db:run { "INSERT INTO t VALUES (?)", 1, 2 })))
    assert.equal("ESQL", (failure(db:run { "INSERT INTO t VALUES (?)", n = 0 })))
    assert.equal(0, count(db))
    assert.is_nil(io.open(path "other"))
    assert.same({ { 1, n = 1 } }, (db:query "SELECT 1; -- and no more;\n /* */ ;"))
  end))

  it("lets no run end the transaction it is part of", gated(function()
    local db <close> = fresh "x"
    assert(db:run { "CREATE TABLE t (a)" })
    for _, word in ipairs { "COMMIT", "ROLLBACK", "SAVEPOINT s", "BEGIN", "RELEASE one" } do
      assert.equal("ESQL", (failure(db:run({ "INSERT INTO t VALUES (1)" }, { word }))))
    end
    assert.equal(0, count(db))
  end))

  it("raises for what is no value, no statement, no path", gated(function()
    local db <close> = fresh "x"
    assert.error_matches(function() db:query("SELECT ?", {}) end, "a table cannot be kept in a database")
    assert.error_matches(function() db:run("DELETE FROM t") end, "table expected")
    assert.error_matches(function() db:run {} end, "a statement is")
    assert.error_matches(function() db:run() end, "no statement")
    assert.error_matches(function() sqlite.open "" end, "path is empty")
    assert.error_matches(function() sqlite.open "a\0b" end, "NUL")
    assert.error_matches(function() sqlite.open(path "y", { busy_timeout = -1 }) end, "busy_timeout")
    assert.error_matches(function() sqlite.open(path "y", { pragmas = { ["a;b"] = 1 } }) end, "plain values")
  end))

  it("runs all statements of a run or none", gated(function()
    local db <close> = fresh "x"
    local ok, changes = db:run({ "CREATE TABLE t (a UNIQUE)" }, { "INSERT INTO t VALUES (1), (2)" })
    assert.is_true(ok)
    assert.equal(2, changes)
    assert.equal("ECONSTRAINT", (failure(db:run({ "INSERT INTO t VALUES (3)" }, { "INSERT INTO t VALUES (1)" }))))
    assert.equal(2, count(db))
  end))

  it("takes back only the run that failed when many are committed together", gated(function()
    local db <close> = fresh "x"
    assert(db:run { "CREATE TABLE t (a UNIQUE)" })
    local tasks, answers = {}, {}
    for i = 1, 60 do
      tasks[i] = task.spawn(function()
        -- Every third wants two rows of which the second is taken.
        local second = i % 3 == 0 and { "INSERT INTO t VALUES (?)", i - 1 } or { "INSERT INTO t VALUES (?)", i + 1000 }
        answers[i] = { db:run({ "INSERT INTO t VALUES (?)", i }, second) }
      end)
    end
    task.join_all(tasks)
    for i = 1, 60 do
      if i % 3 == 0 then
        assert.equal("ECONSTRAINT", answers[i][3])
        assert.same({}, (db:query("SELECT a FROM t WHERE a = ?", i)))
      else
        assert.is_true(answers[i][1])
      end
    end
    assert.equal(80, count(db))
  end))

  it("finds whose fault it is when a commit as a whole is refused", gated(function()
    local db <close> = fresh("x", { pragmas = { foreign_keys = true } })
    assert(db:run({ "CREATE TABLE parent (id INTEGER PRIMARY KEY)" }, {
      "CREATE TABLE t (a REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
    }, { "INSERT INTO parent VALUES (1)" }))
    local tasks, answers = {}, {}
    for i = 1, 20 do
      tasks[i] = task.spawn(function()
        answers[i] = { db:run { "INSERT INTO t VALUES (?)", i == 7 and 99 or 1 } }
      end)
    end
    task.join_all(tasks)
    for i = 1, 20 do
      assert.equal(i == 7 and "ECONSTRAINT" or nil, answers[i][3])
    end
    assert.equal(19, count(db))
    assert.same({}, db:integrity())
  end))

  it("survives a statement that rolls the whole transaction back", gated(function()
    local db <close> = fresh "x"
    assert(db:run { "CREATE TABLE t (a UNIQUE)" })
    local tasks, answers = {}, {}
    for i = 1, 20 do
      tasks[i] = task.spawn(function()
        answers[i] = { db:run { "INSERT OR ROLLBACK INTO t VALUES (?)", i == 12 and 3 or i } }
      end)
    end
    task.join_all(tasks)
    for i = 1, 20 do
      assert.equal(i == 12 and "ECONSTRAINT" or nil, answers[i][3])
    end
    assert.equal(19, count(db))
  end))

  it("answers in the order it was asked", gated(function()
    local db <close> = fresh "x"
    assert(db:run { "CREATE TABLE t (a)" })
    local tasks, seen = {}, {}
    for i = 1, 30 do
      tasks[i] = task.spawn(function()
        if i % 3 == 0 then
          local rows = count(db)
          seen[#seen + 1] = rows
        else
          assert(db:run { "INSERT INTO t VALUES (?)", i })
        end
      end)
    end
    task.join_all(tasks)
    assert.same({ 2, 4, 6, 8, 10, 12, 14, 16, 18, 20 }, seen)
  end))

  it("stops an answer that grows over the limit", gated(function()
    local db <close> = fresh("x", { result_limit = 10000 })
    local code, message = failure(db:query "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n")
    assert.equal("ELIMIT", code)
    assert.matches("over 10000 bytes", message)
    assert.same({ { 1, n = 1 } }, (db:query "SELECT 1"))
  end))

  it("says EREADONLY, ECORRUPT, EISDIR and ENOENT for what they are", gated(function()
    fresh("x"):close()
    local db <close> = assert(sqlite.open(path "x", { readonly = true }))
    assert.equal("EREADONLY", (failure(db:run { "CREATE TABLE t (a)" })))
    write(path "noise", ("this is no database\n"):rep(1000))
    assert.equal("ECORRUPT", (failure(sqlite.open(path "noise"))))
    assert.equal("EISDIR", (failure(sqlite.open(directory))))
    assert.equal("ENOENT", (failure(sqlite.open(path "none"))))
    assert.equal("ENOENT", (failure(sqlite.open(path "none/x", { create = true }))))
    assert.equal("ENOTSUP", (failure(sqlite.open(path "x", { pragmas = { journal_mode = "memry" } }))))
  end))

  it("makes a file that only its owner may read, and takes every name for a name", gated(function()
    for _, name in ipairs { ":memory:", "file:x?mode=memory", "a b'c" } do
      local db <close> = fresh(name)
      assert(db:run { "CREATE TABLE t (a)" })
      assert.equal("600\n", (output(("stat -c %%a '%s'"):format(path(name):gsub("'", [['\'']])))))
    end
  end))

  it("waits for somebody else's lock, and says EBUSY when that takes too long", gated(function()
    local one <close> = fresh "x"
    local impatient <close> = assert(sqlite.open(path "x", { busy_timeout = 0 }))
    local patient <close> = assert(sqlite.open(path "x", { busy_timeout = 60 }))
    assert(one:run { "CREATE TABLE t (a)" })
    local long = task.spawn(function()
      assert(one:run {
        "INSERT INTO t WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) SELECT i FROM n",
      })
    end)
    local code
    repeat
      local _
      _, _, code = impatient:run { "DELETE FROM t WHERE a = 0" }
    until code or long:done()
    assert.equal("EBUSY", code)
    assert.is_true(patient:run { "DELETE FROM t WHERE a = 1" })
    task.join_all { long }
    assert.equal(999999, count(one))
  end))

  it("ends what is asked of it after it was closed, but carries out what was sent before", gated(function()
    local db = fresh "x"
    assert(db:run { "CREATE TABLE t (a)" })
    local endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    local answers = {}
    local tasks = {
      task.spawn(function() answers[1] = { db:query(endless) } end),
      task.spawn(function() answers[2] = { db:run { "INSERT INTO t VALUES (1)" } } end),
      task.spawn(function() answers[3] = { db:integrity() } end),
    }
    task.sleep(0)
    db:close()
    db:close()
    task.join_all(tasks)
    assert.equal("ECLOSED", answers[1][3])
    assert.is_true(answers[2][1])
    assert.equal("ECLOSED", answers[3][3])
    assert.error_matches(function() db:query "SELECT 1" end, "database is closed")
    local again <close> = assert(sqlite.open(path "x"))
    assert.equal(1, count(again))
  end))

  it("stops a query whose task was cancelled, and carries on", gated(function()
    local db <close> = fresh "x"
    local t = task.spawn(function()
      db:query "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    end)
    task.sleep(0)
    t:cancel()
    task.join_all { t }
    assert.same({ { 1, n = 1 } }, (db:query "SELECT 1"))
  end))

  it("carries out a run whose task was cancelled while it waited", gated(function()
    local db <close> = fresh "x"
    assert(db:run { "CREATE TABLE t (a)" })
    local tasks = {}
    for i = 1, 20 do
      tasks[i] = task.spawn(function() db:run { "INSERT INTO t VALUES (?)", i } end)
    end
    task.sleep(0)
    for _, t in ipairs(tasks) do
      t:cancel()
    end
    task.join_all(tasks)
    assert.equal(20, count(db))
  end))

  it("leaves nothing behind when handles and requests are only forgotten", gated(function()
    for i = 1, 30 do
      local db = fresh("x" .. i)
      local t = task.spawn(function() db:run { "CREATE TABLE t (a)" } end)
      task.sleep(0)
      t:cancel()
      task.join_all { t }
    end
    collectgarbage()
    collectgarbage()
    for i = 1, 30 do
      local db <close> = assert(sqlite.open(path("x" .. i)))
      assert.equal(0, count(db))
    end
  end))

  describe("backup", function()
    for _, mode in ipairs { "WAL", "DELETE" } do
      it("copies one moment of a database that is written to all the while, in " .. mode, gated(function()
        local db <close> = fresh("x", { pragmas = { journal_mode = mode, synchronous = "OFF" } })
        assert(db:run({ "CREATE TABLE t (a, b)" }, { "CREATE TABLE total (n)" }, { "INSERT INTO total VALUES (20000)" }, {
          "INSERT INTO t WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
            .. "SELECT i, hex(randomblob(200)) FROM n",
        }))
        local source <close> = assert(sqlite.open(path "x", { readonly = true }))
        local stop = false
        local writer = task.spawn(function()
          while not stop do
            assert(db:run({ "INSERT INTO t VALUES (0, hex(randomblob(900)))" }, { "UPDATE total SET n = n + 1" }))
          end
        end)
        for i = 1, 3 do
          assert.is_true(source:backup(path("copy" .. i)))
        end
        stop = true
        task.join_all { writer }
        assert.equal("copy1\ncopy2\ncopy3\n", (output("cd " .. directory .. " && ls | grep copy")))
        for i = 1, 3 do
          local copy <close> = assert(sqlite.open(path("copy" .. i)))
          assert.same({}, copy:integrity())
          assert.equal(copy:query("SELECT n FROM total")[1][1], count(copy))
        end
      end))
    end

    it("never writes over what is there, and leaves no half", gated(function()
      local db <close> = fresh "x"
      write(path "there", "precious")
      assert.equal("EEXIST", (failure(db:backup(path "there"))))
      assert.equal("precious", read(path "there"))
      assert.equal("ENOENT", (failure(db:backup(path "none/there"))))
    end))

    it("delivers no copy of a damaged database", gated(function()
      local db <close> = fresh "x"
      assert(db:run({ "CREATE TABLE t (a)" }, { "CREATE INDEX i ON t (a)" }, {
        "INSERT INTO t WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i FROM n",
      }))
      local bytes = read(path "x")
      write(path "x", bytes:sub(1, 8192) .. ("\xa5"):rep(4096) .. bytes:sub(12289))
      local damaged <close> = assert(sqlite.open(path "x", { readonly = true }))
      assert.is_true(#damaged:integrity() > 0)
      assert.equal("ECORRUPT", (failure(damaged:backup(path "copy"))))
      assert.is_nil(io.open(path "copy"))
    end))

    it("shows how far it is", gated(function()
      local db <close> = fresh "x"
      assert.same({ 0, 0 }, { db:progress() })
      assert(db:run({ "CREATE TABLE t (a)" }, {
        "INSERT INTO t WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
          .. "SELECT hex(randomblob(1000)) FROM n",
      }))
      local copy = task.spawn(function() assert(db:backup(path "copy")) end)
      local last, total = 0, 0
      while not copy:done() do
        local done, of = db:progress()
        assert.is_true(of == 0 or (done >= last and done <= of))
        last, total = math.max(last, done), math.max(total, of)
        task.sleep(0)
      end
      task.join_all { copy }
      assert.is_true(total > 1000)
      assert.same({ 0, 0 }, { db:progress() })
    end))
  end)

  it("finds references to rows that are not there", gated(function()
    local db <close> = fresh "x"
    assert(db:run({ "CREATE TABLE parent (id INTEGER PRIMARY KEY)" }, { "CREATE TABLE t (a REFERENCES parent)" },
      { "INSERT INTO t VALUES (5)" }))
    assert.same({ "t row 1: no such row in parent" }, db:integrity())
  end))

  describe("on a disk that is full", function()
    it("says EFULL, keeps what it has, and goes on when there is room", gated(function()
      local db <close> = fresh("x", { pragmas = { max_page_count = 20 } })
      assert(db:run { "CREATE TABLE t (a)" })
      local kept, code = 0
      repeat
        local ok, _, failed = db:run { "INSERT INTO t VALUES (zeroblob(3000))" }
        kept, code = kept + (ok and 1 or 0), failed
      until not ok
      assert.equal("EFULL", code)
      assert.equal(kept, count(db))
      assert(db:run { "DELETE FROM t WHERE rowid % 2 = 0" })
      assert.is_true((db:run { "INSERT INTO t VALUES (zeroblob(3000))" }))
      assert.same({}, db:integrity())
    end))

    it("fails each of many together that does not fit, and none that does", gated(function()
      local db <close> = fresh("x", { pragmas = { max_page_count = 30 } })
      assert(db:run { "CREATE TABLE t (a)" })
      local tasks, done, full = {}, 0, 0
      for i = 1, 40 do
        tasks[i] = task.spawn(function()
          local ok, _, code = db:run { "INSERT INTO t VALUES (zeroblob(?))", i % 2 == 0 and 12000 or 100 }
          assert(ok or code == "EFULL")
          done, full = done + (ok and 1 or 0), full + (ok and 0 or 1)
        end)
      end
      task.join_all(tasks)
      assert.is_true(full > 0 and done >= 20)
      assert.equal(done, count(db))
      assert.same({}, db:integrity())
    end))

    it("keeps what was committed on a file system that really is", gated(function()
      local disk <close> = world.filesystem { size = "600k", kind = "tmpfs" }
      local full = disk.path
      local db <close> = assert(sqlite.open(full .. "/x", {
        create = true, pragmas = { journal_mode = "WAL", synchronous = "FULL" },
      }))
      assert(db:run { "CREATE TABLE t (a)" })
      local kept, code = 0
      repeat
        local ok, _, failed = db:run { "INSERT INTO t VALUES (zeroblob(5000))" }
        kept, code = kept + (ok and 1 or 0), failed
      until not ok
      assert.equal("EFULL", code)
      assert.is_true(kept > 3)
      assert.equal(kept, count(db))
      assert.equal("EFULL", (failure(db:backup(full .. "/copy"))))
      assert.is_nil(io.open(full .. "/copy"))
      assert.same({}, db:integrity())
    end))
  end)

  -- A parent that answers at each point, or kills there instead.
  describe("a journal that is killed", function()
    local function killed_at(n, pragmas, statement)
      write(path "child.lua", ([[
        local sqlite, gate = require "runbook.core.sqlite", require "runbook.core.gate"
        gate.call("change", function()
          local db = assert(sqlite.open("%s", { create = true, journal = true, pragmas = %s }))
          for i = 1, 5 do
            assert(db:run({ "CREATE TABLE IF NOT EXISTS t (a)" }, { "%s", i }))
            io.write("told ", i, "\n")
            io.flush()
          end
        end)
      ]]):format(path "journal", pragmas or '{ journal_mode = "WAL", synchronous = "FULL" }',
        statement or "INSERT INTO t VALUES (?)"))
      write(path "parent.py", [[
import os, signal, socket, subprocess, sys
ours, theirs = socket.socketpair()
child = subprocess.Popen(sys.argv[2:], pass_fds=[theirs.fileno()],
                         env=dict(os.environ, RUNBOOK_POINTS=str(theirs.fileno())))
theirs.close()
points = ours.makefile("r")
for n, name in enumerate(iter(points.readline, ""), 1):
    print("point", name, end="", flush=True)
    if n == int(sys.argv[1]):
        child.send_signal(signal.SIGKILL)
        break
    ours.send(b".")
child.wait()
]])
      os.remove(path "journal")
      return (output(("python3 %s %d %s lua %s"):format(path "parent.py", n, binary, path "child.lua")))
    end

    it("names a point before and after each commit", function()
      assert.equal(("point commit\npoint committed\ntold %d\n"):rep(5):format(1, 2, 3, 4, 5), killed_at(0))
    end)

    it("leaves half a transaction that only a writer may take back", gated(function()
      killed_at(3, '{ journal_mode = "DELETE", cache_size = 5 }',
        "INSERT INTO t WITH RECURSIVE n (i) AS (SELECT ? UNION ALL SELECT i + 1 FROM n WHERE i < 3000) SELECT hex(randomblob(99)) FROM n")
      assert.is_truthy(io.open(path "journal-journal"))
      local code, message = failure(sqlite.open(path "journal", { readonly = true }))
      assert.equal("EREADONLY", code)
      assert.matches("last writer died in the middle of a transaction", message)
      local db <close> = assert(sqlite.open(path "journal"))
      assert.same({}, db:integrity())
      assert.equal(3000, count(db))
      local reader <close> = assert(sqlite.open(path "journal", { readonly = true }))
      assert.equal(3000, count(reader))
    end))

    it("has everything it said it had, at every point", gated(function()
      for n = 1, 10 do
        local seen = killed_at(n)
        local _, told = seen:gsub("told", "")
        local _, committed = seen:gsub("committed", "")
        local db <close> = assert(sqlite.open(path "journal"))
        assert.same({}, db:integrity())
        local tables = db:query "SELECT count(*) FROM sqlite_schema"
        local kept = tables[1][1] == 0 and 0 or count(db)
        assert.is_true(kept == committed and told <= kept, ("point %d: kept %d, told %d"):format(n, kept, told))
      end
    end))
  end)
end)
