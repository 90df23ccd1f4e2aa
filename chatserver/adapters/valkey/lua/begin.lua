-- Begin a turn: append its input, create the response (and its siblings) and its tape, queue the job, wake the engines
-- unless the only one is awake.
-- KEYS   response, tape, jobs, next queue number, idempotency key (the response again if there is none)
--        with a conversation also: conversation, items, up, running, responses, index
--        at the end: (response, tape)… of the siblings, which answer the same input and move nothing; awake
-- ARGV   1 response id, 2 tenant, 3 now, 4 bound on the queue
--        5 seconds to keep the idempotency key (0 = none), 6 its fingerprint
--        7 Accepted, 8 Queued: whoever watches from the start knows them, so they are not announced
--        9 channel of all engines, 10 shard
--        11 mode: none (no conversation) · create · exclusive · branch
--        12 conversation id, 13 parent ('' = none), 14 title ('' = none), 15 bound on the depth
--        16 sibling count, then lists, each after its length: (field, value)… of the response, of a conversation
--        that is created, (sibling id, field, value…)… of each sibling; the rest: (item id, item)…
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

local mode, parent = ARGV[11], ARGV[13]
local siblings = tonumber(ARGV[16])
local lists, items = {}, 17
for i = 1, siblings + 2 do
  lists[i] = {first = items + 1, last = items + tonumber(ARGV[items])}
  items = lists[i].last + 1
end
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
  if depth + count + 1 > tonumber(ARGV[15]) then return {'full'} end
  for i = items, #ARGV, 2 do
    if redis.call('HEXISTS', KEYS[8], ARGV[i]) == 1 then return {'taken'} end
  end
end
local waiting = redis.call('ZCARD', KEYS[3])
if waiting + siblings >= tonumber(ARGV[4]) then return {'overloaded', waiting} end

-- nothing was written so far; nothing is refused from here on
local function store(key, first, last)
  if last > first then redis.call('HSET', key, unpack(ARGV, first, last)) end
end
local function queue(response, tape, id)
  local number = redis.call('INCR', KEYS[4])
  redis.call('HSET', response, 'number', number)
  redis.call('ZADD', KEYS[3], number, id)
  redis.call('XADD', tape, '1-0', 'r', ARGV[7])
  redis.call('XADD', tape, '2-0', 'r', ARGV[8])
  if mode ~= 'none' then
    redis.call('SADD', KEYS[9], id)
    redis.call('SADD', KEYS[10], id)
  end
end

store(KEYS[1], lists[1].first, lists[1].last)
if mode ~= 'none' then
  store(KEYS[6], lists[2].first, lists[2].last)
  local last = parent
  for i = items, #ARGV, 2 do
    depth = depth + 1
    redis.call('HSET', KEYS[7], ARGV[i], ARGV[i + 1])
    redis.call('HSET', KEYS[8], ARGV[i], depth .. ' ' .. last)
    last = ARGV[i]
  end
  redis.call('HSET', KEYS[6], 'head', last, 'active', ARGV[1], 'updated_at', ARGV[3])
  if ARGV[14] ~= '' and (redis.call('HGET', KEYS[6], 'title') or '') == '' then
    redis.call('HSET', KEYS[6], 'title', ARGV[14])
  end
  -- `before` and `rev` let a refused turn take its input back, if nothing was put under it since
  local rev = redis.call('HINCRBY', KEYS[6], 'rev', 1)
  redis.call('HSET', KEYS[1], 'before', head, 'rev', rev)
  redis.call('ZADD', KEYS[11], ARGV[3], ARGV[12])
end

queue(KEYS[1], KEYS[2], ARGV[1])
for i = 1, siblings do
  local list, at = lists[i + 2], #KEYS - 2 * (siblings - i + 1)
  store(KEYS[at], list.first + 1, list.last)
  queue(KEYS[at], KEYS[at + 1], ARGV[list.first])
end
if ARGV[5] ~= '0' then redis.call('SET', KEYS[5], ARGV[1] .. ' ' .. ARGV[6], 'EX', ARGV[5]) end
if redis.call('EXISTS', KEYS[#KEYS]) == 0 then redis.call('PUBLISH', ARGV[9], ARGV[10]) end
if mode ~= 'none' then redis.call('PUBLISH', 'chat:changes', ARGV[12]) end
return {'ok'}
