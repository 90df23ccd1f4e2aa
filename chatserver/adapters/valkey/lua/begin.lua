-- Begin a turn: append its input, create the response and its tape, queue the job, wake an engine.
-- KEYS   response, tape, jobs, next queue number, idempotency key (the response again if there is none)
--        with a conversation also: conversation, items, up, running, responses, index
-- ARGV   1 response id, 2 tenant, 3 now, 4 bound on the queue
--        5 seconds to keep the idempotency key (0 = none), 6 its fingerprint
--        7 Accepted, 8 Queued, 9 watcher ('' = none), 10 bundle of both for it, 11 its channel
--        12 channel of all engines, 13 shard
--        14 mode: none (no conversation) · create · exclusive · branch
--        15 conversation id, 16 parent ('' = none), 17 title ('' = none), 18 bound on the depth
--        19 field count, (field, value)… of the response, 20 + … (item id, item)…
--        create: the conversation's fields follow the response's in the same list, after field count 2
-- Result ok · known, response id · reused · missing · no_parent · busy · moved, head · full · taken
--        overloaded, waiting jobs
-- All or nothing. Sent twice, the second one finds the response and changes nothing.
local function known_response()
  if ARGV[5] == '0' then return nil end
  local kept = redis.call('GET', KEYS[5])
  if not kept then return nil end
  local id, fingerprint = string.match(kept, '^(%S+) (.*)$')
  return fingerprint == ARGV[6] and {'known', id} or {'reused'}
end

if redis.call('EXISTS', KEYS[1]) == 1 then return {'ok'} end
local known = known_response()
if known then return known end

local mode, parent = ARGV[14], ARGV[16]
local fields = 20
local created = fields + 2 * tonumber(ARGV[19]) + 1
local items = created + 2 * tonumber(ARGV[created - 1])
local count = (#ARGV - items + 1) / 2
local depth, head = 0, parent

if mode == 'create' then
  if redis.call('EXISTS', KEYS[6]) == 1 then return {'taken'} end
  if parent ~= '' then return {'no_parent'} end
elseif mode ~= 'none' then
  local state = redis.call('HMGET', KEYS[6], 'tenant', 'head')
  if state[1] ~= ARGV[2] then return {'missing'} end
  head = state[2] or ''
  if parent ~= '' then
    local link = redis.call('HGET', KEYS[8], parent)
    if not link then return {'no_parent'} end
    depth = tonumber(string.match(link, '^%d+'))
  end
  if mode == 'exclusive' then
    if redis.call('SCARD', KEYS[9]) > 0 then return {'busy'} end
    if head ~= parent then return {'moved', head} end
  end
end
if mode ~= 'none' then
  if depth + count + 1 > tonumber(ARGV[18]) then return {'full'} end
  for i = items, #ARGV, 2 do
    if redis.call('HEXISTS', KEYS[8], ARGV[i]) == 1 then return {'taken'} end
  end
end
local waiting = redis.call('ZCARD', KEYS[3])
if waiting >= tonumber(ARGV[4]) then return {'overloaded', waiting} end

-- nothing was written so far; nothing is refused from here on
for i = fields, created - 2, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
if mode ~= 'none' then
  for i = created, items - 2, 2 do redis.call('HSET', KEYS[6], ARGV[i], ARGV[i + 1]) end
  local last = parent
  for i = items, #ARGV, 2 do
    depth = depth + 1
    redis.call('HSET', KEYS[7], ARGV[i], ARGV[i + 1])
    redis.call('HSET', KEYS[8], ARGV[i], depth .. ' ' .. last)
    last = ARGV[i]
  end
  redis.call('HSET', KEYS[6], 'head', last, 'active', ARGV[1], 'updated_at', ARGV[3])
  if ARGV[17] ~= '' and (redis.call('HGET', KEYS[6], 'title') or '') == '' then
    redis.call('HSET', KEYS[6], 'title', ARGV[17])
  end
  -- `before` and `rev` let a refused turn take its input back, if nothing was put under it since
  local rev = redis.call('HINCRBY', KEYS[6], 'rev', 1)
  redis.call('HSET', KEYS[1], 'before', head, 'rev', rev)
  redis.call('SADD', KEYS[9], ARGV[1])
  redis.call('SADD', KEYS[10], ARGV[1])
  redis.call('ZADD', KEYS[11], ARGV[3], ARGV[15])
end

local number = redis.call('INCR', KEYS[4])
redis.call('HSET', KEYS[1], 'number', number)
redis.call('ZADD', KEYS[3], number, ARGV[1])
redis.call('XADD', KEYS[2], '1-0', 'r', ARGV[7])
redis.call('XADD', KEYS[2], '2-0', 'r', ARGV[8])
if ARGV[5] ~= '0' then redis.call('SET', KEYS[5], ARGV[1] .. ' ' .. ARGV[6], 'EX', ARGV[5]) end
if ARGV[9] ~= '' then
  redis.call('HSET', KEYS[1], 'watch', ARGV[9])
  redis.call('PUBLISH', ARGV[11], ARGV[10])
end
redis.call('PUBLISH', ARGV[12], ARGV[13])
return {'ok'}
