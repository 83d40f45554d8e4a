local redact = require "runbook.core.redact"
local secret = require "runbook.core.secret"

describe("runbook.core.secret", function()
  it("prints as its name, alone and joined", function()
    local s = secret.new("db_password", "correct horse battery")
    assert.equal("«secret:db_password»", tostring(s))
    assert.equal("pw=«secret:db_password»;", "pw=" .. s .. ";")
    assert.equal("«secret:db_password»1", s .. 1)
    assert.equal("«secret:db_password»«secret:db_password»", s .. s)
    assert.equal("<«secret:db_password»>", ("<%s>"):format(s))
    assert.equal("db_password", s:name())
    assert.is_true(secret.is(s))
    assert.is_false(secret.is "db_password")
  end)

  it("tells neither length nor order, and equals only itself", function()
    local s, t = secret.new("a", "swordfish"), secret.new("a", "swordfish")
    assert.error_matches(function() return #s end, "no length and no order")
    assert.error_matches(function() return s < t end, "no length and no order")
    assert.error_matches(function() return s <= "swordfish" end, "no length and no order")
    assert.is_false(s == t)
    assert.is_true(s == s)
    assert.error_matches(function() return s .. nil end, "concatenate a nil")
    assert.error_matches(function() return s .. {} end, "concatenate a table")
    assert.is_nil(s.bytes)
    assert.error(function() s.x = 1 end)
  end)

  it("is known to the host's redactor at once", function()
    local _, redacted = secret.new("fresh", "Tr0ub4dor&3")
    assert.is_true(redacted)
    assert.equal("login: «secret:fresh»", redact.host():text "login: Tr0ub4dor&3")
    local _, short = secret.new("pin", "123")
    assert.is_false(short)
  end)

  it("may be made of another one, and of any bytes", function()
    local s = secret.new("copy", secret.new("original", "\0\xff nul and all\n"))
    assert.equal("«secret:copy»", tostring(s))
    assert.equal("«secret:empty»", tostring(secret.new("empty", "")))
    assert.error_matches(function() secret.new("x", {}) end, "string expected")
  end)

  it("may be part of a longer one, as it is or as base64, which Lua does not see either", function()
    local digest = require "runbook.core.digest"
    local s = secret.new("part", "hunter2 and more")
    local whole = secret.join("whole", { "{\"a\":\"", secret.base64(s), "\"}", s, "" })
    assert.equal("«secret:whole»", tostring(whole))
    local bytes = "{\"a\":\"aHVudGVyMiBhbmQgbW9yZQ==\"}hunter2 and more"
    assert.equal(digest.hmac("sha256", "k", bytes), digest.hmac("sha256", "k", whole))
    assert.equal(digest.hmac("sha256", "k", ""), digest.hmac("sha256", "k", secret.join("none", {})))
    assert.matches("^it was «secret:part»=*Q*=*$", (redact.host():text "it was aHVudGVyMiBhbmQgbW9yZQ=="))
    assert.error_matches(function() secret.join("x", { 1, {} }) end, "string expected")
    assert.error_matches(function() secret.join("x", { secret.later "y" }) end, "have not been read")
    assert.error_matches(function() secret.base64(secret.later "y") end, "have not been read")
    assert.error_matches(function() secret.base64 "plain" end, "runbook.secret expected")
  end)

  it("is kept out of swap and core dumps, and wiped when it is gone", function()
    local function locked()
      for line in io.lines "/proc/self/status" do
        local kilobytes = line:match "^VmLck:%s*(%d+)"
        if kilobytes then
          return tonumber(kilobytes)
        end
      end
    end
    local function undumped()
      local kilobytes, size = 0, 0
      for line in io.lines "/proc/self/smaps" do
        size = tonumber(line:match "^Size:%s*(%d+)") or size
        kilobytes = kilobytes + (line:find "^VmFlags:.* dd" and size or 0)
      end
      return kilobytes
    end
    local function sanitized() -- whose mlock does nothing
      for line in io.lines "/proc/self/maps" do
        if line:find("libasan", 1, true) then
          return true
        end
      end
      return false
    end
    collectgarbage()
    collectgarbage()
    local before, dumped = locked(), undumped()
    local s = secret.new("locked", "nobody swaps this")
    assert.equal(before + (sanitized() and 0 or 4), locked())
    assert.equal(dumped + 4, undumped())
    assert.equal("«secret:locked»", tostring(s))
    s = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.equal(before, locked())
    assert.equal(dumped, undumped())
  end)
end)

describe("a secret whose bytes come later", function()
  it("prints as its name, and no program gets it before it is known", function()
    local s = secret.later "token"
    assert.equal("«secret:token»", tostring(s))
    assert.is_false(s:known())
    assert.error_matches(function() redact.new():add("x", s) end, "bytes of secret token have not been read yet")
    assert.is_true(secret.fill(s, "t0k3n-of-later"))
    assert.is_true(s:known())
    assert.equal("«secret:token»", redact.host():text "t0k3n-of-later")
    assert.error_matches(function() secret.fill(s, "another") end, "has its bytes already")
  end)
end)

describe("runbook.secret", function()
  local ask = require "runbook.ask"
  local effect = require "runbook.effect"
  local errors = require "runbook.errors"
  local library = require "runbook.secret"
  local task = require "runbook.core.task"

  local binary = (os.getenv "RUNBOOK_BUILD" or "build") .. "/runbook"
  local directory

  local function output(command)
    local pipe = assert(io.popen(command .. " 2>&1"))
    return pipe:read "a"
  end

  local function write(name, text)
    local path = directory .. "/" .. name
    local file <close> = assert(io.open(path, "wb"))
    assert(file:write(text))
    os.execute("chmod 600 " .. path)
    return path
  end

  -- What redaction hides is what the secret holds.
  local function holds(s, bytes)
    assert.equal("«secret:" .. s:name() .. "»", redact.host():text(bytes))
    assert.equal(library.digest(secret.new("same", bytes), "key"), library.digest(s, "key"))
  end

  local function failure_of(text, options)
    local ok, e = pcall(library.resolve, text, options or { name = "pw", base = directory })
    assert.is_false(ok)
    assert.is_true(errors.is(e), tostring(e))
    return e
  end

  setup(function()
    directory = output("mktemp -d"):gsub("\n", "")
  end)

  teardown(function()
    os.execute("rm -rf " .. directory)
  end)

  it("reads a file without its last line end, relative to where the reference stands", function()
    write("pw", "file-secret-1\n")
    holds(library.resolve("file:pw", { name = "pw1", base = directory }), "file-secret-1")
    write("two", "line one of two\r\nline two of two\r\n")
    holds(library.resolve("file:" .. directory .. "/two", { name = "pw2" }), "line one of two\r\nline two of two")
    assert.equal("missing", failure_of("file:none").kind)
    write("empty", "\n")
    assert.equal("missing", failure_of("file:empty").kind)
    write("-o", "dash-secret")
    holds(library.resolve("file:-o", { name = "pw3", base = directory }), "dash-secret")
  end)

  it("reads one line of an environment file as a shell would", function()
    write("env", table.concat({
      "# PW=commented", "export PW='it is # quoted'", 'DOUBLE="a \\"b\\" \\n c"', "PLAIN = plain-value  # why", "EQ=a=b=c",
      "TWICE=first-one", "TWICE=second-one", "",
    }, "\n"))
    for key, bytes in pairs {
      PW = "it is # quoted", DOUBLE = 'a "b" \n c', PLAIN = "plain-value", EQ = "a=b=c", TWICE = "second-one",
    } do
      holds(library.resolve("env-file:env#" .. key, { name = key, base = directory }), bytes)
    end
    local e = failure_of "env-file:env#P"
    assert.equal("missing", e.kind)
    assert.matches("P=", e.message)
  end)

  it("says when everybody may read the file", function()
    local events = require "runbook.events"
    local seen = {}
    local unsubscribe = events.subscribe(function(e) seen[#seen + 1] = e.text end)
    os.execute("chmod 644 " .. write("open", "open-secret"))
    library.resolve("file:open", { name = "open", base = directory })
    library.resolve("file:pw", { name = "closed", base = directory })
    unsubscribe()
    assert.equal(1, #seen)
    assert.matches("everybody on this machine may read it %(mode 0644%)", seen[1])
  end)

  it("refuses what is no reference, without showing it", function()
    for _, text in ipairs { "hunter2hunter2", "sops:file", "env-file:#KEY", "http:x", "file:", "ask me" } do
      local e = failure_of(text)
      assert.equal("usage", e.kind)
      assert.is_nil(e.message:find("hunter2", 1, true))
    end
  end)

  it("reads nothing until it is needed, and then once for all who need it", function()
    local path = write("late", "late-secret\n")
    local s = library.reference("file:late", { name = "late", base = directory })
    os.execute("rm " .. path)
    assert.is_false(s:known())
    write("late", "later-secret\n")
    local tasks = {}
    for i = 1, 5 do
      tasks[i] = task.spawn(library.ready, s)
    end
    task.join_all(tasks)
    os.execute("rm " .. path)
    for i = 1, 5 do
      local ok, same = tasks[i]:result()
      assert.is_true(ok and same == s)
    end
    holds(s, "later-secret")
  end)

  it("is read again by the next who needs it when reading failed", function()
    local s = library.reference("file:retry", { name = "retry", base = directory })
    assert.is_false((pcall(library.ready, s)))
    write("retry", "retry-secret")
    holds(library.ready(s), "retry-secret")
  end)

  it("is read by the gate before the body of a verb runs, wherever it is among the arguments", function()
    write("verb", "verb-secret")
    local verb = effect.verb {
      name = "spec.secret", class = "read",
      body = function(_, o) return o.headers.token:known() and o.stdin:known() end,
    }
    assert.is_true(verb("x", {
      stdin = library.reference("file:verb", { name = "stdin", base = directory }),
      headers = { token = library.reference("file:verb", { name = "header", base = directory }) },
    }))
  end)

  it("tells rotated secrets apart without telling them", function()
    local old, new = secret.new("old", "rotate-me-1"), secret.new("new", "rotate-me-2")
    assert.is_true(library.digest(old, "run key") ~= library.digest(new, "run key"))
    assert.is_true(library.digest(old, "run key") ~= library.digest(old, "other key"))
    assert.matches("^%x+$", library.digest(old, "run key"))
  end)

  it("asks at the terminal without echo, and says so where nobody can be asked", function()
    ask.use(nil)
    local e = failure_of "ask"
    assert.equal("usage", e.kind)
    assert.matches("file:PATH", e.hint)
    local echoed
    ask.use {
      write = function() end, width = function() return 80 end, now = os.time,
      read = function(_, echo)
        echoed = echo
        return "typed-secret"
      end,
    }
    local s = library.resolve("ask", { name = "typed" })
    ask.use(nil)
    assert.is_false(echoed)
    holds(s, "typed-secret")
  end)

  -- Programs are found by PATH and identities by HOME, so these run in a process of their own.
  local function in_child(reference, path)
    local script = write("child.lua", ([[
      local secret, errors = require "runbook.secret", require "runbook.errors"
      local ok, s = pcall(secret.resolve, %q, { name = "pw", base = %q })
      if ok then
        print(s, secret.digest(s, "key"))
      else
        print(s.kind, s.code, s.message, s.hint)
      end
    ]]):format(reference, directory))
    return output(("cd / && env -u SOPS_AGE_KEY_FILE -u XDG_CONFIG_HOME HOME=%s/home PATH=%s %s lua %s"):format(
      directory, path or "$PATH", output("realpath " .. binary):gsub("\n", ""), script))
  end

  local function expected(bytes)
    return ("«secret:pw»\t%s\n"):format(library.digest(secret.new("same", bytes), "key"))
  end

  it("has age decrypt a file with the identity sops would use, and with an ssh key", function()
    os.execute(("mkdir -p %s/home/.config/sops/age %s/home/.ssh"):format(directory, directory))
    local recipient = output(("age-keygen -o %s/home/.config/sops/age/keys.txt"):format(directory)):match "age1%w+"
    write("plain", "age-secret-of-two\nlines\n")
    os.execute(("cd %s && age -r %s -o sealed.age plain"):format(directory, recipient))
    assert.equal(expected "age-secret-of-two\nlines", in_child "age:sealed.age")

    os.execute(("cd %s && ssh-keygen -q -t ed25519 -N '' -f home/.ssh/id_ed25519 && age -R home/.ssh/id_ed25519.pub -o ssh.age plain")
      :format(directory))
    assert.equal(expected "age-secret-of-two\nlines", in_child "age:ssh.age")

    os.execute(("rm -r %s/home/.config %s/home/.ssh"):format(directory, directory))
    local failed = in_child "age:sealed.age"
    assert.matches("^auth\tnil\tage could not decrypt it: ", failed)
    assert.matches("SOPS_AGE_KEY_FILE", failed)
  end)

  it("says which program is missing", function()
    assert.matches("^missing\tENOENT\t.*\tinstall sops on this machine", in_child("sops:f#k", "/nonexistent"))
  end)

  it("hands sops the key as a path into the file, and no shell in between", function()
    os.execute(("mkdir -p %s/bin"):format(directory))
    local sops = write("bin/sops", ([[#!/bin/sh
      printf '%%s\n' "$@" > %s/asked
      echo '$(sops)-secret'
    ]]):format(directory))
    os.execute("chmod 755 " .. sops)
    for key, path in pairs {
      ["db.password"] = '["db"]["password"]', ["users.0.name"] = '["users"][0]["name"]', ['["a.b"]["c"]'] = '["a.b"]["c"]',
      ["it's"] = '["it\'s"]',
    } do
      assert.equal(expected "$(sops)-secret", in_child("sops:enc file.yaml#" .. key, directory .. "/bin:$PATH"))
      local asked <close> = assert(io.open(directory .. "/asked"))
      assert.equal(("--decrypt\n--extract\n%s\n%s/enc file.yaml\n"):format(path, directory), asked:read "a")
    end
  end)

  it("says what sops said when it refuses", function()
    local sops = write("bin/sops", "#!/bin/sh\necho 'Failed to get the data key' >&2; exit 128\n")
    os.execute("chmod 755 " .. sops)
    assert.matches("^auth\tnil\tsops could not decrypt it: Failed to get the data key",
      in_child("sops:f#k", directory .. "/bin:$PATH"))
  end)
end)

describe("a run that is given a secret", function()
  local digest = require "runbook.core.digest"
  local world = require "spec.world"

  local BYTES = "Sup3r'secret \"token\"/é"

  local function run(verb, body, more)
    local folder = world.folder "secret"
    world.write(folder .. "/token", BYTES .. "\n")
    world.must("chmod 600 " .. folder .. "/token")
    world.write(folder .. "/book.lua", ([[
      local rb = require "runbook"
      local place = require "runbook.place"
      local p = rb.params { { "token", "secret", "what opens the door" } }
      rb.step("use", "Use it", function()
        %s
      end)
    ]]):format(body))
    local output = world.sh(("cd %s && %s %s book.lua -p token=file:%s --state state; echo exit $?"):format(
      folder, world.must("realpath " .. world.runbook), verb, more or "token"))
    local kept = world.sh(("cd %s && find state attached.json -type f -exec cat {} + 2>/dev/null"):format(folder))
    return output, kept, folder
  end

  local function assert_hidden(text)
    for _, spelled in ipairs {
      BYTES, digest.base64(BYTES):sub(1, -3), (BYTES:gsub('"', '\\"')), (BYTES:gsub("'", [['\'']])), "Sup3r",
      digest.base64("x" .. BYTES):sub(3, 20), digest.base64("xy" .. BYTES):sub(4, 20),
    } do
      assert.is_nil(text:find(spelled, 1, true), spelled)
    end
  end

  it("shows and keeps none of it, however a program spells it", function()
    local output, kept = run("run", [=[
        local _, out, err = place.here:exec {
          argv = { "sh", "-c", [[
            read -r t
            printf '%s\n' "$t" "x$t" >&2
            printf '%s' "$t" | base64; printf '%s' "x$t" | base64
            printf '%s\n' "$t"
          ]] }, stdin = p.token,
        }
        rb.say("it is " .. p.token .. out .. err)
        rb.attach({ out = out, err = err }, "attached.json")]=])
    assert.matches("exit 0$", output)
    assert.matches("it is «secret:token»", output)
    assert_hidden(output)
    assert_hidden(kept)
  end)

  it("keeps none of it when a command fails with it on its lips", function()
    local output, kept = run("run", [=[
        place.here:run { argv = { "sh", "-c", "cat >&2; exit 3" }, stdin = p.token }]=])
    assert.matches("exit 1$", output)
    assert_hidden(output)
    assert_hidden(kept)
  end)

  it("refuses to keep it as a result", function()
    local output, kept = run("run", [=[
        local _, out = place.here:exec { argv = { "cat" }, stdin = p.token }
        return { deep = { out } }]=])
    assert.matches("the result of step `use`: the bytes of «secret:token» are in it", output)
    assert.matches("exit 1$", output)
    assert_hidden(output)
    assert_hidden(kept)
  end)

  it("is planned without reading it", function()
    local output = run("plan", [=[
        place.here:run { argv = { "true" }, stdin = p.token }]=], "/nonexistent")
    assert.matches("exit 0$", output)
    assert.matches("token   «secret:token»", output)
  end)
end)
