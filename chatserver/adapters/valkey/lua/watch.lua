-- Begin or end the announcement of a tape to a web process.
-- KEYS   response
-- ARGV   web id, on (1, 0), bound on the watchers
-- Result 1 · 0 (there is nothing more to announce)
-- Idempotent. The time is kept for answers that are given up when nobody watches (see unwatched). Past the bound the oldest watcher is dropped: it was most likely left by a process that is gone.
local state = redis.call('HMGET', KEYS[1], 'status', 'watch')
if state[1] ~= 'queued' and state[1] ~= 'in_progress' then return 0 end
local watchers = {}
for web in string.gmatch(state[2] or '', '%S+') do
  if web ~= ARGV[1] then watchers[#watchers + 1] = web end
end
if ARGV[2] == '1' then watchers[#watchers + 1] = ARGV[1] end
while #watchers > tonumber(ARGV[3]) do table.remove(watchers, 1) end
redis.call('HSET', KEYS[1], 'watch', table.concat(watchers, ' '))
if redis.call('HEXISTS', KEYS[1], 'watched_at') == 1 then
  local now = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'watched_at', string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)))
end
return 1
