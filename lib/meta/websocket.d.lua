---@meta runbook.core.websocket

local websocket = {}

---@class runbook.core.websocket.options
---@field url string            http or https
---@field headers? { [1]: string, [2]: string|runbook.secret|(string|runbook.secret)[] }[]  names and values; a list is joined
---@field protocols? string[]   subprotocols we offer, best first
---@field channels? boolean     the first byte of a message is its channel
---@field keepalive? number     seconds between pings; 0: none
---@field connect_timeout? number  seconds until it is open; 0: any
---@field proxy? string         "": none; by the environment, when missing
---@field ca? string|runbook.secret  PEM; the system's, when missing
---@field certificate? string|runbook.secret  PEM
---@field key? string|runbook.secret  PEM
---@field connect_to? string    "host:port:host:port": go to the second, when the URL says the first
---@field insecure? boolean     any certificate will do
---@field reads? boolean        what it is opened for changes nothing

---@class runbook.core.websocket.websocket
local ws = {}

--- Give it up; its streams live on, and the connection with the last of them.
function ws:close() end

--- How the other side closed it.
---@return integer? code  1000: as it should be; 1005: it gave none; nil: it has not
---@return string? reason
function ws:closed() end

--- The subprotocol that the server took.
---@return string? name
function ws:protocol() end

---@class runbook.core.websocket.stream
---@field read? integer   the channel that is read (any number where there are no channels)
---@field write? integer  the channel that is written to
---@field mark? string    what ends the bytes that are read; one that ends before was cut, and reading it says so
---@field finish? string  the message that half-closes it; without one it has no half to close
---@field main? boolean   when it is closed, all is over: the others read what has come, and its end
---@field sized? boolean  before what is written go pieces' lengths: "262144\n"

--- A stream over it. All streams are to be made at once after `connect`: what comes for a channel without one is thrown away.
--- The second that reads a channel gets what follows the mark of the first.
---@param options runbook.core.websocket.stream
---@return runbook.stream
function ws:stream(options) end

--- Open a websocket. A server that answers and does not open one is EREFUSED: the details have its status, headers and body.
---Permit: read
---Permit: change, unless `reads` is set
---@async
---@param options runbook.core.websocket.options
---@return runbook.core.websocket.websocket? websocket
---@return string? err
---@return string? code  "EREFUSED" | "ERESOLVE" | "ECONNREFUSED" | "ECONNECT" | "EHANDSHAKE" | "ETLS" | "ETIMEDOUT" | "ELOST" | "EPROTO" | ...
---@return { status?: integer, headers?: string[], body?: string }? details
function websocket.connect(options) end

return websocket
