-- Replace what an answer reserved by what it used, and count that.
-- KEYS   key, its buckets, its holds, holds of the shard by deadline, what it spent that month
--        its usage that month, keys of its tenant, tenants of the shard, mark of the response
-- ARGV   1 response id, 2 member of the shard's holds, 3 tokens used, 4 picos ('' = no price)
--        5 key id ('' = the answer never began: only give back)
--        6 day, 7 model, 8 prompt, 9 cached, 10 output tokens, 11 seconds to keep usage, 12 seconds to keep the mark, 13 tenant, 14 currency
--        15 the time until which this may be done, server seconds
-- Result 1 · 0 (nothing was held, or the answer was settled before) · -1 (too late: read the bill again)
-- One step, and once: the mark and the hold say what has been done. Whoever read the bill so long ago that the mark
-- may be gone does nothing. Money is added as whole numbers of 64 bits.
local UNIT, MEMORY = 60000000, 600000000
local counting = ARGV[5] ~= ''
if counting and tonumber(redis.call('TIME')[1]) > tonumber(ARGV[15]) then return -1 end
if counting and not redis.call('SET', KEYS[9], '1', 'NX', 'EX', ARGV[12]) then return 0 end

local hold = redis.call('HGET', KEYS[3], ARGV[1])
if not hold and not counting then return 0 end
local tokens, picos = string.match(hold or '0 0', '^(%d+) (%d+)$')
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[2])

local limit = tonumber(redis.call('HGET', KEYS[1], 'tokens') or nil)
if limit then
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  local kept = redis.call('HMGET', KEYS[2], 't', 't_at')
  local units = limit * UNIT
  if kept[1] then
    units = tonumber(kept[1]) + math.min(math.max(now - tonumber(kept[2]), 0), MEMORY) * limit
  end
  -- a bucket may owe up to a minute: an answer that was longer than its estimate cannot lock a key out for hours
  units = math.min(limit * UNIT, math.max(-limit * UNIT, units + (tokens - ARGV[3]) * UNIT))
  redis.call('HSET', KEYS[2], 't', string.format('%.0f', units), 't_at', string.format('%.0f', now))
  redis.call('EXPIRE', KEYS[2], 86400)
end

if picos ~= '0' then redis.call('DECRBY', KEYS[5], picos) end
if ARGV[4] ~= '' and ARGV[4] ~= '0' then redis.call('INCRBY', KEYS[5], ARGV[4]) end
if redis.call('EXISTS', KEYS[5]) == 1 then redis.call('EXPIRE', KEYS[5], ARGV[11]) end
if not counting then return 1 end

local function count(what, by)
  if by ~= '0' then redis.call('HINCRBY', KEYS[6], ARGV[6] .. '|' .. what .. '|' .. ARGV[7], by) end
end
count('answers', '1')
count('prompt', ARGV[8])
count('cached', ARGV[9])
count('output', ARGV[10])
if ARGV[4] == '' then
  count('unpriced', '1')
else
  redis.call('HINCRBY', KEYS[6], ARGV[6] .. '|cost:' .. ARGV[14] .. '|' .. ARGV[7], ARGV[4])
end
redis.call('EXPIRE', KEYS[6], ARGV[11])
redis.call('SADD', KEYS[7], ARGV[5])
redis.call('SADD', KEYS[8], ARGV[13])
return 1
