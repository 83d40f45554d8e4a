-- A secret's way through a run between two servers: it may be in the file it came from, in the file the runbook wrote it to,
-- and in the memory of who needs it. Everything else that a run leaves or shows is searched for it, in every spelling.

local digest = require "runbook.core.digest"
local walk = require "spec.support.walk"
local world = require "spec.world"

-- Bytes that every spelling has to do something about.
local SECRET = [[Tr0ub4dor"&3\ spéc/+=%]] .. "\t" .. [['$HOME' 8f1c9d2e-long-enough]]

local pair, home, patterns

-- The part of base64 text that is the same whatever stands around the bytes.
local function inner_base64(bytes, offset)
  local text = digest.base64(("x"):rep(offset) .. bytes)
  local first, last = (offset * 8 + 5) // 6, (offset + #bytes) * 8 // 6
  return text:sub(first + 1, last)
end

local function json_escaped(bytes)
  return (bytes:gsub('[\\"]', "\\%0"):gsub("\t", "\\t"))
end

local function spellings()
  local list = { SECRET, json_escaped(SECRET), json_escaped(json_escaped(SECRET)), digest.hex(SECRET) }
  for offset = 0, 2 do
    list[#list + 1] = inner_base64(SECRET, offset)
    list[#list + 1] = (inner_base64(SECRET, offset):gsub("[+/]", { ["+"] = "-", ["/"] = "_" }))
  end
  list[#list + 1] = SECRET:gsub("[^%w._~-]", function(c) return ("%%%02X"):format(c:byte()) end)
  list[#list + 1] = SECRET:gsub("'", [['\'']])
  list[#list + 1] = "8f1c9d2e-long-enough" -- the tail alone: a line cut in two
  return list
end

-- Files below the paths that hold the secret in any spelling, a line each.
local function found_in(...)
  local words = { "grep", "-rlaF", "-f", patterns, "--", ... }
  local code, output = walk.sh(table.unpack(words))
  assert(code <= 1, output)
  return (output:gsub("\n$", ""))
end

local SOURCE = [[
local p = rb.params {
  { "token", "secret", "what lets us in" },
  { "how", "string", "ok, fail or wait" },
}
local ECHO = [==[
t=$(cat)
printf 'raw %s\n' "$t"
printf '%s' "$t" | base64 -w0; echo
printf 'x%s' "$t" | base64 -w0; echo
printf 'xy%s' "$t" | base64 -w0; echo
printf '{"token":"%s"}\n' "$(printf '%s' "$t" | sed 's/[\\"]/\\&/g; s/\t/\\t/g')"
printf 'stderr %s\n' "$t" >&2
touch "/srv/marker-of-argv"
sleep 1 # long enough for whoever looks at arguments now and then
[ "$1" != fail ]
]==]
rb.step("quiet", "Give it to a command", function()
  new:run { "sh", "-c", "cat > /dev/null", stdin = p.token }
  new:query_sh("wc -c", { stdin = p.token })
end)
rb.step("file", "Write it where it belongs", function()
  new:write("/srv/token", p.token, { mode = "0600" })
  new:write("/srv/other", "not a secret\n")
end)
rb.step("again", "Write over it, and over that", function()
  new:write("/srv/token2", p.token)
  new:write("/srv/token2", "no longer one\n")
  new:remove "/srv/token2"
end)
rb.step("job", "Give it to a job", function()
  local job = new:job { name = "reader", argv = { "sh", "-c", "wc -c; sleep 0.2" }, stdin = p.token }
  job:must_succeed()
end)
local said = rb.step("echo", "Have it come back", function()
  local text = new:query_sh(ECHO, "ok", { stdin = p.token })
  rb.say("it said " .. text)
  rb.attach({ text = text }, "ATTACHED")
  return { kept = rb.try(function() return text end) ~= nil }
end)
rb.step("live", "Have it shown", function()
  new:sh(ECHO, "ok", { stdin = p.token })
end)
rb.step("units", "In units", function()
  rb.each({ "a", "b" }, function(name)
    new:sh(ECHO, p.how, { stdin = p.token })
  end)
end)
rb.step("wait", "Wait to be killed", { when = p.how == "wait", again = true }, function()
  new:run { "sh", "-c", "cat; touch /srv/waits; sleep 60", stdin = p.token }
end)
]]

local function command(state, verb, ...)
  return walk.sh(world.runbook, verb, "--state", state, ...)
end

local function run(state, how, ...)
  return command(state, "run", home .. "/secrets.lua", "-p", "token=file:" .. home .. "/token", "-p", "how=" .. how, "--no-input", ...)
end

-- What a run may have left anywhere: here, and on both servers.
local function assert_nowhere(what, state, output, but)
  local path = state .. ".output"
  world.write(path, output)
  assert.equal("", found_in(state, path), what .. ": what is kept and shown here")
  local there = found_in(pair.old.folder, pair.new.folder):gsub(pair.new.folder:gsub("%p", "%%%0") .. "/disk", "")
  assert.equal(but or "/srv/token", there, what .. ": the servers' disks")
end

describe("a secret", function()
  setup(function()
    pair = walk.pair "-s"
    home = world.folder "secrets"
    patterns = world.folder "patterns" .. "/list"
    world.write(home .. "/token", SECRET .. "\n")
    world.must("chmod 600 " .. home .. "/token")
    world.write(patterns, table.concat(spellings(), "\n") .. "\n")
    pair:write(home, (SOURCE:gsub("ATTACHED", home .. "/attached.json")), "secrets")
  end)

  before_each(function() pair:reset() end)

  it("is found by the search of this spec wherever it is", function()
    local place = world.folder "control"
    for i, text in ipairs(spellings()) do
      world.write(("%s/%d"):format(place, i), "around " .. text .. " it")
    end
    local _, count = (found_in(place) .. "\n"):gsub("\n", "")
    assert.equal(#spellings(), count)
    assert.equal("", found_in("spec/secrets_spec.lua"):gsub("spec/secrets_spec.lua", ""))
  end)

  it("is nowhere after a run, shown as people see it and as programs do", function()
    for _, how in ipairs { "-v", "--json" } do
      pair:reset()
      local state = ("%s/ok%s"):format(home, how)
      local code, output = run(state, "ok", how)
      assert.equal(0, code, output)
      assert_nowhere(how, state, output)
      assert.equal("", found_in(home .. "/attached.json"))
      assert.is_truthy(output:find("«secret:token»", 1, true), output)
      assert.equal(SECRET, pair.new:read "/srv/token")
    end
  end)

  it("is nowhere after a failure, a resume and a rollback", function()
    local state = home .. "/fails"
    local code, output = run(state, "fail", "-v")
    assert.equal(1, code, output)
    assert_nowhere("failure", state, output)
    local more
    code, more = command(state, "resume", "--no-input", "--json")
    assert.equal(1, code, more)
    assert_nowhere("resume", state, more)
    for _, verb in ipairs { "show", "runs" } do
      code, more = command(state, verb)
      assert.equal(0, code, more)
      assert_nowhere(verb, state, more)
    end
    code, more = command(state, "rollback", "-v")
    assert.equal(4, code, more) -- commands of our own have no undo; the files have
    assert_nowhere("rollback", state, more, "")
    assert.is_nil(pair.new:read "/srv/token")
  end)

  it("is in nobody's arguments while it is used, here or there", function()
    local seen = home .. "/arguments"
    local poller = world.start({ "sh", "-c", [[while :; do cat /proc/[0-9]*/cmdline 2>/dev/null; done | tr '\0' '\n' >> "$1"]], "sh", seen })
    local code, output = run(home .. "/watched", "ok")
    poller:stop()
    assert.equal(0, code, output)
    assert.is_truthy(world.read(seen):find("/srv/marker-of-argv", 1, true), "the poller saw the commands")
    assert.equal("", found_in(seen))
  end)

  it("is nowhere when the run is killed, and after it has gone on", function()
    local state = home .. "/killed"
    local log = home .. "/killed.log"
    local leash = world.start({ world.runbook, "run", home .. "/secrets.lua", "-p", "token=file:" .. home .. "/token", "-p", "how=wait",
      "--no-input", "-v", "--state", state }, { log = log })
    world.wait_until("the last step", function() return pair.new:read "/srv/waits" end, 30)
    leash:stop()
    assert_nowhere("kill", state, world.read(log))
    pair.new:kill "sleep 60"
    pair:settle()
    local code, output = command(state, "resume", "--no-input", "-v", "-p", "how=ok")
    assert.equal(0, code, output)
    assert_nowhere("resume after a kill", state, output)
  end)

  it("is refused where it would be seen: in arguments, in results, in what is owed", function()
    local path = pair:write(home, [[
      local p = rb.params { { "token", "secret", "what lets us in" } }
      local bin = rb.obligation("spec-secret", function() end)
      rb.step("argv", "Argv", function() new:run { "echo", p.token } end)
      rb.step("joined", "Joined", function() new:run { "echo", "token=" .. p.token } end)
      rb.step("env", "Env", function() new:run { "env", env = { TOKEN = p.token } } end)
      rb.step("text", "Text", function() new:write("/srv/config", "token: " .. p.token) end)
      rb.step("result", "Result", function() return { token = p.token } end)
      rb.step("owed", "Owed", function() bin:owe { token = p.token } end)
    ]], "refused")
    for _, step in ipairs { "argv", "joined", "env", "text", "result", "owed" } do
      local state = ("%s/refused-%s"):format(home, step)
      local code, output = walk.sh(world.runbook, "run", path, "-p", "token=file:" .. home .. "/token", "--state", state, "--no-input",
        "--only", step)
      assert.equal(1, code, output)
      assert.matches("secret", output)
      assert_nowhere(step, state, output, "")
      assert.is_nil(pair.new:read "/srv/config")
    end
  end)
end)
