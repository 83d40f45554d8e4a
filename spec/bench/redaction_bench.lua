-- Everything shown goes through the redactor: it must be faster than anything that prints.

local redact = require "runbook.core.redact"

local SECRETS, BYTES = 100, 64 << 20

local function words(seed, length)
  local state, text = seed, {}
  for i = 1, length do
    state = (state * 1103515245 + 12345) % 2147483648
    text[i] = string.char(97 + state // 65536 % 26)
  end
  return table.concat(text)
end

return function(bench)
  local world = bench.world
  local secrets, script = {}, {}
  local redactor = redact.new()
  for i = 1, SECRETS do
    secrets[i] = words(i, 24)
    redactor:add("s" .. i, secrets[i])
    script[i] = ("s/%s/(secret)/g\n"):format(secrets[i])
  end
  local line = ("2026-12-05 22:04:10 %s rsync: sent 1,234 bytes of %s\n"):format(words(1007, 20), words(1008, 30))
  local chunk = line:rep(700) .. secrets[50] .. "\n" .. line:rep(100)
  local rounds = BYTES // #chunk

  local stream = redactor:stream()
  local shown = 0
  local ours = bench.inside(function()
    for _ = 1, rounds do
      shown = shown + #stream:feed(chunk)
    end
    shown = shown + #stream:flush()
  end)
  assert(shown == rounds * (#chunk - #secrets[50] + #"«secret:s50»"), "the redactor missed some")
  local speed = rounds * #chunk / ours.cpu / 1e6
  ours.name, ours.figure = ("a stream with %d secrets"):format(SECRETS), ("%.0f MB/s"):format(speed)
  ours.goals = { bench.goal("at least 300 MB/s", speed, 300, { at_least = true, format = "%.0f MB/s" }) }

  local folder = world.folder "redaction"
  world.write(folder .. "/script", table.concat(script))
  world.write(folder .. "/text", chunk:rep(rounds // 8))
  local sed = bench.command(1, { "sed", "-f", folder .. "/script", folder .. "/text" }, { env = "LC_ALL=C" })
  sed.name = "sed with as many expressions"
  sed.figure = ("%.0f MB/s"):format(rounds // 8 * #chunk / sed.cpu / 1e6)
  ours.wall, sed.wall = ours.wall, sed.wall * 8
  bench.beside(ours, { sed })
end
