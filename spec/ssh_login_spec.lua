-- Servers that ask: who answers, what is shown, and what happens where nobody does.

local ask = require "runbook.ask"
local command = require "spec.support.command"
local core = require "runbook.core.ssh"
local errors = require "runbook.errors"
local events = require "runbook.events"
local gate = require "runbook.core.gate"
local login = require "runbook.ssh.login"
local params = require "runbook.params"
local retry = require "runbook.retry"
local secret = require "runbook.secret"
local ssh = require "runbook.ssh"
local task = require "runbook.task"
local time = require "runbook.core.time"
local world = require "spec.world"

local TWO = { "pam_unix.so nodelay", "MODULE echo info=Look_at_your_phone. Verification_code:_ 492817" }

local function raised(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_true(errors.is(err), tostring(err))
  return err
end

-- A server that asks, and asks only.
local function asking(name, pam, config)
  local lines = { "PubkeyAuthentication no", "PasswordAuthentication no", "KbdInteractiveAuthentication yes" }
  return world.sshd { name = name, pam = pam, config = table.move(config or {}, 1, #(config or {}), #lines + 1, lines) }
end

local function host(m, o)
  local given = { m.address, port = m.port, user = "rb-plain", host_key = m.fingerprint, name = m.name }
  for key, value in pairs(o or {}) do
    given[key] = value
  end
  return ssh.host(given)
end

-- Somebody at the terminal. Answers are strings, or a function that is called and answers later; then the input ends.
local function sit(answers)
  local seen = { text = "", prompts = {}, echo = {}, most = 0, now = 0 }
  local n = 0
  ask.use {
    write = function(text) seen.text = seen.text .. text end,
    read = function(prompt, echo, name)
      seen.now = seen.now + 1
      seen.most = math.max(seen.most, seen.now)
      local _ <close> = setmetatable({}, { __close = function() seen.now = seen.now - 1 end })
      n = n + 1
      seen.text = seen.text .. prompt .. "\n"
      table.insert(seen.prompts, prompt)
      table.insert(seen.echo, echo)
      local answer = answers[n]
      if type(answer) == "function" then
        answer = answer()
      end
      return answer and (secret.new(name, answer))
    end,
    width = function() return 90 end, now = time.utc,
  }
  return seen
end

local function forget_connections()
  ssh.close()
  ask.use(nil)
end

local first_delay
setup(function() first_delay, retry.first_delay = retry.first_delay, 0.02 end)
teardown(function() retry.first_delay = first_delay end)
after_each(forget_connections)

describe("a server that asks two things", function()
  local m

  setup(function() m = asking("two", TWO) end)
  teardown(function() m:close() end)

  it("gets its answers from the person at the terminal, one after the other, and only once", function()
    local seen, told = sit { m.password, "492817" }, {}
    local unsubscribe = events.subscribe(function(e) told[#told + 1] = events.encode(e) end)
    local at = host(m)
    local fns = {}
    for i = 1, 25 do -- more than fit into one connection
      fns[i] = function() return at:query { "echo", i } end
    end
    assert.equal("25", task.all(fns)[25])
    at:run { "echo", "492817" }
    unsubscribe()
    assert.same({ "   Password: ", "   Verification code: " }, seen.prompts)
    assert.same({ false, true }, seen.echo)
    assert.matches("   two asks, before it lets rb%-plain in:\n   Password: \n", seen.text)
    assert.matches("   Look at your phone%.\n   Verification code: ", seen.text)
    assert.is_nil(table.concat(told):find("492817", 1, true))
    assert.is_nil(table.concat(told):find(m.password, 1, true))
  end)

  it("asks again after a wrong answer, three times in all", function()
    local seen = sit { "wrong", m.password, "492817" }
    assert.equal("x", host(m):query { "echo", "x" })
    assert.same({ "   Password: ", "   Password: ", "   Verification code: " }, seen.prompts)
    assert.matches("two did not take that%. Once more:", seen.text)
    ssh.close()
    seen = sit { m.password, "000000", m.password, "000001", m.password, "000002", m.password, "492817" }
    local at = host(m)
    local err = raised(at.query, at, { "true" })
    assert.same({ "auth", "EAUTH", 6 }, { err.kind, err.code, #seen.prompts })
    assert.matches("keyboard%-interactive %(3 times%)", err.message)
  end)

  it("is an error where nobody can be asked, and is not told a wrong answer", function()
    local at, before = host(m), #m:log()
    local err = raised(at.query, at, { "true" })
    assert.same({ "auth", "EPROMPT", "two" }, { err.kind, err.code, err.target })
    assert.equal("two asks `Password:`, and nobody can be asked here", err.message)
    assert.matches("answers: %[sops:FILE#KEY, ...%]", err.hint)
    assert.is_nil(m:log():sub(before):find("Failed keyboard-interactive", 1, true))
    local half = host(m, { answers = { (secret.new("half", m.password)) } })
    assert.equal("two asks `Verification code:`, and nobody can be asked here", raised(half.query, half, { "true" }).message)
  end)

  it("takes answers from the parameter file, and asks for those it has not", function()
    local folder = world.folder "answers"
    world.write(folder .. "/password", m.password .. "\n")
    world.write(folder .. "/env", "CODE=492817\n")
    world.must(("chmod 600 %s/password %s/env"):format(folder, folder))
    local function given(answers)
      world.write(folder .. "/p.yaml", ("old:\n  ssh: %s\n  port: %d\n  user: rb-plain\n  host_key: %s\n  answers: %s\n"):format(
        m.address, m.port, m.fingerprint, answers))
      return params.load({ declaration = { { "old", "host", "the old one" } }, files = { folder .. "/p.yaml" } }).old
    end
    assert.equal("x", given("[file:password, 'env-file:env#CODE']"):query { "echo", "x" })
    ssh.close()
    local seen = sit { "492817" }
    assert.equal("x", given("file:password"):query { "echo", "x" })
    assert.same({ "   Verification code: " }, seen.prompts)
    ssh.close()
    seen = sit {}
    local wrong = given "[file:password, file:password]"
    assert.equal("EAUTH", raised(wrong.query, wrong, { "true" }).code)
    assert.same({}, seen.prompts)
    assert.matches("a reference is expected", raised(given, "[hunter2]").message)
  end)

  it("takes the password option for its first question", function()
    local seen = sit { "492817" }
    assert.equal("x", host(m, { password = (secret.new("word", m.password)) }):query { "echo", "x" })
    assert.same({ "   Verification code: " }, seen.prompts)
  end)

  it("is asked for nobody's answer when ssh_config says BatchMode", function()
    local folder = world.folder "batch"
    world.write(folder .. "/config", "BatchMode yes\n")
    local seen = sit { m.password, "492817" }
    local at = host(m, { config = folder .. "/config" })
    assert.matches("BatchMode, so nobody is asked", raised(at.query, at, { "true" }).message)
    assert.same({}, seen.prompts)
  end)

  it("asks again when the connection was lost, and that is said", function()
    local seen = sit { m.password, "492817", m.password, "492817" }
    local notices = {}
    local unsubscribe = events.subscribe(function(e) notices[#notices + 1] = e.type == "notice" and e.text or nil end)
    local at = host(m)
    at:query { "true" }
    m:drop_connections()
    assert.equal("x", at:query { "echo", "x" })
    unsubscribe()
    assert.equal(4, #seen.prompts)
    assert.matches("two was lost, and asks, before it lets rb%-plain in:", seen.text)
    assert.matches("the connection was lost, and the server asks again", table.concat(notices, "\n"))
  end)

  it("does not wait for ever when the connection was lost and nobody sits there", function()
    local usual = login.patience
    local _ <close> = setmetatable({}, { __close = function() login.patience = usual end })
    login.patience = 0.3
    local seen = sit { m.password, "492817", function() task.sleep(3600) end }
    local at = host(m)
    at:query { "true" }
    m:drop_connections()
    local err = raised(at.query, at, { "true" })
    assert.same({ "auth", "EPROMPT", 0 }, { err.kind, err.code, seen.now })
    assert.matches("^two asks `Password:`, and nobody answered within", err.message)
    assert.matches("runbook resume", err.hint)
    assert.is_false(ask.busy())
  end)

  it("is left alone when nothing is typed", function()
    sit {}
    local at = host(m)
    assert.matches("no answer was typed", raised(at.query, at, { "true" }).message)
  end)

  it("waits until another server's questions are answered", function()
    local other <close> = asking("other", { "MODULE Word:_ friend" })
    local seen
    local function answer()
      task.sleep(0.3)
      local prompt = seen.prompts[#seen.prompts]
      return prompt:find "Word" and "friend" or prompt:find "code" and "492817" or m.password
    end
    seen = sit { answer, answer, answer }
    local one, two = host(m), host(other)
    assert.same({ "1", "2" }, task.all {
      function() return one:query { "echo", "1" } end,
      function() return two:query { "echo", "2" } end,
    })
    assert.equal(1, seen.most)
    assert.equal(3, #seen.prompts)
  end)

  it("is answered at a real terminal, and the answers stand nowhere", function()
    local folder = command.folder {
      ["asks.lua"] = [[
        local rb = require "runbook"
        local p = rb.params { { "old", "host", "the old server" } }
        rb.step("look", "Look around", function() p.old:run { "echo", "inside" } end)
      ]],
      ["asks.yaml"] = ("old: { ssh: %s, port: %d, user: rb-plain, host_key: '%s' }\n"):format(m.address, m.port, m.fingerprint),
    }
    local shown, code = command.at_terminal(folder, { "run", "asks.lua" }, {
      { "Password: ", "not it\n" }, { "Password: ", m.password .. "\n" }, { "Verification code: ", "492817\n" },
    })
    assert.equal(0, code, shown)
    assert.matches("inside", shown)
    assert.is_nil(shown:find(m.password, 1, true))
    assert.equal("", (world.sh(("grep -rlaE '492817|%s|not it' %s/state"):format(m.password, folder))))
    local r = command.run(folder, { "run", "asks.lua" })
    assert.equal(77, r.code)
    assert.matches("asks `Password:`, and nobody can be asked here", r.err)
  end)
end)

describe("a server that hangs up while it is asked", function()
  it("is not waited for", function()
    local m <close> = asking("hasty", TWO, { "LoginGraceTime 1" })
    local seen = sit { function() task.sleep(3600) end }
    local at = host(m)
    local err = raised(at.query, at, { "true" })
    assert.same({ "auth", "EPROMPT", 0 }, { err.kind, err.code, seen.now })
    assert.matches("hung up before anybody answered", err.message)
  end)
end)

describe("a server that takes passwords only", function()
  local m

  setup(function()
    m = world.sshd { name = "words", config = { "PubkeyAuthentication no", "KbdInteractiveAuthentication no" } }
  end)
  teardown(function() m:close() end)

  it("gets the one that is typed, also when the connection was lost", function()
    local seen = sit { "wrong", m.password }
    local at = host(m)
    assert.equal("x", at:query { "echo", "x" })
    m:drop_connections()
    assert.equal("y", at:query { "echo", "y" })
    assert.same({ false, false }, seen.echo)
    assert.equal(("   rb-plain@%s's password: "):format(m.address), seen.prompts[1])
  end)

  it("says what to do where nobody can be asked", function()
    local at = host(m)
    local err = raised(at.query, at, { "true" })
    assert.equal("auth", err.kind)
    assert.matches("password: sops:FILE#KEY", err.hint)
  end)
end)

describe("a login in core", function()
  local m

  local function begin(o)
    o = o or {}
    o.host, o.port, o.user, o.pins, o.ask = m.address, m.port, "rb-plain", { m.fingerprint }, true
    return core.connect(o)
  end

  local function reading(fn)
    return function() gate.call("read", fn) end
  end

  setup(function() m = asking("core", TWO) end)
  teardown(function() m:close() end)

  it("goes on with each answer", reading(function()
    local _, message, code, details, pending = begin()
    assert.same({ "EPROMPT", "it asks: Password: ", 1 }, { code, message, details.attempt })
    assert.same({ { text = "Password: ", echo = false } }, details.prompts)
    assert.is_true(pending:waiting())
    local again
    _, _, code, details, again = pending:answer { m.password }
    assert.equal(pending, again)
    assert.same({ "EPROMPT", { { text = "Look at your phone.\nVerification code: ", echo = true } } }, { code, details.prompts })
    local session <close> = pending:answer { "492817" }
    assert.same({ "keyboard-interactive", "rb-plain" }, { session:info().method, session:info().user })
    assert.is_false(pending:waiting())
    assert.has_error(function() pending:answer {} end, "calling 'answer' on bad self (login is closed)")
  end))

  it("may be given up, forgotten or cancelled at any moment", reading(function()
    for i = 1, 10 do
      local _, _, _, _, pending = begin()
      if i % 2 == 0 then
        pending:close()
        pending:close()
        assert.is_false(pending:waiting())
      end
    end
    collectgarbage()
    collectgarbage()
    for i = 0, 10 do
      local _, _, _, _, pending = begin()
      local t = task.spawn(function() pending:answer { m.password } end)
      task.sleep(i * 0.02)
      t:cancel()
      task.join(t)
    end
    collectgarbage()
  end))

  it("hears when the server is gone", reading(function()
    local _, _, _, _, pending = begin()
    m:drop_connections()
    world.wait_until("the end", function() return not pending:waiting() end)
    local session, message, code = pending:answer { "late" }
    assert.is_nil(session)
    assert.equal("EPROMPT", code)
    assert.matches("hung up before it was answered: Password: ", message)
  end))

  it("takes no answers that are none", reading(function()
    local _, _, _, _, pending = begin()
    assert.has_error(function() pending:answer "x" end)
    assert.has_error(function() pending:answer { {} } end)
    pending:close()
  end))
end)

