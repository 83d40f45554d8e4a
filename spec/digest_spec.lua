local digest = require "runbook.core.digest"
local gate = require "runbook.core.gate"
local process = require "runbook.core.process"
local secret = require "runbook.core.secret"
local task = require "runbook.core.task"

local function output(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read "a"
  return text, pipe:close()
end

local function write(path, text)
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(text))
end

describe("runbook.core.digest", function()
  local directory

  setup(function()
    directory = output("mktemp -d"):gsub("\n", "")
  end)

  teardown(function()
    os.execute("rm -rf " .. directory)
  end)

  it("agrees with the published vectors", function()
    assert.equal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", digest.sha256 "abc")
    assert.equal("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", digest.sha256 "")
    assert.equal("a9993e364706816aba3e25717850c26c9cd0d89d", digest.sha1 "abc")
    assert.equal("\xba\x78\x16\xbf", digest.sha256("abc", true):sub(1, 4))
    -- RFC 4231, test case 2; RFC 2202, test case 2
    assert.equal("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
      digest.hmac("sha256", "Jefe", "what do ya want for nothing?"))
    assert.equal("effcdf6ae5eb2fa2d27416d5f184df9c259a7c79", digest.hmac("sha1", "Jefe", "what do ya want for nothing?"))
    assert.equal("164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554",
      digest.hmac("sha512", "Jefe", "what do ya want for nothing?"):sub(1, 64))
  end)

  it("takes secrets for hmac and for nothing else", function()
    local s = secret.new("key", "Jefe")
    assert.equal(digest.hmac("sha256", "Jefe", "x"), digest.hmac("sha256", s, "x"))
    assert.equal(digest.hmac("sha256", "x", "Jefe"), digest.hmac("sha256", "x", s))
    for _, name in ipairs { "base64", "hex", "sha1", "sha256", "unbase64", "unhex" } do
      assert.error_matches(function() digest[name](s) end, "string expected")
    end
  end)

  it("speaks hex and base64 both ways, for every length", function()
    for length = 0, 100 do
      local bytes = digest.random(length)
      assert.equal(length, #bytes)
      assert.equal(bytes, digest.unhex(digest.hex(bytes)))
      assert.equal(bytes, digest.unhex(digest.hex(bytes):upper()))
      local text = digest.base64(bytes)
      assert.equal(0, #text % 4)
      assert.equal(bytes, digest.unbase64(text))
      assert.equal(bytes, digest.unbase64((text:gsub("=", ""):gsub("[+/]", { ["+"] = "-", ["/"] = "_" }))))
      assert.equal(bytes, digest.unbase64((text:gsub("....", "%0\r\n"))))
    end
    assert.equal("Zm9vYmE=", digest.base64 "fooba")
  end)

  it("refuses what is no hex and no base64", function()
    for _, text in ipairs { "a", "0g", "0 " } do
      assert.equal("ESYNTAX", (select(3, digest.unhex(text))), text)
    end
    for _, text in ipairs { "A", "AB=", "AB===", "=", "A=BC", "Zm9v!", "Zm9=v", "Zm9vYmF=", "Zh==", "AAAA=" } do
      assert.equal("ESYNTAX", (select(3, digest.unbase64(text))), text)
    end
  end)

  it("gives random bytes that differ", function()
    assert.is_true(digest.random(16) ~= digest.random(16))
    assert.error_matches(function() digest.random(-1) end, "0 to 1048576")
  end)

  it("makes keys that ssh-keygen takes for its own", function()
    for _, comment in ipairs { "runbook temple-3", "", ("c"):rep(999), "with «unicode»" } do
      local pair = digest.ed25519(comment, "ephemeral")
      assert.equal("«secret:ephemeral»", tostring(pair.private))
      local public = directory .. "/key.pub"
      write(public, pair.public .. "\n")
      local shown = output("ssh-keygen -l -f " .. public)
      assert.equal(pair.fingerprint, shown:match "SHA256:%S+")
      assert.matches("%(ED25519%)", shown)
      assert.equal(pair.fingerprint, digest.fingerprint(pair.public))
      -- The private half reaches the program as its input, and nothing else.
      local derived = gate.call("read", process.exec, {
        argv = { "sh", "-c", "umask 077; cat > $1 && ssh-keygen -y -f $1; rm $1", "-", directory .. "/key" },
        stdin = pair.private,
      })
      assert.equal(pair.public .. "\n", derived.stdout, derived.stderr)
    end
  end)

  it("makes keys that sign what the public half verifies", function()
    local pair = digest.ed25519 "signer"
    write(directory .. "/allowed", "someone " .. pair.public .. "\n")
    local result = gate.call("read", process.exec, {
      argv = { "sh", "-c", [[
        cd "$1" && umask 077 && cat > signing && echo text > text && ssh-keygen -q -Y sign -f signing -n file text &&
          ssh-keygen -Y verify -f allowed -I someone -n file -s text.sig < text
      ]], "-", directory },
      stdin = pair.private,
    })
    assert.equal(0, result.status, result.stderr)
    assert.matches("Good .* signature", result.stdout)
  end)

  it("fingerprints any line that holds a public key", function()
    os.execute(("ssh-keygen -q -t ecdsa -N '' -C c -f %s/ecdsa"):format(directory))
    local line = assert(io.open(directory .. "/ecdsa.pub")):read "l"
    local expected = output(("ssh-keygen -l -f %s/ecdsa.pub"):format(directory)):match "SHA256:%S+"
    assert.equal(expected, digest.fingerprint(line))
    assert.equal(expected, digest.fingerprint('restrict,from="10.0.0.0/8" ' .. line))
    assert.equal("EKEY", (select(3, digest.fingerprint "no key at all")))
    assert.equal("EKEY", (select(3, digest.fingerprint "ssh-rsa AAAA!")))
  end)

  it("hashes files off the loop", function()
    local path = directory .. "/file"
    local bytes = digest.random(1 << 20):rep(5) .. "end"
    write(path, bytes)
    gate.call("read", function()
      local sum, size = digest.sha256_file(path)
      assert.equal(output("sha256sum " .. path):match "^%x+", sum)
      assert.equal(#bytes, size)
      assert.equal("ENOENT", (select(3, digest.sha256_file(path .. "x"))))
      assert.equal("EISDIR", (select(3, digest.sha256_file(directory))))
      local t = task.spawn(function() digest.sha256_file(path) end)
      task.sleep(0)
      t:cancel()
      task.join_all { t }
    end)
    local ok, e = pcall(digest.sha256_file, path)
    assert.is_false(ok)
    assert.equal("ungated", e.code)
  end)
end)
