--- Trees to copy, what people do to them, and people who do not stop (trees.py).

local json = require "runbook.json"

return function(world)
  local function words(what, path, o)
    local list = { "python3", "spec/world/trees.py", what, path }
    for _, name in ipairs { "files", "homes", "bytes", "deep", "largest", "percent", "kinds", "seed", "rate" } do
      if o[name] then
        list[#list + 1] = "--" .. name
        list[#list + 1] = type(o[name]) == "table" and table.concat(o[name], ",") or tostring(o[name])
      end
    end
    for _, name in ipairs { "across", "delete", "rename" } do
      list[#list + 1] = o[name] and "--" .. name or nil
    end
    return list
  end

  local function run(what, path, o)
    local line = {}
    for i, word in ipairs(words(what, path, o or {})) do
      line[i] = world.quote(word)
    end
    return world.must(table.concat(line, " "))
  end

  --- Make a tree of a kind: "awkward", "many", "big" or "million". The same options make the same tree.
  ---@param kind string
  ---@param path string  as this machine sees it; made
  ---@param o? { files?: integer, homes?: integer, bytes?: integer, deep?: integer, largest?: integer, across?: boolean }
  function world.grow(kind, path, o)
    run(kind, path, o)
  end

  --- Change a share of a tree as people do, in every way there is or only in the named ones.
  ---@param path string
  ---@param o? { percent?: number, seed?: integer, delete?: boolean, rename?: boolean, kinds?: string[] }
  ---@return table<string, integer> done  how often each kind; `files`: among how many
  function world.mutate(path, o)
    return json.decode(run("mutate", path, o))
  end

  --- People who create, edit, rename and delete in a tree until `stop`.
  ---@param path string
  ---@param o? { seed?: integer, rate?: number }  rate: things done per second, at most
  ---@return world.Leash
  function world.storm(path, o)
    return world.start(words("storm", path, o or {}), { log = world.folder "storm" .. "/log" })
  end
end
