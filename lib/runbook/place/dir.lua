--- A directory at a place: what the parameter type `dir` is, and what copiers take.

local command = require "runbook.place.command"
local effect = require "runbook.effect"
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

--- A directory at a place; `place:dir(path)` is the same. Nothing is touched.
---@param place runbook.Place
---@param path string
---@return runbook.Dir
function dir.new(place, path)
  return setmetatable({ place = place, path = #path > 1 and path:gsub("/+$", "") or path }, dir_mt)
end

--- Is this value a directory?
---@param value any
---@return boolean
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

--- The bytes of a file in it; see `place:read`.
---@async
---@param name string
---@param o? { limit?: integer }
---@return string
function Dir:read(name, o) return self.place:read(self:join(name), o) end

--- Write a file in it whole; see `place:write`.
---@async
---@param name string
---@param bytes string|runbook.secret
---@param o? { mode?: integer|string, owner?: string }
function Dir:write(name, bytes, o) return self.place:write(self:join(name), bytes, o) end

--- Copy a file of this machine into it; see `place:put`.
---@async
---@param from string|{ bytes: string|runbook.secret }
---@param name string
---@param o? { mode?: integer|string, owner?: string }
function Dir:put(from, name, o) return self.place:put(from, self:join(name), o) end

--- Copy a file in it to this machine; see `place:get`.
---@async
---@param name string
---@param to string  a path of this machine
function Dir:get(name, to) return self.place:get(self:join(name), to) end

--- What a name in it is, or nil when there is none; the directory itself without a name. See `place:stat`.
---@async
---@param name? string
---@param o? { follow?: boolean }  links are not followed by themselves
---@return table?
function Dir:stat(name, o) return self.place:stat(self:join(name), o) end

--- Is there such a name in it? Without one: is the directory there?
---@async
---@param name? string
---@return boolean
function Dir:exists(name) return self.place:exists(self:join(name)) end

--- What is in it, or in a directory of that name in it, sorted by bytes; see `place:list`.
---@async
---@param name? string
---@return { name: string, type: "file"|"directory"|"link"|"special" }[]
function Dir:list(name) return self.place:list(self:join(name)) end

--- Room where it lies; see `place:space`.
---@async
---@param name? string
---@return table
function Dir:space(name) return self.place:space(self:join(name)) end

--- The file system it lies on; see `place:mount`.
---@async
---@param name? string
---@return table
function Dir:mount(name) return self.place:mount(self:join(name)) end

--- See that it is there.
---@async
---@param o? { mode?: integer|string, owner?: string }
function Dir:ensure(o) return self.place:ensure_dir(self.path, o) end

--- See that a directory of that name is in it, with its parents; see `place:ensure_dir`.
---@async
---@param name string
---@param o? { mode?: integer|string, owner?: string }
function Dir:ensure_dir(name, o) return self.place:ensure_dir(self:join(name), o) end

--- Remove a name in it; never the directory itself. See `place:remove`.
---@async
---@param name string
---@param o? { tree?: boolean }
function Dir:remove(name, o)
  if name == nil then
    errors.raise({ kind = "usage", message = "dir:remove takes a name in the directory" }, 2)
  end
  return self.place:remove(self:join(name), o)
end

--- Plain data for the journal; `place.open` is the way back.
---@return table
function Dir:reference()
  return { kind = "dir", place = self.place:reference(), path = self.path }
end

-- $1 what it is called, $2 what it will be. Said twice it finds itself done.
local RENAME = [[
if [ ! -e "$1" ] && [ -d "$2" ]; then exit 0; fi
if [ -e "$2" ] || [ -L "$2" ]; then echo "$2 is there already" >&2; exit 1; fi
exec mv -T -- "$1" "$2"]]

local rename = effect.verb {
  name = "dir.rename", class = "change", repeatable = true,
  target = function(place) return place.name end,
  summary = function(_, from, to) return ("rename %s to %s"):format(from, to) end,
  by_hand = function(place, from, to) return place:by_hand { "mv", "-T", from, to } end,
  inverse = function(place, from, to) return { "dir.rename", place, to, from } end,
  body = function(place, from, to)
    command.script(place, RENAME, { from, to }, { message = "renaming " .. from, change = true })
  end,
}

--- Give the directory another name beside itself. Never over something that is there.
---@async
---@param name string
---@return runbook.Dir
function Dir:rename(name)
  if type(name) ~= "string" or name == "" or name == "." or name == ".." or name:find "[/%c]" then
    errors.raise({ kind = "usage", message = "dir:rename: a name without slashes is expected" }, 2)
  end
  local to = self.path:gsub("[^/]+$", function() return name end)
  rename(self.place, self.path, to)
  return dir.new(self.place, to)
end

return dir
