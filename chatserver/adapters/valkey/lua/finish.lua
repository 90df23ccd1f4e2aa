-- End a response.
-- KEYS   response, tape, jobs, leases; with a conversation also: conversation, items, up, ids, running, index
--        always at the end: pens, bills
-- ARGV   1 response id, 2 claim, 3 status, 4 outcome, 5 now (0 = unknown), 6 seconds to keep what has ended
--        7 stored (1, 0), 8 prefix of web processes' channels, 9 bundle of the closing records
--        10 conversation id ('' = none), 11 parent ('' = none, '-' = a sibling: the head stays), 12 discard the inputs (1, 0)
--        13 answer's id ('' = none), 14 answer, 15 answer's parent ('' = none)
--        16 input count, 17 count of items with ids, 18 record count, 19 first sequence number of the records
--        20 what the end adds to the bill
--        then: input id…, (item id, packed ids)…, (entry id, record)…
-- Result 1 · 0 (the claim is old, the job was put back, or the records leave a gap; nothing was changed)
-- One step: tape, outcome, answer, head, lease and job together; then the watchers are told. Sent twice, it
-- changes nothing the second time.
local state = redis.call('HMGET', KEYS[1], 'claim', 'status', 'watch', 'before', 'rev', 'owner', 'bill')
if state[1] ~= ARGV[2] then return 0 end
if state[2] ~= 'in_progress' then return state[2] == 'queued' and 0 or 1 end
if not state[6] then return 0 end

local inputs = 21
local packed = inputs + tonumber(ARGV[16])
local records = packed + 2 * tonumber(ARGV[17])
local tail = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local top = tail and tonumber(string.match(tail[1], '^%d+')) or 0
if records < #ARGV and tonumber(ARGV[19]) > top then return 0 end

for i = records, #ARGV, 2 do
  if tonumber(ARGV[i]) > top then redis.call('XADD', KEYS[2], ARGV[i], 'r', ARGV[i + 1]) end
end
redis.call('HSET', KEYS[1], 'status', ARGV[3], 'outcome', ARGV[4])
redis.call('HDEL', KEYS[1], 'watch', 'owner')
redis.call('DEL', KEYS[#KEYS - 1])  -- see append
if state[7] then redis.call('HSET', KEYS[#KEYS], ARGV[1], state[7] .. ARGV[20]) end
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[6])
if ARGV[7] ~= '1' then redis.call('EXPIRE', KEYS[1], ARGV[6]) end

if ARGV[10] ~= '' then
  local head = redis.call('HGET', KEYS[5], 'head') or ''
  local last = ARGV[16] == '0' and ARGV[11] or ARGV[packed - 1]
  local answer = ARGV[13]
  -- what was put under the inputs since the turn began would lose its root
  if ARGV[12] == '1' and redis.call('HGET', KEYS[5], 'rev') == state[5] then
    for i = inputs, packed - 1 do
      for _, key in ipairs({KEYS[6], KEYS[7], KEYS[8]}) do redis.call('HDEL', key, ARGV[i]) end
    end
  end
  if answer ~= '' then
    local link = ARGV[15] ~= '' and redis.call('HGET', KEYS[7], ARGV[15])
    local depth = link and tonumber(string.match(link, '^%d+')) or 0
    redis.call('HSET', KEYS[6], answer, ARGV[14])
    redis.call('HSET', KEYS[7], answer, (depth + 1) .. ' ' .. (link and ARGV[15] or ''))
    -- from now on the input that it answers cannot be taken back
    if ARGV[11] == '-' then redis.call('HINCRBY', KEYS[5], 'rev', 1) end
  end
  for i = packed, records - 2, 2 do
    if redis.call('HEXISTS', KEYS[7], ARGV[i]) == 1 then redis.call('HSET', KEYS[8], ARGV[i], ARGV[i + 1]) end
  end
  if head == last then
    local target
    if answer ~= '' then
      target = answer
    elseif ARGV[12] == '1' or ARGV[16] == '0' then
      local before = state[4] or ''
      target = (before == '' or redis.call('HEXISTS', KEYS[7], before) == 1) and before or ARGV[11]
    end
    if target == '' then
      redis.call('HDEL', KEYS[5], 'head')
    elseif target then
      redis.call('HSET', KEYS[5], 'head', target)
    end
  end
  if answer ~= '' then
    local prompt, output = string.match(ARGV[20], '(%d+) %d+ (%d+)')
    redis.call('HSET', KEYS[5], 'tokens', prompt + output)
  end
  redis.call('SREM', KEYS[9], ARGV[1])
  if redis.call('HGET', KEYS[5], 'active') == ARGV[1] then
    local other = redis.call('SRANDMEMBER', KEYS[9])
    if other then redis.call('HSET', KEYS[5], 'active', other) else redis.call('HDEL', KEYS[5], 'active') end
  end
  if ARGV[5] ~= '0' then
    redis.call('HSET', KEYS[5], 'updated_at', ARGV[5])
    redis.call('ZADD', KEYS[10], ARGV[5], ARGV[10])
  end
  redis.call('PUBLISH', 'chat:changes', ARGV[10])
end
for web in string.gmatch(state[3] or '', '%S+') do redis.call('PUBLISH', ARGV[8] .. web, ARGV[9]) end
return 1
