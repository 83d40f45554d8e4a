local world = require "spec.world"

-- What make and its helpers promise to somebody who has only a checkout.
describe("the build", function()
  local make = "make --no-print-directory BUILD=" .. world.build .. (world.build:find "san$" and " SAN=1" or "")

  it("installs a binary, a library and their manual where it is told", function()
    local root = world.folder "root"
    world.must(("%s install DESTDIR=%s PREFIX=/opt/rb"):format(make, root))
    assert.truthy(world.must(root .. "/opt/rb/bin/runbook --version"):find "^runbook %d")
    for page in world.sh("ls lib/man"):gmatch "%S+%.%d" do
      assert.truthy(world.read(("%s/opt/rb/share/man/man%s/%s"):format(root, page:match "%d$", page)), page)
    end
    local found = world.must(("cd %s && find . -type f ! -path './opt/rb/*'"):format(root))
    assert.equal("", found)
  end)

  it("installs a library that another program can be built on, with nothing of the checkout", function()
    local root = world.folder "root"
    world.must(("%s install DESTDIR=%s PREFIX=%s/usr"):format(make, root, root))
    local installed = root .. root .. "/usr"
    world.must(("mv %s %s/usr"):format(installed, root))
    world.write(root .. "/host.c", [[
      #include <runbook.h>
      int main(void)
      {
        struct runbook_host *h = runbook_host_new();
        int made = h != 0;
        runbook_host_free(h);
        return made ? 0 : 1;
      }
    ]])
    world.must(([[cd %s && cc %s -o host host.c \
      $(PKG_CONFIG_PATH=%s/usr/lib/pkgconfig pkg-config --cflags --libs runbook) && ./host]]):format(
      root, world.build:find "san$" and "-fsanitize=address,undefined" or "", root))
  end)

  it("keeps the symbols of the libraries it brought to itself", function()
    local symbols = world.must("nm -D --defined-only " .. world.runbook)
    assert.is_nil(symbols:find "libssh2_")
    assert.is_nil(symbols:find "yyjson_")
    assert.is_nil(world.must("ldd " .. world.runbook):find "libssh2")
  end)

  it("loads libcurl only when something asks for it", function()
    assert.is_nil(world.must("ldd " .. world.runbook):find "libcurl")
  end)

  it("bakes the same bytes from the same files, and refuses a file with a mistake", function()
    local folder = world.folder "bake"
    world.must(([[cd %s && mkdir -p lib/runbook/a && echo 'return 1' > lib/runbook/a/init.lua
      echo text > lib/runbook/b.txt]]):format(folder))
    local line = ("cd %s && lua5.4 %s/src/embed.lua sources %%s %%s"):format(folder, world.must "pwd")
    world.must(line:format("one.c", "lib/runbook/a/init.lua lib/runbook/b.txt"))
    world.must(line:format("two.c", "lib/runbook/b.txt lib/runbook/a/init.lua"))
    local one = world.read(folder .. "/one.c")
    assert.equal(one, world.read(folder .. "/two.c"))
    assert.truthy(one:find('{ "runbook.a", "@lib/runbook/a/init.lua",', 1, true))
    assert.truthy(one:find('{ "runbook/b.txt", "@lib/runbook/b.txt",', 1, true))
    world.write(folder .. "/lib/runbook/wrong.lua", "return (")
    local said, code = world.sh(line:format("three.c", "lib/runbook/wrong.lua"))
    assert.equal(1, code)
    assert.truthy(said:find("lib/runbook/wrong.lua:1:", 1, true))
  end)

  describe("looking for packages", function()
    -- As a user who may do nothing, whose sudo (if there is any) asks for a password.
    local function deps(names, path)
      local folder = world.folder "deps"
      world.must(("cp src/deps.sh %s && chmod 755 %s/.. %s && mkdir -m 777 %s/w"):format(folder, folder, folder, folder))
      return world.sh(([[cd %s && setpriv --reuid 65534 --regid 65534 --clear-groups \
        env -i HOME=%s/w PATH=%s ./deps.sh packages w/stamp %s]]):format(folder, folder, path or "/usr/bin:/bin", names))
    end

    it("installs nothing when all are there", function()
      local said, code = deps "bash coreutils"
      assert.equal("", said)
      assert.equal(0, code)
    end)

    it("names the line to run where it may not install", function()
      local folder = world.folder "bin"
      for _, program in ipairs { "sh", "id", "env", "dpkg-query", "grep", "mkdir", "flock", "dirname", "touch" } do
        world.must(("ln -s $(command -v %s) %s"):format(program, folder))
      end
      world.must("chmod 755 " .. folder)
      local said, code = deps("bash no-such-package-a no-such-package-b", folder)
      assert.equal(1, code)
      assert.truthy(said:find("\n  apt-get install --no-install-recommends no-such-package-a no-such-package-b", 1, true), said)
      assert.is_nil(said:find " bash")
    end)
  end)
end)
