-- Let a request in, for all limits of a key at once.
-- KEYS   key, its buckets, its holds, holds of the shard by deadline, what it spent this month
-- ARGV   1 requests to take (0, 1), 2 response id ('' = no answer is asked for), 3 tokens to reserve
--        4 picos to reserve ('' = no price), 5 member of the shard's holds, 6 ms until the hold is looked at
--        7 seconds to keep what was spent
-- Result state (see `ports.accounts.State`), ms until it may be let in (-1 = waiting does not help)
--        then for requests and for tokens: limit ('' = none), what is left, ms until the bucket is full
-- All or nothing, on the server's clock. A hold that is there already is not taken again.
-- A bucket counts units: 60,000,000 for one request or token, so that `limit` units flow in every microsecond.
local UNIT, MEMORY = 60000000, 600000000
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local key = redis.call('HMGET', KEYS[1], 'revoked_at', 'expires_at', 'requests', 'tokens', 'concurrent', 'spend')
local requests, tokens = tonumber(key[3]), tonumber(key[4])

local function level(name, limit)
  local kept = redis.call('HMGET', KEYS[2], name, name .. '_at')
  if not kept[1] then return limit * UNIT end
  local elapsed = math.min(math.max(now - tonumber(kept[2]), 0), MEMORY)
  return math.min(limit * UNIT, tonumber(kept[1]) + elapsed * limit)
end

local function keep(name, units)
  redis.call('HSET', KEYS[2], name, string.format('%.0f', units), name .. '_at', string.format('%.0f', now))
  redis.call('EXPIRE', KEYS[2], 86400)
end

local function shown(limit, units)
  if not limit then return '', 0, 0 end
  return limit, math.max(0, math.floor(units / UNIT)), math.max(0, math.ceil((limit * UNIT - units) / limit / 1000))
end

local function until_there(limit, units, wanted)
  return math.max(1, math.ceil((wanted - units) / limit / 1000))
end

-- whole numbers as text: they may be larger than a Lua number holds
local function more(a, b)
  if #a ~= #b then return #a > #b end
  return a > b
end

if not key[1] then return {'unknown', -1, '', 0, 0, '', 0, 0} end
if key[1] ~= '0' then return {'revoked', -1, '', 0, 0, '', 0, 0} end
if key[2] ~= '0' and tonumber(key[2]) * 1000000 <= now then return {'expired', -1, '', 0, 0, '', 0, 0} end

local r, t = requests and level('r', requests), tokens and level('t', tokens)
local function answer(state, wait)
  local limit, left, reset = shown(requests, r)
  return {state, wait, limit, left, reset, shown(tokens, t)}
end

local taken, asked = tonumber(ARGV[1]) * UNIT, tonumber(ARGV[3]) * UNIT
local held = ARGV[2] == '' or redis.call('HEXISTS', KEYS[3], ARGV[2]) == 1
if requests and r < taken then return answer('requests', until_there(requests, r, taken)) end
if not held then
  if tokens and asked > tokens * UNIT then return answer('too_large', -1) end
  if tokens and t < asked then return answer('tokens', until_there(tokens, t, asked)) end
  if key[5] and redis.call('HLEN', KEYS[3]) >= tonumber(key[5]) then return answer('concurrent', 1000) end
  if key[6] and ARGV[4] == '' then return answer('unpriced', -1) end
  if ARGV[4] ~= '' then
    redis.call('INCRBY', KEYS[5], ARGV[4])
    if key[6] and more(redis.call('GET', KEYS[5]), key[6]) then
      redis.call('DECRBY', KEYS[5], ARGV[4])
      return answer('spend', -1)
    end
    redis.call('EXPIRE', KEYS[5], ARGV[7])
  end
end

-- nothing is refused from here on
if requests and taken > 0 then
  r = r - taken
  keep('r', r)
end
if not held then
  if tokens then
    t = t - asked
    keep('t', t)
  end
  redis.call('HSET', KEYS[3], ARGV[2], ARGV[3] .. ' ' .. (ARGV[4] == '' and '0' or ARGV[4]))
  redis.call('ZADD', KEYS[4], math.floor(now / 1000) + ARGV[6], ARGV[5])
end
return answer('ok', 0)
