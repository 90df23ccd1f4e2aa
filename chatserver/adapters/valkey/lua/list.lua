-- One page of a shard's index of a tenant's conversations, in order of (updated_at, id).
-- KEYS   index
-- ARGV   limit, newest first (1, 0), updated_at and id of the last one seen ('' = from the start)
-- Result id, updated_at, id, updated_at, …
-- Reads only; O(log n + limit), also when all entries share one time.
local limit, newest = tonumber(ARGV[1]), ARGV[2] == '1'
local size = redis.call('ZCARD', KEYS[1])
-- entries are numbered 0 … size − 1 from the oldest; the page starts next to `place`:
-- newest first it ends before it, oldest first it begins at it
local place = newest and size or 0

if ARGV[4] ~= '' then
  local low = redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. ARGV[3])
  local high = redis.call('ZCOUNT', KEYS[1], '-inf', ARGV[3])
  -- entries of one time are in order of their ids: bisect for the first that is not before the last seen
  while low < high do
    local middle = math.floor((low + high) / 2)
    local id = redis.call('ZRANGE', KEYS[1], middle, middle)[1]
    if id < ARGV[4] or (id == ARGV[4] and not newest) then low = middle + 1 else high = middle end
  end
  place = low
end

if newest then
  if place == 0 then return {} end
  return redis.call('ZREVRANGE', KEYS[1], size - place, size - place + limit - 1, 'WITHSCORES')
end
return redis.call('ZRANGE', KEYS[1], place, place + limit - 1, 'WITHSCORES')
