--- The bytes of src/frame.h and src/entry.h, written and read by hand: what a far side says that ours never would.

local frames = {}

--- LEB128.
---@param n integer
---@return string
function frames.number(n)
  local bytes = {}
  repeat
    local rest = n >> 7
    bytes[#bytes + 1] = string.char(n & 0x7f | (rest ~= 0 and 0x80 or 0))
    n = rest
  until n == 0
  return table.concat(bytes)
end

---@param n integer
---@return string
function frames.signed(n)
  return frames.number(n << 1 ~ (n < 0 and -1 or 0))
end

---@param s string
---@return string
function frames.text(s)
  return frames.number(#s) .. s
end

---@param type string  a letter
---@param ... string  the payload's pieces
---@return string
function frames.frame(type, ...)
  return type .. frames.text(table.concat { ... })
end

--- The fields of an entry; what is not given is 0.
---@param e table  type, mode, uid, gid, size, modified, changed (seconds), inode, links, node, target
---@return string
function frames.entry(e)
  local number = frames.number
  local kind = e.type or "f"
  return table.concat {
    kind, number(e.mode or 0), number(e.uid or 0), number(e.gid or 0), number(e.size or 0),
    frames.signed(e.modified or 0), number(0), frames.signed(e.changed or 0), number(0),
    number(e.inode or 0), number(0), number(e.links or 1), number(0),
    (kind == "b" or kind == "c") and number(e.node or 0) or kind == "l" and frames.text(e.target or "") or "",
  }
end

--- What stands on the target: nothing, or an inode with its ctime ("any" without).
---@param inode integer?
---@param seconds integer?
---@param nanoseconds integer?
---@return string
function frames.expect(inode, seconds, nanoseconds)
  if not inode then
    return frames.number(0)
  end
  return frames.number(1) .. frames.number(inode) .. frames.signed(seconds or 0) .. frames.number(nanoseconds or 0)
end

---@class spec.frames.Reader
---@field bytes string
---@field at integer
local Reader = {}
Reader.__index = Reader

---@param bytes string
---@return spec.frames.Reader
function frames.reader(bytes)
  return setmetatable({ bytes = bytes, at = 1 }, Reader)
end

---@return integer
function Reader:number()
  local n, shift = 0, 0
  repeat
    local byte = assert(self.bytes:byte(self.at), "a number is cut")
    n, shift, self.at = n | (byte & 0x7f) << shift, shift + 7, self.at + 1
  until byte < 0x80
  return n
end

---@return integer
function Reader:signed()
  local n = self:number()
  return n >> 1 ~ -(n & 1)
end

---@param length integer?  default: it says so itself
---@return string
function Reader:text(length)
  length = length or self:number()
  assert(self.at + length - 1 <= #self.bytes, "a text is cut")
  self.at = self.at + length
  return self.bytes:sub(self.at - length, self.at - 1)
end

---@return table entry  with `modified` and `changed` as seconds, `modified_ns` and `changed_ns` beside them
function Reader:entry()
  local e = { type = self:text(1), mode = self:number(), uid = self:number(), gid = self:number(), size = self:number() }
  e.modified, e.modified_ns = self:signed(), self:number()
  e.changed, e.changed_ns = self:signed(), self:number()
  e.inode, e.device, e.links, e.blocks = self:number(), self:number(), self:number(), self:number()
  if e.type == "b" or e.type == "c" then
    e.node = self:number()
  elseif e.type == "l" then
    e.target = self:text()
  end
  return e
end

--- The frames in some bytes; raises when the last one is cut.
---@param bytes string
---@return { type: string, payload: string }[]
function frames.all(bytes)
  local list, r = {}, frames.reader(bytes)
  while r.at <= #bytes do
    list[#list + 1] = { type = r:text(1), payload = r:text() }
  end
  return list
end

return frames
