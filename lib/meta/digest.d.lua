---@meta runbook.core.digest

--- Digests, base64, random bytes and key pairs. Only `hmac` takes secrets; whatever else is made of one would be as good as it.
local digest = {}

---@param bytes string
---@return string text
function digest.base64(bytes) end

--- A key pair made in memory. `private` is an OpenSSH private key without a passphrase.
---@param comment string  ends the public line
---@param name? string    of the secret; the comment
---@return { private: runbook.secret, public: string, fingerprint: string } pair
function digest.ed25519(comment, name) end

--- What `ssh-keygen -l` shows.
---@param line string  of authorized_keys or known_hosts
---@return string? fingerprint  "SHA256:..."
---@return string? message
---@return string? code
function digest.fingerprint(line) end

---@param bytes string
---@return string text
function digest.hex(bytes) end

---@param algorithm "sha1"|"sha256"|"sha512"
---@param key string|runbook.secret
---@param bytes string|runbook.secret
---@param raw? boolean  bytes, not hex
---@return string
function digest.hmac(algorithm, key, bytes, raw) end

---@param n integer  0 to 1048576
---@return string bytes
function digest.random(n) end

---@param bytes string
---@param raw? boolean  bytes, not hex
---@return string
function digest.sha1(bytes, raw) end

---@param bytes string
---@param raw? boolean  bytes, not hex
---@return string
function digest.sha256(bytes, raw) end

--- On the thread pool. Not for a database that this process has open: reading it here would drop its locks.
---
---Permit: read
---@async
---@param path string
---@param raw? boolean  bytes, not hex
---@param from? integer    the first byte that counts, 0
---@param length? integer  how many do; all that follow
---@return string? digest
---@return integer|string size  of what was read, or the message
---@return string? code
function digest.sha256_file(path, raw, from, length) end

--- Both alphabets, with or without padding.
---@param text string
---@return string? bytes
---@return string? message
---@return string? code
function digest.unbase64(text) end

---@param text string
---@return string? bytes
---@return string? message
---@return string? code
function digest.unhex(text) end

return digest
