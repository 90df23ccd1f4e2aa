-- Hold claims for longer.
-- KEYS   leases
-- ARGV   engine id, lease in milliseconds, prefix of responses' keys, response id…
-- Result the ids that this engine does not hold (any more)
local now = redis.call('TIME')
local deadline = now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2]
local lost = {}
for i = 4, #ARGV do
  if redis.call('HGET', ARGV[3] .. ARGV[i], 'owner') == ARGV[1] and redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], deadline, ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
