--- Streams of the far side's program made by hand, for what the real one says rarely or never, and the work that goes there
--- taken apart. Times are nanoseconds since 1970.

local frames = require "spec.support.frames"

local NS = 1000000000

local streams = {}

local number, text, frame = frames.number, frames.text, frames.frame

function streams.moment(t)
  return frames.signed(t // NS) .. number(t % NS)
end

--- All fields of an entry; those that are not given are usual ones. `size` is of files.
---@param e table  type, mode, uid, gid, size, modified, changed, inode, device, links, blocks, node, target
---@return string
function streams.entry(e)
  local type = e.type or "f"
  local last = (type == "b" or type == "c") and number(e.node or 0) or type == "l" and text(e.target or "target") or ""
  return table.concat {
    type, number(e.mode or (type == "d" and 493 or 420)), number(e.uid or 1000), number(e.gid or 1000), number(e.size or 0),
    streams.moment(e.modified or 1000 * NS), streams.moment(e.changed or 2000 * NS), number(e.inode or 1), number(e.device or 7),
    number(e.links or (type == "d" and 2 or 1)), number(e.blocks or 8), last,
  }
end

function streams.hello(o)
  return frame("H", number(o.version or 1), text "boot", streams.moment(o.clock or 5000 * NS), number(7), number(2), text "ext4", number(4096))
end

--- A unit of a scan.
---@param u { name: string, same?: boolean, digest?: string, problems?: table[], unended?: boolean, [integer]: table }  entries: path first
function streams.unit(u)
  local out, before, newest = { frame("U", text(u.name)) }, "", -1 << 62
  for _, e in ipairs(u) do
    local path, shared = e[1], 0
    while shared < #path and shared < #before and path:byte(shared + 1) == before:byte(shared + 1) do
      shared = shared + 1
    end
    out[#out + 1] = frame("E", number(shared), text(path:sub(shared + 1)), streams.entry(e))
    before, newest = path, math.max(newest, e.changed or 2000 * NS)
  end
  for _, p in ipairs(u.problems or {}) do
    out[#out + 1] = frame("P", text(p[1]), number(p[2] or 13), text(p[3] or "open"))
  end
  if not u.unended then
    newest = #u == 0 and 0 or newest
    out[#out + 1] = frame("V", text(u.digest or ("digest of " .. u.name):sub(1, 32)), number(u.same and 1 or 0), number(#u), number(#u), number(0), number(0),
      number(0), number(0), number(0), number(0), streams.moment(newest), number(0))
  end
  return table.concat(out)
end

--- The stream of a whole scan, or of one that is cut.
---@param units table[]  of streams.unit
---@param o? { version?: integer, clock?: integer, cut?: boolean }
function streams.scan(units, o)
  o = o or {}
  local out = { streams.hello(o) }
  for _, u in ipairs(units) do
    out[#out + 1] = streams.unit(u)
  end
  out[#out + 1] = o.cut and "" or frame("Z", number(#units), number(1500))
  return table.concat(out)
end

local function expectation(r)
  if r:number() == 0 then
    return "-"
  end
  local inode, seconds, nanoseconds = r:number(), r:signed(), r:number()
  return seconds == 0 and nanoseconds == 0 and "@" .. inode or ("@%d:%d"):format(inode, seconds * NS + nanoseconds)
end

--- Work, taken apart. Each operation is a table, and as words: "F home/a -", "M home/a @5:17", "H home/b - home/a", "X home/c f @9",
--- "D home/". An expectation is "-" (nothing), "@INODE" (any ctime) or "@INODE:CTIME".
---@param bytes string
---@return table[] operations  op, unit, path, index, words; barriers are there, too
---@return string words  all of them, lines
function streams.work(bytes)
  local list, words, unit = {}, {}, nil
  for _, f in ipairs(frames.all(bytes)) do
    local op, p = { op = f.type }, frames.reader(f.payload)
    if op.op == "B" then
      unit = p:text()
      goto continue
    elseif op.op == "K" then
      op.unit, op.index, op.path = unit, p:number(), p:text()
      op.words = ("K %s/%s"):format(unit, op.path)
    elseif not op.op:find "[RQ]" then
      op.unit, op.index, op.path = unit, p:number(), p:text()
      local rest = op.op == "X" and " " .. p:text(1) or ""
      rest = op.op:find "[FMNHX]" and rest .. " " .. expectation(p) or rest
      if op.op == "M" then
        op.hash = p:text(16)
      elseif op.op == "H" then
        rest = ("%s %s/%s"):format(rest, unit, p:text())
      end
      assert(p.at == #p.bytes + 1, "more than there should be in " .. op.op)
      op.words = ("%s %s/%s%s"):format(op.op, unit, op.path, rest)
    else
      op.words = op.op
    end
    list[#list + 1], words[#words + 1] = op, op.words
    ::continue::
  end
  return list, table.concat(words, "\n")
end

local STATUS = { done = 0, vanished = 1, changing = 2, source = 3, target = 4, conflict = 5, unkept = 6 }
local NONE = ("\0"):rep(8)

--- One answer.
---@param op table  of streams.work
---@param a table  status, errno, words; or of what was done: entry (as at the source), hash, attributes, inode, device, changed, blocks, sent, racy
function streams.answer(op, a)
  local status = a.status or "done"
  if status ~= "done" then
    return frame("r", number(op.index), number(STATUS[status]), number(a.errno or 5), text(a.words or "it went wrong"))
  end
  local out = {}
  local flags = (op.op:find "[FM]" and 1 or 0) | (op.op == "H" and 2 or 0) | (op.op == "X" and 4 or 0) | (a.racy and 8 or 0)
  if not op.op:find "[HX]" then
    out[#out + 1] = streams.entry(a.entry) .. (a.attributes or NONE) .. (op.op:find "[FM]" and a.hash or "")
  end
  if op.op ~= "X" then
    out[#out + 1] = number(a.inode or 1) .. number(a.device or 8) .. streams.moment(a.changed or 3000 * NS) .. number(a.blocks or 8)
  end
  return frame("r", number(op.index), number(0), number(flags), table.concat(out), number(a.sent or 0))
end

--- One answer of a proof.
---@param op table
---@param a table  errno, or entry, attributes, hash, racy
function streams.proof(op, a)
  if a.errno then
    return frame("k", number(op.index), number(a.errno))
  end
  return frame("k", number(op.index), number(0), number(a.racy and 8 or 0), streams.entry(a.entry), a.attributes or NONE, a.hash or ("\0"):rep(16))
end

function streams.touched(inode, changed, device)
  return frame("t", number(inode), number(device or 8), streams.moment(changed))
end

streams.finished = frame("Q", number(0), number(0))

return streams
