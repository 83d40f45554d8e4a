--- A directory at a place: what the parameter type `dir` is, and what copiers take.

local errors = require "runbook.errors"

local dir = {}

---@class runbook.Dir
---@field place runbook.Place
---@field path string  absolute, without a slash at its end
local Dir = {}

local dir_mt = { __name = "runbook.dir", __index = Dir }

function dir_mt.__tostring(self)
  return self.place.name .. ":" .. self.path
end

function dir_mt.__eq(a, b)
  return a.place == b.place and a.path == b.path
end

---@param place runbook.Place
---@param path string
---@return runbook.Dir
function dir.new(place, path)
  return setmetatable({ place = place, path = #path > 1 and path:gsub("/+$", "") or path }, dir_mt)
end

function dir.is(value)
  return getmetatable(value) == dir_mt
end

--- The absolute path of a name in it; the directory itself without one.
---@param name? string
---@return string
function Dir:join(name)
  if name == nil then
    return self.path
  end
  name = tostring(name)
  if name == "" or name:sub(1, 1) == "/" or ("/" .. name .. "/"):find("/../", 1, true) then
    errors.raise({ kind = "usage", message = ("`%s` is not a name in %s"):format(name, tostring(self)) }, 3)
  end
  return (self.path == "/" and "" or self.path) .. "/" .. name
end

--- A directory in it.
---@param name string
---@return runbook.Dir
function Dir:dir(name)
  return dir.new(self.place, self:join(name))
end

function Dir:read(name, o) return self.place:read(self:join(name), o) end
function Dir:write(name, bytes, o) return self.place:write(self:join(name), bytes, o) end
function Dir:put(from, name, o) return self.place:put(from, self:join(name), o) end
function Dir:get(name, to) return self.place:get(self:join(name), to) end
function Dir:stat(name, o) return self.place:stat(self:join(name), o) end
function Dir:exists(name) return self.place:exists(self:join(name)) end
function Dir:list(name) return self.place:list(self:join(name)) end
function Dir:space(name) return self.place:space(self:join(name)) end
function Dir:mount(name) return self.place:mount(self:join(name)) end

--- See that it is there.
---@async
---@param o? { mode?: integer|string, owner?: string }
function Dir:ensure(o) return self.place:ensure_dir(self.path, o) end

--- See that a directory of that name is in it.
function Dir:ensure_dir(name, o) return self.place:ensure_dir(self:join(name), o) end

--- Remove a name in it; never the directory itself.
function Dir:remove(name, o)
  if name == nil then
    errors.raise({ kind = "usage", message = "dir:remove takes a name in the directory" }, 2)
  end
  return self.place:remove(self:join(name), o)
end

--- Plain data for the journal; `place.open` is the way back.
function Dir:reference()
  return { kind = "dir", place = self.place:reference(), path = self.path }
end

return dir
