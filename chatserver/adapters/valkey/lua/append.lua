-- Append records to tapes of one shard.
-- KEYS   (response, tape)… one pair for each append
-- ARGV   for each append: claim, first sequence number, record count, (entry id, record)…
-- Result for each append: ok (1, 0), stop asked (1, 0), ids of the web processes that watch
--        0: the claim is old, the job was put back, the response has ended, or the records would leave a gap
-- One step. A record that is on its tape already is skipped and ok: a commit may be sent again.
local out, at = {}, 1
for k = 1, #KEYS, 2 do
  local first, count = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local state = redis.call('HMGET', KEYS[k], 'claim', 'status', 'stop', 'watch', 'owner')
  local ok = state[1] == ARGV[at] and (state[5] or state[2] ~= 'in_progress') and true
  if ok then
    local tail = redis.call('XREVRANGE', KEYS[k + 1], '+', '-', 'COUNT', 1)[1]
    local top = tail and tonumber(string.match(tail[1], '^%d+')) or 0
    -- an entry id is «last + 1», so `top` is the sequence number that is due
    ok = first <= top
    for i = at + 3, at + 1 + 2 * count, 2 do
      if ok and tonumber(ARGV[i]) > top then
        ok = state[2] == 'in_progress'
        if ok then redis.call('XADD', KEYS[k + 1], ARGV[i], 'r', ARGV[i + 1]) end
      end
    end
  end
  out[#out + 1] = ok and 1 or 0
  out[#out + 1] = state[3] == '1' and 1 or 0
  out[#out + 1] = state[4] or ''
  at = at + 3 + 2 * count
end
return out
