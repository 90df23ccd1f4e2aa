-- Change a conversation's own fields.
-- KEYS   conversation, index
-- ARGV   tenant, conversation id, now, (field, value)…
-- Result missing · ok, fields
-- One step; sent twice, it leaves the same state.
if redis.call('HGET', KEYS[1], 'tenant') ~= ARGV[1] then return {'missing'} end
redis.call('HSET', KEYS[1], 'updated_at', ARGV[3])
for i = 4, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
redis.call('PUBLISH', 'chat:changes', ARGV[2])
return {'ok', redis.call('HGETALL', KEYS[1])}
