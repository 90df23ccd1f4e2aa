-- Remove a conversation; call again until it is gone.
-- KEYS   conversation, items, up, ids, running, responses, index
-- ARGV   tenant, conversation id, prefix of responses' keys, bound on the responses of one call
-- Result missing · busy · more · gone
-- The first call makes it unknown to everything else; each call removes a bounded number of responses
-- with their tapes; the last one removes the rest. A deletion that was cut off can be called again.
local tenant = redis.call('HMGET', KEYS[1], 'tenant', 'deleted')
if tenant[1] ~= ARGV[1] and tenant[2] ~= ARGV[1] then return {'missing'} end
if redis.call('SCARD', KEYS[5]) > 0 then return {'busy'} end
if tenant[1] then
  redis.call('HSET', KEYS[1], 'deleted', ARGV[1])
  redis.call('HDEL', KEYS[1], 'tenant')
  redis.call('ZREM', KEYS[7], ARGV[2])
  redis.call('PUBLISH', 'chat:changes', ARGV[2])
end

for _, id in ipairs(redis.call('SPOP', KEYS[6], ARGV[4])) do
  redis.call('UNLINK', ARGV[3] .. id, ARGV[3] .. id .. ':tape')
end
if redis.call('SCARD', KEYS[6]) > 0 then return {'more'} end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6])
return {'gone'}
