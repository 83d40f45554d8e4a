---@meta runbook.core.http

local http = {}

---@class runbook.core.http.options
---@field method string
---@field url string            http or https
---@field headers? { [1]: string, [2]: string|runbook.secret|(string|runbook.secret)[] }[]  names and values; a list is joined
---@field body? string|runbook.secret
---@field from? runbook.stream  the body, instead of bytes
---@field from_length? integer  of it, when known
---@field to? runbook.stream    takes the body of an answer 2xx
---@field max? integer          bytes of a body that is kept, 8 MiB
---@field timeout? number       seconds for the whole; 0: none
---@field connect_timeout? number
---@field stall? number         seconds without a byte
---@field user? string          basic authentication
---@field password? string|runbook.secret
---@field proxy? string         "": none; by the environment, when missing
---@field ca? string|runbook.secret  PEM; the system's, when missing
---@field certificate? string|runbook.secret  PEM
---@field key? string|runbook.secret  PEM
---@field connect_to? string    "host:port:host:port": go to the second, when the URL says the first
---@field insecure? boolean     any certificate will do
---@field lasting? boolean      the answer may last for hours: it gets a connection of its own
---@field reads? boolean        it changes nothing, whatever its method

---@class runbook.core.http.answer
---@field status integer
---@field headers string[]      name, value, name, value...
---@field body? string          nil: it went to the stream
---@field length integer
---@field redirect? string      the absolute URL it points to

--- One request and its answer; redirects are told, not followed.
---Permit: read
---Permit: change, unless `method` is GET, HEAD or OPTIONS, or `reads` is set
---@async
---@param options runbook.core.http.options
---@return runbook.core.http.answer? answer
---@return string? err
---@return string? code  "ERESOLVE" | "ECONNREFUSED" | "ECONNECT" | "EHANDSHAKE" | "ETLS" | "ETIMEDOUT" | "ELOST" | "ELIMIT" | "EINVAL" | ...
function http.request(options) end

return http
