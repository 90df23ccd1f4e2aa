-- Begin or end the announcement of a tape to a web process.
-- KEYS   response
-- ARGV   web id, on (1, 0), bound on the watchers
-- Result 1 · 0 (there is nothing more to announce)
-- Idempotent. Past the bound the oldest watcher is dropped: it was most likely left by a process that is gone.
local state = redis.call('HMGET', KEYS[1], 'status', 'watch')
if state[1] ~= 'queued' and state[1] ~= 'in_progress' then return 0 end
local watchers = {}
for web in string.gmatch(state[2] or '', '%S+') do
  if web ~= ARGV[1] then watchers[#watchers + 1] = web end
end
if ARGV[2] == '1' then watchers[#watchers + 1] = ARGV[1] end
while #watchers > tonumber(ARGV[3]) do table.remove(watchers, 1) end
redis.call('HSET', KEYS[1], 'watch', table.concat(watchers, ' '))
return 1
