-- Walk from an item towards the root.
-- KEYS   conversation, up
-- ARGV   tenant, leaf ('' = none), bound on the items of one call
-- Result missing · no_parent (no such item) · ok, next item up ('' = the root was reached), item ids from the leaf up
-- Reads only. An item's parent never changes, so the walk may go on in another call; what lies at the
-- items is read by plain commands, which costs the server a fifth of what it would cost in here.
local call, find, sub = redis.call, string.find, string.sub
if call('HGET', KEYS[1], 'tenant') ~= ARGV[1] then return {'missing'} end
local path, count, at, limit = {}, 0, ARGV[2], tonumber(ARGV[3])
while at ~= '' and count < limit do
  local link = call('HGET', KEYS[2], at)
  if not link then return {'no_parent'} end
  count = count + 1
  path[count] = at
  at = sub(link, find(link, ' ', 1, true) + 1)
end
return {'ok', at, path}
