-- User certificates: servers that know an authority and no key (TrustedUserCAKeys).

local certificate = require "runbook.ssh.certificate"
local errors = require "runbook.errors"
local params = require "runbook.params"
local places = require "spec.support.places"
local secret = require "runbook.secret"
local ssh = require "runbook.ssh"
local world = require "spec.world"

local folder

setup(function()
  folder = world.folder "certificates"
  world.must(("ssh-keygen -q -t ed25519 -N '' -C other -f %s/other_ca"):format(folder))
end)

-- A key no server knows by itself, and its certificate. `o`: how it is signed.
local function signed(name, o)
  local key = folder .. "/" .. name
  world.must(("ssh-keygen -q -t %s -N '' -C %s -f %s"):format(o.type or "ed25519", name, key))
  world.must(("ssh-keygen -q -s %s -I %s %s %s.pub"):format(o.ca or world.key "ca", name, o.how or "-n root", key))
  if o.aside then
    world.must(("mv %s-cert.pub %s.cert"):format(key, key))
  end
  return key
end

local function raised(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_true(errors.is(err), tostring(err))
  return err
end

local function who(o)
  local at = places.by_ssh(o)
  return at:query { "id", "-un" }
end

local function refused(o)
  local err = raised(who, o)
  assert.same({ "auth", "EAUTH", "far" }, { err.kind, err.code, err.target })
  return err
end

after_each(ssh.close)

describe("a certificate", function()
  it("lets in: beside its key, named, and from memory", function()
    assert.equal("root", who { identity = signed("beside", {}) })
    local key = signed("named", { aside = true })
    assert.equal("root", who { identity = key, certificate = key .. ".cert" })
    assert.matches("named, keyboard", refused({ identity = key }).message) -- the certificate is what lets it in, not the key
    assert.equal("root", who { identity = (secret.new("key", world.read(key))), certificate = world.read(key .. ".cert") })
    assert.equal("root", who { identity = (secret.new("key", world.read(key))),
      certificate = (secret.new("certificate", world.read(key .. ".cert"))) })
  end)

  it("lets in whatever kind of key it is of", function()
    for _, kind in ipairs { "rsa", "ecdsa" } do
      assert.equal("root", who { identity = signed(kind, { type = kind }) }, kind)
    end
  end)

  it("is an option of a host in the parameter file", function()
    local key, m = signed("params", { aside = true }), places.machine()
    world.write(folder .. "/p.yaml", ("old:\n  ssh: %s\n  port: %d\n  user: root\n  host_key: %s\n  identity: %s\n  certificate: params.cert\n"):format(
      m.address, m.port, m.fingerprint, key))
    local given = params.load { declaration = { { "old", "host", "the old one" } }, files = { folder .. "/p.yaml" } }
    assert.equal("root", given.old:query { "id", "-un" })
    assert.equal(folder .. "/params.cert", given.old:reference().certificate)
  end)

  it("that expired is said to have, and the key is tried by itself", function()
    local key = signed("old", { how = "-n root -V 20200101000000Z:20200102000000Z" })
    local err = refused { identity = key }
    assert.matches(key .. "-cert.pub expired on 2020-01-02 00:00 UTC (id \"old\", signed by SHA256:", err.message, 1, true)
    assert.matches("have it signed for root: ssh-keygen -s CA -I ID -n root", err.hint, 1, true)
    assert.matches(key .. " with its certificate, " .. key .. ", keyboard", err.message, 1, true)
    local m = places.machine()
    local keys = m:read "/root/.ssh/authorized_keys"
    m:write("/root/.ssh/authorized_keys", keys .. world.read(key .. ".pub"))
    assert.equal("root", who { identity = key })
    m:write("/root/.ssh/authorized_keys", keys)
  end)

  it("for others is said to be", function()
    local err = refused { identity = signed("others", { how = "-n ada,bob" }) }
    assert.matches("others-cert.pub is for ada, bob, and not for root (id \"others\"", err.message, 1, true)
  end)

  it("of an authority nobody trusts is said to be in order, and who signed it", function()
    local key = signed("foreign", { ca = folder .. "/other_ca", how = "-n root -V 20200101000000Z:20990101000000Z" })
    local by = world.must(("ssh-keygen -lf %s/other_ca.pub"):format(folder)):match "SHA256:%S+"
    local err = refused { identity = key }
    assert.matches("is valid for root until 2099-01-01 00:00 UTC; the server may not trust who signed it (TrustedUserCAKeys), "
      .. "or want another principal (id \"foreign\", signed by " .. by .. ")", err.message, 1, true)
  end)

  it("is named when it is none, or of no key", function()
    local key = signed("none", { aside = true })
    world.write(folder .. "/text", "hello\n")
    assert.matches("/text is no ssh certificate", refused({ identity = key, certificate = folder .. "/text" }).message, 1, true)
    assert.matches("/gone %(No such file", refused({ identity = key, certificate = folder .. "/gone" }).message)
    assert.matches("of which key", raised(ssh.host, { "a", certificate = key .. ".cert" }).message)
  end)
end)

describe("what stands in a certificate", function()
  local function judge(name, o, user)
    return certificate.judge(world.read(signed(name, o) .. "-cert.pub"), user or "root", os.time())
  end

  it("is read whatever its kind", function()
    for _, kind in ipairs { "ed25519", "rsa", "ecdsa" } do
      local key = signed("read_" .. kind, { type = kind, how = "-n a,b -z 7 -O source-address=10.0.0.0/8 -V 20200101000000Z:20990101000000Z" })
      local c = certificate.parse(world.read(key .. "-cert.pub"))
      assert.same({ 7, 1, "read_" .. kind, { "a", "b" }, 1577836800, 4070908800, "10.0.0.0/8" },
        { c.serial, c.type, c.id, c.principals, c.after, c.before, c.source_address })
      assert.equal(world.must("ssh-keygen -lf " .. world.key "ca" .. ".pub"):match "SHA256:%S+", c.authority)
    end
  end)

  it("is put in words", function()
    assert.matches("^is a host's certificate, not a user's", judge("host", { how = "-h -n root" }))
    assert.matches("^is valid from 2098%-12%-31 .* on only; is the clock right%?",
      judge("early", { how = "-n root -V 20981231000000Z:20990101000000Z" }))
    assert.matches("^names no principal", judge("nobody", { how = "" }))
    assert.matches("^is valid for root, from 10.0.0.0/8 only; ", judge("from", { how = "-n root -O source-address=10.0.0.0/8" }))
    assert.matches("^is valid for root; ", judge("ever", {}))
    for _, text in ipairs { "", "ssh-ed25519 AAAA", "ssh-ed25519-cert-v01@openssh.com AAAA", "ssh-rsa-cert-v01@openssh.com !!" } do
      assert.equal("is no ssh certificate", certificate.judge(text, "root", 0))
    end
  end)
end)
