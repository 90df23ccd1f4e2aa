-- Append records to tapes of one shard.
-- KEYS   pens, tape of each append
-- ARGV   the writer's pen, what it was left at ('' = unknown), what it is left at now, how many appends are known
--        for each append, the known ones first: claim, first sequence number, record count, (entry id, record)…
-- Result whether the pen was where it was left (1, 0), then for each append that was looked at
--        its place, ok (1, 0), stop asked (1, 0), ids of the web processes that watch
--        Not ok: the claim is old, the job was put back, the response has ended, or the records would leave a gap
-- One step. Whatever changes a response's claim, end, stop or watchers throws away the pens of its shard. A pen that is
-- where its writer left it says that none of these has changed and that nothing written before is lost: then what the
-- writer knows is only appended to, and all is looked at otherwise. A commit that is sent again finds its pen moved.
-- A record that is on its tape already is skipped and ok.
local sure = redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2]
local known = sure and 1 + ARGV[4] or 1
local out, at = {sure and 1 or 0}, 5

local function look(k, first, last)
  local state = redis.call('HMGET', string.sub(KEYS[k], 1, -6), 'claim', 'status', 'stop', 'watch', 'owner')
  local ok = state[1] == ARGV[at] and (state[5] or state[2] ~= 'in_progress') and true
  if ok then
    local tail = redis.call('XREVRANGE', KEYS[k], '+', '-', 'COUNT', 1)[1]
    local top = tail and tonumber(string.match(tail[1], '^%d+')) or 0
    -- an entry id is «last + 1», so `top` is the sequence number that is due
    ok = tonumber(ARGV[at + 1]) <= top
    for i = first, last, 2 do
      if ok and tonumber(ARGV[i]) > top then
        ok = state[2] == 'in_progress'
        if ok then redis.call('XADD', KEYS[k], ARGV[i], 'r', ARGV[i + 1]) end
      end
    end
  end
  for _, part in ipairs({k - 2, ok and 1 or 0, state[3] == '1' and 1 or 0, state[4] or ''}) do out[#out + 1] = part end
end

for k = 2, #KEYS do
  local first, last = at + 3, at + 1 + 2 * ARGV[at + 2]
  local fits = k <= known
  for i = first, last, 2 do
    -- no entry: an operator removed the tape; an error: it has this record
    fits = fits and type(redis.pcall('XADD', KEYS[k], 'NOMKSTREAM', ARGV[i], 'r', ARGV[i + 1])) == 'string'
  end
  if not fits then look(k, first, last) end
  at = last + 2
end

-- what was looked at here is not known to the next call of the same commit: that one must look, too
redis.call('HSET', KEYS[1], ARGV[1], sure and ARGV[3] or '-' .. ARGV[3])
return out
