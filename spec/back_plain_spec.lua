-- The way back with plain tools (`engine = "rsync"`): what was cut goes on, and other people's work stops it.

local lab = require "spec.support.lab"

describe("the way back with rsync", function()
  local servers, old, new

  setup(function()
    servers = lab.servers()
    old, new = servers.old, servers.new
  end)

  teardown(function() servers:close() end)

  before_each(function()
    old:sh "umount /srv/homes/bob 2>/dev/null"
    lab.fresh(old, "/srv/homes")
    lab.fresh(new, "/srv/homes")
    old:must [[mkdir -p /srv/homes/ann /srv/homes/bob && mount -t tmpfs -o size=3m small /srv/homes/bob && cd /srv/homes
      mkdir ann/work && echo a > ann/work/a && echo b > bob/b && ln bob/b bob/link && echo stays > bob/stays && touch loose]]
  end)

  after_each(function() old:sh "umount /srv/homes/bob" end)

  local function pair()
    return servers:pair { engine = "rsync" }
  end

  -- Ann's home comes back whole; of bob's what fits: the rest of it does not, and that try ends there.
  local function cut(homes)
    homes:final()
    homes:verify()
    new:must [[cd /srv/homes && echo edited > ann/work/a && mkdir ann/new && echo new > ann/new/file && chmod 750 ann/new
      echo 'edited there' > bob/a-little && echo changed > bob/b && mkdir bob/deep && head -c 8M /dev/urandom > bob/deep/big
      mkdir eve && echo e > eve/e]]
    local ok, err = pcall(homes.back, homes)
    assert.falsy(ok)
    assert.equal("EUNITS", err.code, err.message)
    assert.equal("edited\n", old:must "cat /srv/homes/ann/work/a; echo")
  end

  it("goes on where it was cut", function()
    lab.must(function()
      local homes = pair()
      cut(homes)
      old:must "mount -o remount,size=40m /srv/homes/bob"
      homes:back()
    end)
    for _, home in ipairs { "ann", "bob", "eve" } do
      assert.equal("", lab.difference(old, "/srv/homes/" .. home, new, "/srv/homes/" .. home))
    end
  end)

  it("stops, with the name, at what somebody did at the source meanwhile", function()
    local err
    lab.must(function()
      local homes = pair()
      cut(homes)
      old:must "mount -o remount,size=40m /srv/homes/bob; echo mine > /srv/homes/bob/stays"
      err = select(2, pcall(homes.back, homes))
    end)
    assert.equal("EBOTH", err.code, err.message)
    assert.truthy(err.message:find("bob (stays)", 1, true), err.message)
    assert.falsy(err.message:find("ann", 1, true), err.message)
    assert.equal("mine\n", old:must "cat /srv/homes/bob/stays; echo")
  end)
end)
