-- Walk from an item towards the root.
-- KEYS   conversation, items, up, ids
-- ARGV   tenant, leaf ('' = none), bound on the items of one call, with ids (1, 0)
-- Result missing · no_parent (no such item) · ok, next item up ('' = the root was reached), item ids, items, packed ids
--        from the leaf upwards; packed ids are empty unless asked for, and false where there are none
-- Reads only. An item's parent never changes, so the walk may go on in another call.
if redis.call('HGET', KEYS[1], 'tenant') ~= ARGV[1] then return {'missing'} end
local path, at, limit = {}, ARGV[2], tonumber(ARGV[3])
while at ~= '' and #path < limit do
  local link = redis.call('HGET', KEYS[3], at)
  if not link then return {'no_parent'} end
  path[#path + 1] = at
  at = string.match(link, ' (.*)$')
end

-- unpack() is bound by Lua's stack: ask for a thousand fields at once at most
local function collect(key)
  local found = {}
  for first = 1, #path, 1000 do
    local part = redis.call('HMGET', key, unpack(path, first, math.min(first + 999, #path)))
    for i = 1, #part do found[#found + 1] = part[i] end
  end
  return found
end

return {'ok', at, path, collect(KEYS[2]), ARGV[4] == '1' and collect(KEYS[4]) or {}}
