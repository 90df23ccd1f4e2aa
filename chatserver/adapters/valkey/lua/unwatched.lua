-- How long nobody has watched answers.
-- ARGV   prefix of responses' keys, response id…
-- KEYS   leases (for the shard)
-- Result for each id: milliseconds since a web process last said that somebody watches · -1: nobody needs to
-- Reads only.
local now = redis.call('TIME')
local millis = now[1] * 1000 + math.floor(now[2] / 1000)
local out = {}
for i = 2, #ARGV do
  local at = redis.call('HGET', ARGV[1] .. ARGV[i], 'watched_at')
  out[#out + 1] = at and math.max(0, millis - tonumber(at)) or -1
end
return out
