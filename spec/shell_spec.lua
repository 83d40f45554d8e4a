describe("runbook.shell", function()
  local shell = require "runbook.shell"
  local world = require "spec.world"

  it("leaves plain words alone and quotes the rest", function()
    assert.equal([[touch 'a b' 'it'\''s' '' 'A=b' '~' a/b-c.d]], shell.join { "touch", "a b", "it's", "", "A=b", "~", "a/b-c.d" })
  end)

  it("gives every byte back through every shell", function()
    local bytes = {}
    for i = 1, 255 do
      bytes[i] = string.char(i)
    end
    local all = table.concat(bytes)
    for _, interpreter in ipairs { "sh", "bash", "busybox sh" } do
      local line = shell.join { "printf", "%s|", all, "--", "$(id)", "`id`", "a\\", "\\'", "!x", "*" }
      local output = world.must(interpreter .. " -c " .. world.quote(line) .. " | od -An -v -tx1 | tr -d ' \\n'")
      local expected = all .. "|--|$(id)|`id`|a\\|\\'|!x|*|"
      assert.equal(expected:gsub(".", function(c) return ("%02x"):format(c:byte()) end), output)
    end
  end)

  it("refuses a zero byte", function()
    local ok, err = pcall(shell.quote, "a\0b")
    assert.is_false(ok)
    assert.equal("usage", err.kind)
  end)
end)
