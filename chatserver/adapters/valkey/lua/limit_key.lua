-- Give an API key other limits.
-- KEYS   key
-- ARGV   (limit, value)…; '' = there is no such limit from now on
-- Result fields
-- One step; sent twice, it leaves the same state.
for i = 1, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[i])
  else
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
return redis.call('HGETALL', KEYS[1])
