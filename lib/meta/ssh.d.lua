---@meta runbook.core.ssh

--- Sessions with ssh servers, and what runs on them. Codes of a connection that does not come about: ERESOLVE ECONNREFUSED
--- EHOSTUNREACH ... ECONNECT (no answer) EHANDSHAKE (broken or late) EPROTO EHOSTKEY_UNKNOWN EHOSTKEY_CHANGED
--- EHOSTKEY_REVOKED EHOSTKEY_CA EAUTH EPROMPT. Of what runs on a session: ELOST (the connection is gone) ECLOSED (closed here)
--- EBUSY (MaxSessions) EDENIED ECONNREFUSED (dial) ELIMIT.
local ssh = {}

---@class runbook.core.ssh.identity
---@field path? string         a private key; or
---@field key? string|runbook.secret  its bytes
---@field certificate? string  the path of its certificate (`-cert.pub`); or
---@field certificate_text? string|runbook.secret  what stands in such a file
---@field passphrase? string|runbook.secret

---@class runbook.core.ssh.options
---@field host string
---@field user string
---@field port? integer         22
---@field alias? string         the name in known_hosts, when that is not host and port
---@field agent? string         the path of an agent's socket
---@field identities? (string|runbook.core.ssh.identity)[]
---@field identities_only? boolean  of the agent's keys only those whose public half stands beside an identity
---@field password? string|runbook.secret
---@field answers? (string|runbook.secret)[]  to the server's questions, in order
---@field ask? boolean         what these do not hold is a question to the caller, who has a `login` then
---@field order? ("agent"|"identities"|"password"|"keyboard-interactive")[]  the usual order is this
---@field known_hosts? string[]  files
---@field pins? string[]        "SHA256:..." or "ssh-ed25519 AAAA..."; these decide then, and no file but by @revoked
---@field timeout? number       seconds to connect and shake hands, and as many to authenticate; 15
---@field keepalive? number     seconds of silence before the server is asked; 15. Three unanswered are the end
---@field stream? runbook.stream  to run over; it is the session's from here on

---@class runbook.core.ssh.details
---@field key_type? string     of the host key the server showed
---@field fingerprint? string  "SHA256:..."
---@field key? string          base64, to paste
---@field known_at? string     "file:line" of the entry that decided
---@field tried? string        in words
---@field offered? string      methods the server still takes
---@field locked? string       a key file whose passphrase is missing or wrong
---@field prompts? { text: string, echo: boolean }[]  with EPROMPT: what the server asked
---@field said? string         what it said with that
---@field attempt? integer     with a login: 1, and more after wrong answers

--- Connect and get in. Questions that `answers` do not hold end it, with EPROMPT; with `ask` they only interrupt it, and
--- `login:answer` goes on.
---
---Permit: read
---@async
---@param options runbook.core.ssh.options
---@return runbook.core.ssh.session? session
---@return string? message
---@return string? code
---@return runbook.core.ssh.details? details
---@return runbook.core.ssh.login? login
function ssh.connect(options) end

---@class runbook.core.ssh.login
local login = {}

--- Answer what was asked, a text for each prompt, and go on.
---
---Permit: read
---@async
---@param answers (string|runbook.secret)[]
---@return runbook.core.ssh.session? session
---@return string? message
---@return string? code
---@return runbook.core.ssh.details? details
---@return runbook.core.ssh.login? login  it asks something else, or the same again
function login:answer(answers) end

--- Hang up at once.
function login:close() end

--- Servers do not wait for ever.
---@return boolean waiting  it would still take an answer
function login:waiting() end

---@class runbook.core.ssh.session
local session = {}

---@return boolean alive
---@return string? message  why not
---@return string? code
function session:alive() end

--- At once; what runs on it ends with ECLOSED.
function session:close() end

--- A connection from the server to another port.
---
---Permit: read
---@async
---@param host string
---@param port integer
---@return runbook.stream? stream
---@return string? message
---@return string? code
function session:dial(host, port) end

---@class runbook.core.ssh.result
---@field status? integer  nil when a signal ended it
---@field signal? string   "TERM"
---@field stdout string
---@field stderr string    its last 64 KiB

--- Run a command to its end. Without an answer nobody knows what it did: ELOST.
---
---Permit: read
---@async
---@param command string  as the far shell will see it
---@param stdin? string|runbook.secret|runbook.stream  else it is empty
---@param limit? integer  bytes of stdout, 8 MiB
---@return runbook.core.ssh.result? result
---@return string? message
---@return string? code
---@return { stdout: string, stderr: string }? partial  what had come until then
function session:exec(command, stdin, limit) end

--- What is known of the connection.
---@return { host: string, user: string, port: integer, address?: string, key_type: string, fingerprint: string, key: string, banner: string, method: string }
function session:info() end

--- Have the server listen on a port of its machine, by tcpip-forward. What connects there is accepted here. EDENIED
--- when the server does not allow it; EADDRINUSE when it may also be that the port is taken; ENOTSUP when the session is not
--- fresh: after a silence in which the server was asked whether it is there, libssh2 would take the old answer for a refusal.
---
---Permit: change
---@async
---@param host string  as the server understands it: "127.0.0.1"
---@param port integer  0: one that is free
---@return runbook.core.listen.listener? listener
---@return string? message
---@return string? code
function session:listen(host, port) end

--- Start a command and talk to it.
---
---Permit: read
---@async
---@param command string
---@return runbook.core.ssh.channel? channel
---@return string? message
---@return string? code
function session:open(command) end

--- Start a subsystem ("sftp") and talk to it.
---
---Permit: read
---@async
---@param name string
---@return runbook.stream? stream
---@return string? message
---@return string? code
function session:subsystem(name) end

---@class runbook.core.ssh.channel
local channel = {}

--- At once, and its streams with it. What the command does then is its own affair.
function channel:close() end

--- Until it is asked for, stderr is kept (its last 64 KiB) and holds nothing up.
---@return runbook.stream
function channel:stderr() end

---@return runbook.stream
function channel:stdin() end

---@return runbook.stream
function channel:stdout() end

--- Wait for the end of the command. A stdout that was not asked for before is thrown away from here on.
---@async
---@return { status?: integer, signal?: string }? how
---@return string? message
---@return string? code
function channel:wait() end

return ssh
