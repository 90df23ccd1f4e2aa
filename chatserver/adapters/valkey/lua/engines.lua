-- The reports that have not expired.
-- KEYS   set of engine ids
-- ARGV   prefix of the reports' keys
-- Result report…
-- Ids whose report is gone are removed in the same step, so that the set stays as small as the fleet.
local reports = {}
for _, id in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local report = redis.call('GET', ARGV[1] .. id)
  if report then reports[#reports + 1] = report else redis.call('SREM', KEYS[1], id) end
end
return reports
