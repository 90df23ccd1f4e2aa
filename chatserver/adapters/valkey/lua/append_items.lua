-- Add items under a conversation's head and move the head.
-- KEYS   conversation, items, up, running, index
-- ARGV   tenant, conversation id, now, bound on the depth, (item id, item)…
-- Result missing · busy · full · taken (some items exist) · ok, fields
-- All or nothing. Sent twice, it finds all its items and changes nothing.
if redis.call('HGET', KEYS[1], 'tenant') ~= ARGV[1] then return {'missing'} end
local known = 0
for i = 5, #ARGV, 2 do known = known + redis.call('HEXISTS', KEYS[3], ARGV[i]) end
local count = (#ARGV - 4) / 2
if known == count then return {'ok', redis.call('HGETALL', KEYS[1])} end
if known > 0 then return {'taken'} end
if redis.call('SCARD', KEYS[4]) > 0 then return {'busy'} end

local head, depth = redis.call('HGET', KEYS[1], 'head') or '', 0
if head ~= '' then depth = tonumber(string.match(redis.call('HGET', KEYS[3], head), '^%d+')) end
if depth + count > tonumber(ARGV[4]) then return {'full'} end

for i = 5, #ARGV, 2 do
  depth = depth + 1
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  redis.call('HSET', KEYS[3], ARGV[i], depth .. ' ' .. head)
  head = ARGV[i]
end
redis.call('HSET', KEYS[1], 'head', head, 'updated_at', ARGV[3])
redis.call('HINCRBY', KEYS[1], 'rev', 1)
redis.call('ZADD', KEYS[5], ARGV[3], ARGV[2])
redis.call('PUBLISH', 'chat:changes', ARGV[2])
return {'ok', redis.call('HGETALL', KEYS[1])}
