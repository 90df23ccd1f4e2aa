-- Ask for a response to end.
-- KEYS   response, tape, jobs; with a conversation also: conversation, up, running, index
--        always at the end: pens, bills
-- ARGV   1 response id, 2 tenant, 3 now, 4 seconds to keep what has ended
--        5 outcome, 6 Ended with it, 7 its entry id, 8 bundle of it
--        9 prefix of engines' channels, 10 prefix of web processes' channels, 11 conversation id, 12 last input ('' = none, '-' = a sibling)
--        13 what the end adds to the bill
-- Result missing · ok, fields
-- One step. A job that was never claimed ends here as cancelled, its input kept. One that was put back after a
-- crash has text on its tape: it only gets the flag, and the next engine ends it properly.
-- Sent twice, it leaves the same state.
local state = redis.call('HMGET', KEYS[1], 'tenant', 'status', 'claim', 'owner', 'watch', 'stored', 'before', 'parent', 'bill')
if state[1] ~= ARGV[2] then return {'missing'} end
if state[2] ~= 'queued' and state[2] ~= 'in_progress' then return {'ok', redis.call('HGETALL', KEYS[1])} end
redis.call('HSET', KEYS[1], 'stop', '1')
redis.call('DEL', KEYS[#KEYS - 1])  -- see append

if state[3] ~= '0' then
  if state[4] then redis.call('PUBLISH', ARGV[9] .. state[4], ARGV[1]) end
  return {'ok', redis.call('HGETALL', KEYS[1])}
end

redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('XADD', KEYS[2], ARGV[7], 'r', ARGV[6])
redis.call('HSET', KEYS[1], 'status', 'cancelled', 'outcome', ARGV[5])
redis.call('HDEL', KEYS[1], 'watch')
if state[9] then redis.call('HSET', KEYS[#KEYS], ARGV[1], state[9] .. ARGV[13]) end
redis.call('EXPIRE', KEYS[2], ARGV[4])
if state[6] ~= '1' then redis.call('EXPIRE', KEYS[1], ARGV[4]) end
if ARGV[11] ~= '' then
  redis.call('SREM', KEYS[6], ARGV[1])
  if redis.call('HGET', KEYS[4], 'active') == ARGV[1] then
    local other = redis.call('SRANDMEMBER', KEYS[6])
    if other then redis.call('HSET', KEYS[4], 'active', other) else redis.call('HDEL', KEYS[4], 'active') end
  end
  -- a regeneration that never ran: the earlier answer is the head again
  local before = state[7] or ''
  local head = redis.call('HGET', KEYS[4], 'head') or ''
  if ARGV[12] == '' and head == (state[8] or '') and redis.call('HEXISTS', KEYS[5], before) == 1 then
    redis.call('HSET', KEYS[4], 'head', before)
  end
  redis.call('HSET', KEYS[4], 'updated_at', ARGV[3])
  redis.call('ZADD', KEYS[7], ARGV[3], ARGV[11])
  redis.call('PUBLISH', 'chat:changes', ARGV[11])
end
for web in string.gmatch(state[5] or '', '%S+') do redis.call('PUBLISH', ARGV[10] .. web, ARGV[8]) end
return {'ok', redis.call('HGETALL', KEYS[1])}
