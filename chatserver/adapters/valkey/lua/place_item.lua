-- Place an item beside the branches: under its parent, never at the head.
-- KEYS   conversation, items, up, ids, bills
-- ARGV   tenant, item id, item, parent, packed ids, bill ('' = none)
-- Result missing · no_item (the parent is gone) · ok
-- One step. Sent twice, it changes nothing the second time; an item that is there already stays as it is.
if redis.call('HGET', KEYS[1], 'tenant') ~= ARGV[1] then return {'missing'} end
local link = redis.call('HGET', KEYS[3], ARGV[4])
if not link then return {'no_item'} end
if redis.call('HSETNX', KEYS[3], ARGV[2], (tonumber(string.match(link, '^%d+')) + 1) .. ' ' .. ARGV[4]) == 1 then
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
  redis.call('HSET', KEYS[4], ARGV[2], ARGV[5])
  redis.call('HINCRBY', KEYS[1], 'rev', 1)
  if ARGV[6] ~= '' then redis.call('HSET', KEYS[5], ARGV[2], ARGV[6]) end
  redis.call('PUBLISH', 'chat:changes', string.match(KEYS[1], '[^:]+$'))
end
return {'ok'}
