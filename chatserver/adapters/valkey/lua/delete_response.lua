-- Forget a response and its tape; its items stay.
-- KEYS   response, tape; with a conversation also: its set of responses
-- ARGV   tenant, response id
-- Result missing · running · gone
local state = redis.call('HMGET', KEYS[1], 'tenant', 'status')
if state[1] ~= ARGV[1] then return {'missing'} end
if state[2] == 'queued' or state[2] == 'in_progress' then return {'running'} end
if KEYS[3] then redis.call('SREM', KEYS[3], ARGV[2]) end
redis.call('UNLINK', KEYS[1], KEYS[2])
return {'gone'}
