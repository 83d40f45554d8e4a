--- Real peers for the specs: started on demand, ended with the suite.

local world = {}

local endings = {}

--- Have `fn` called when the suite ends, the last one first.
function world.at_end(fn)
  endings[#endings + 1] = fn
end

--- End everything. Called by spec/run.lua however the suite ends.
function world.stop()
  for i = #endings, 1, -1 do
    local ok, err = pcall(endings[i])
    if not ok then
      io.stderr:write("world: ", tostring(err), "\n")
    end
    endings[i] = nil
  end
end

return world
