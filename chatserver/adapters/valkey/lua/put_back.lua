-- Put claimed jobs back into the queue: those of one engine, or those whose lease ran out.
-- KEYS   leases, jobs, pens
-- ARGV   engine id ('' = by lease), prefix of responses' keys, channel of all engines, shard, bound on the jobs put back by lease
--        Interrupted
-- Result for each job that was put back: id, entry id of its Interrupted, ids of the web processes that watch
-- One step. A job keeps its queue number, so it is before all that were never claimed. Its tape says so, and
-- without an owner nobody can write to it: what the old one still sends is refused, and so is its end.
local ids
if ARGV[1] == '' then
  local now = redis.call('TIME')
  ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now[1] * 1000 + math.floor(now[2] / 1000), 'LIMIT', 0, ARGV[5])
else
  ids = redis.call('ZRANGE', KEYS[1], 0, -1)  -- at most what the fleet runs at once
end

local out = {}
for _, id in ipairs(ids) do
  local key = ARGV[2] .. id
  local state = redis.call('HMGET', key, 'owner', 'number', 'watch')
  if not state[2] then
    redis.call('ZREM', KEYS[1], id)
  elseif ARGV[1] == '' or state[1] == ARGV[1] then
    redis.call('ZREM', KEYS[1], id)
    redis.call('HDEL', key, 'owner')
    redis.call('ZADD', KEYS[2], state[2], id)
    local tail = redis.call('XREVRANGE', key .. ':tape', '+', '-', 'COUNT', 1)[1]
    local entry = (tail and tonumber(string.match(tail[1], '^%d+')) or 0) + 1
    redis.call('XADD', key .. ':tape', entry .. '-0', 'r', ARGV[6])
    out[#out + 1] = id
    out[#out + 1] = entry
    out[#out + 1] = state[3] or ''
  end
end
if #out > 0 then
  redis.call('DEL', KEYS[3])  -- see append
  redis.call('PUBLISH', ARGV[3], ARGV[4])
end
return out
