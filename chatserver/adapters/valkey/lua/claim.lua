-- Take the oldest waiting jobs of some shards, in turn.
-- KEYS   awake, then jobs, leases of each shard
-- ARGV   1 engine id, 2 lease in milliseconds, 3 how many at most, 4 engines that share what waits
--        5 milliseconds for which an engine that has room after this needs no waking (0 = it does)
--        then of each shard: prefix of its responses' keys
-- Result (response id, claim, fields as they were) of each
-- One step: of two engines one gets a job. The claim number rises by 1, so whoever held the job
-- before can no longer write. Deadlines are on the server's clock.
local queues, waiting = {}, 0
for k = 2, #KEYS, 2 do
  local count = redis.call('ZCARD', KEYS[k])
  if count > 0 then
    queues[#queues + 1] = {jobs = KEYS[k], leases = KEYS[k + 1], responses = ARGV[5 + k / 2]}
    waiting = waiting + count
  end
end
local most = math.min(tonumber(ARGV[3]), math.ceil(waiting / ARGV[4]))
local now = redis.call('TIME')
local deadline = now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2]

local claimed = {}
while #claimed < most and #queues > 0 do
  local left = {}
  for _, queue in ipairs(queues) do
    local id = #claimed < most and redis.call('ZPOPMIN', queue.jobs)[1]
    if id then
      left[#left + 1] = queue
      local key = queue.responses .. id
      local fields = redis.call('HGETALL', key)
      -- a key that an operator removed by hand must not come back as half a response
      if #fields > 0 then
        local claim = redis.call('HINCRBY', key, 'claim', 1)
        redis.call('HSET', key, 'owner', ARGV[1], 'status', 'in_progress')
        redis.call('ZADD', queue.leases, deadline, id)
        claimed[#claimed + 1] = {id, claim, fields}
      end
    end
  end
  queues = left
end

if ARGV[5] ~= '0' and #claimed > 0 and #claimed < tonumber(ARGV[3]) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[5])
else
  redis.call('DEL', KEYS[1])
end
return claimed
