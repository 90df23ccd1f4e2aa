-- Take the oldest waiting jobs of a shard.
-- KEYS   jobs, leases
-- ARGV   engine id, lease in milliseconds, prefix of responses' keys, how many at most
-- Result (response id, fields) of each
-- One step: of two engines one gets a job. The claim number rises by 1, so whoever held the job
-- before can no longer write. Deadlines are on the server's clock.
local claimed = {}
while #claimed < tonumber(ARGV[4]) do
  local id = redis.call('ZPOPMIN', KEYS[1])[1]
  if not id then break end
  local key = ARGV[3] .. id
  -- a key that an operator removed by hand must not come back as half a response
  if redis.call('EXISTS', key) == 1 then
    local now = redis.call('TIME')
    redis.call('HINCRBY', key, 'claim', 1)
    redis.call('HSET', key, 'owner', ARGV[1], 'status', 'in_progress')
    redis.call('ZADD', KEYS[2], now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2], id)
    claimed[#claimed + 1] = {id, redis.call('HGETALL', key)}
  end
end
return claimed
