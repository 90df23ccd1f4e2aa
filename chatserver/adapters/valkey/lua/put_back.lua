-- Put claimed jobs back into the queue: those of one engine, or those whose lease ran out.
-- KEYS   leases, jobs
-- ARGV   engine id ('' = by lease), prefix of responses' keys, channel of all engines, shard, bound on the jobs put back by lease
-- Result how many were put back
-- One step. A job keeps its queue number, so it is before all that were never claimed. Its claim number
-- stays: the next claim makes the old one stale.
local ids
if ARGV[1] == '' then
  local now = redis.call('TIME')
  ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now[1] * 1000 + math.floor(now[2] / 1000), 'LIMIT', 0, ARGV[5])
else
  ids = redis.call('ZRANGE', KEYS[1], 0, -1)  -- at most what the fleet runs at once
end

local count = 0
for _, id in ipairs(ids) do
  local state = redis.call('HMGET', ARGV[2] .. id, 'owner', 'number')
  if not state[2] then
    redis.call('ZREM', KEYS[1], id)
  elseif ARGV[1] == '' or state[1] == ARGV[1] then
    redis.call('ZREM', KEYS[1], id)
    redis.call('HDEL', ARGV[2] .. id, 'owner')
    redis.call('ZADD', KEYS[2], state[2], id)
    count = count + 1
  end
end
if count > 0 then redis.call('PUBLISH', ARGV[3], ARGV[4]) end
return count
