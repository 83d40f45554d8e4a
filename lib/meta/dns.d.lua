---@meta runbook.core.dns

--- Questions to DNS servers and updates of zones, one server at a time. Codes: ETIMEDOUT ECONNREFUSED ENETUNREACH EHOSTUNREACH
--- ELOST EPROTO (no DNS, or an answer to something else) ELIMIT EFORGED (not signed, or not with our key) EINVAL ERESOLVE.
local dns = {}

---@class runbook.core.dns.key
---@field name string
---@field algorithm "hmac-sha256"|"hmac-sha512"|"hmac-sha1"
---@field secret string|runbook.secret  base64, or the file that tsig-keygen writes

---@class runbook.core.dns.record
---@field name string  with a dot at its end
---@field ttl integer
---@field type string
---@field data string  as zone files write it

---@class runbook.core.dns.answer
---@field rcode string  "NOERROR" | "NXDOMAIN" | "SERVFAIL" | "REFUSED" | "NOTAUTH" | ...
---@field authoritative boolean
---@field recursion boolean  it would ask others for us
---@field authentic boolean  it says that signatures were verified
---@field tcp boolean
---@field answer runbook.core.dns.record[]
---@field authority runbook.core.dns.record[]
---@field additional runbook.core.dns.record[]
---@field key_error? integer  what the server says of our signature: 16 BADSIG, 17 BADKEY, 18 BADTIME
---@field skew? integer  with it: seconds its clock is ahead of ours

--- Ask a server. By UDP, by TCP when the answer is cut, when it is signed, and for type AXFR, the whole zone.
---Permit: read
---@async
---@param options { address: string, port?: integer, name: string, type: string, recurse?: boolean, dnssec?: boolean, tcp?: boolean, key?: runbook.core.dns.key, timeout?: number, records?: integer }
---@return runbook.core.dns.answer? answer
---@return string? err
---@return string? code
function dns.query(options) end

--- Change a zone (RFC 2136), all lines or none. Lines are those of nsupdate: `prereq nxdomain NAME`, `prereq yxdomain NAME`,
--- `prereq nxrrset NAME TYPE`, `prereq yxrrset NAME TYPE [DATA]`, `update add NAME TTL TYPE DATA`, `update delete NAME
--- [TYPE [DATA]]`. It is sent once.
---Permit: read
---Permit: change, unless `lines` are prerequisites only
---@async
---@param options { address: string, port?: integer, zone: string, lines: string, key?: runbook.core.dns.key, timeout?: number }
---@return runbook.core.dns.answer? answer
---@return string? err
---@return string? code
function dns.update(options) end

--- The addresses of a host, as this machine finds them.
---Permit: read
---@async
---@param host string
---@return string[]? addresses
---@return string? err
---@return string? code
function dns.addresses(host) end

return dns
