-- Store a new conversation with its first items.
-- KEYS   conversation, items, up, index, ids
-- ARGV   tenant, conversation id, updated_at, bound on the depth, field count, count of items
--        with ids, (field, value)…, (item id, packed ids)…, (item id, item)…
-- Result ok · full · taken
-- One step. Sent twice, it changes nothing the second time.
local owner = redis.call('HGET', KEYS[1], 'tenant')
if owner then return {owner == ARGV[1] and 'ok' or 'taken'} end
local packed = 7 + 2 * tonumber(ARGV[5])
local first = packed + 2 * tonumber(ARGV[6])
if (#ARGV - first + 1) / 2 > tonumber(ARGV[4]) then return {'full'} end

for i = 7, packed - 2, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
for i = packed, first - 2, 2 do redis.call('HSET', KEYS[5], ARGV[i], ARGV[i + 1]) end
local head, depth = '', 0
for i = first, #ARGV, 2 do
  depth = depth + 1
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  redis.call('HSET', KEYS[3], ARGV[i], depth .. ' ' .. head)
  head = ARGV[i]
end
if head ~= '' then redis.call('HSET', KEYS[1], 'head', head) end
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[2])
return {'ok'}
