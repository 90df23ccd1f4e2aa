-- Begin or end the announcement of a tape to a web process, and say what is on it.
-- KEYS   response, pens, tape
-- ARGV   web id, on (1, 0), bound on the watchers
--        4 entry id to read from (none: nothing is read), 5 sequence numbers that are few, 6 entries to read if the rest is more
-- Result the entry id that the tape ends with (0: there is no tape), the entries
-- Idempotent. What has ended has nothing more to announce: nothing is kept. The time is kept for answers that are given
-- up when nobody watches (see unwatched). Past the bound the oldest watcher is dropped: it was most likely left by a
-- process that is gone.
local state = redis.call('HMGET', KEYS[1], 'status', 'watch', 'watched_at')
if state[1] == 'queued' or state[1] == 'in_progress' then
  local watchers, known = {}, '0'
  for web in string.gmatch(state[2] or '', '%S+') do
    if web == ARGV[1] then known = '1' else watchers[#watchers + 1] = web end
  end
  if ARGV[2] == '1' then watchers[#watchers + 1] = ARGV[1] end
  while #watchers > tonumber(ARGV[3]) do table.remove(watchers, 1) end
  local watch = table.concat(watchers, ' ')
  if watch ~= (state[2] or '') then redis.call('HSET', KEYS[1], 'watch', watch) end
  if known ~= ARGV[2] then redis.call('DEL', KEYS[2]) end  -- see append
  if state[3] then
    local now = redis.call('TIME')
    redis.call('HSET', KEYS[1], 'watched_at', string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)))
  end
end

local tail = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]
local top = tail and tonumber(string.match(tail[1], '^%d+')) or 0
if not ARGV[4] then return {top, {}} end
local few = top - ARGV[4] < tonumber(ARGV[5])
return {top, redis.call('XRANGE', KEYS[3], ARGV[4], '+', 'COUNT', few and ARGV[5] or ARGV[6])}
