--- The types of names: `zone`, who changes it and how, and `fqdns`, a list of names. Making the handle asks nobody.

local dns = require "runbook.dns"
local types = require "runbook.types"
local units = require "runbook.units"
require "runbook.types.place" -- has the type `port`

types.register("dns key", {
  internal = true,
  help = "the name, algorithm and secret of a TSIG key",
  parse = function(raw, at)
    if not types.is_map(raw) then
      return nil, units.quote(raw) .. ": a map is expected, with name and secret"
    end
    return types.map({
      { "name", "string", "as the server knows it" },
      { "algorithm", "choice", "how it signs", default = "hmac-sha256", choices = { "hmac-sha256", "hmac-sha512", "hmac-sha1" } },
      { "secret", "secret", "where its secret is; a file that tsig-keygen wrote will do" },
    }, raw, at)
  end,
})

local function fields_of(kind)
  local fields = {}
  table.move(dns.FIELDS, 1, #dns.FIELDS, 1, fields)
  local own = dns.provider(kind).fields
  return table.move(own, 1, #own, #fields + 1, fields)
end

local function known_kind(kind)
  for _, one in ipairs(dns.KINDS) do
    if one == kind then
      return true
    end
  end
  return false
end

types.register("zone", {
  help = "a DNS zone, and who changes it: kind manual or rfc2136",
  pinned = { "zone", "server" },
  parse = function(raw, at)
    if not types.is_map(raw) then
      return nil, units.quote(raw) .. ": a map is expected, like {kind: manual, zone: uni.example}"
    elseif not known_kind(raw.kind) then
      types.map({ dns.FIELDS[1] }, { kind = raw.kind }, at) -- says what is wrong with it
      return nil
    end
    local fields = types.map(fields_of(raw.kind), raw, at)
    if not fields then
      return nil
    end
    local good, message = types.find("fqdn").parse(fields.zone, at:below "zone")
    if not good and fields.zone:find "[^%w_-]" then -- a top-level domain is a zone, too
      at:below "zone":problem(message)
      return nil
    end
    return dns.zone(fields)
  end,
  check = function(zone)
    zone:checks({ zone.zone })[1][2]()
  end,
  show = tostring,
  example = { "kind: manual", "zone: uni.example" },
})

types.register("fqdns", {
  help = "a list of full domain names",
  parse = function(raw, at)
    local items = at.typed and types.find("list").parse(raw, at) or types.is_list(raw) and raw or { raw }
    local names = {}
    for i, one in ipairs(items) do
      names[i] = types.value({ "names", "fqdn", "one of several" }, one, at:below(tostring(i)))
      if names[i] == nil then
        return nil
      end
    end
    if #names == 0 then
      return nil, "at least one name is expected"
    end
    return names
  end,
  show = function(list) return table.concat(list, ", ") end,
  placeholder = function(name) return { "<" .. name .. ">" } end,
  example = { "- temple.uni.example" },
})
