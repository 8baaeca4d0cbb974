"""The Lua scripts of RedisStore: each is one atomic step on one key, KEYS[1].

A session is a hash under `<prefix>session:<id>`. A sorted set under `<prefix>user=<user>` lists the sessions of a
user; each id has as its score the moment until which its hash may exist.
"""

from prism_wsgi.stores.redis.server import Script

SAVE = Script("""
-- the version that must be stored, PEXPIREAT, whether to return the hash before, packed; the fields with their values
local version = redis.call('HGET', KEYS[1], 'version')
if ARGV[1] == '0' then
  if version then return 'exists' end
elseif not version then
  return 'gone'
elseif version ~= ARGV[1] then
  return 'conflict'
end
local before = {}
if version and ARGV[3] == '1' then
  before[1] = cmsgpack.pack(redis.call('HGETALL', KEYS[1]))
end
-- HSET first: a full server refuses the first write of a script, but no later one.
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
if redis.call('HLEN', KEYS[1]) > (#ARGV - 3) / 2 then
  local given = {}
  for position = 4, #ARGV, 2 do
    given[ARGV[position]] = true
  end
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if not given[field] then
      redis.call('HDEL', KEYS[1], field)
    end
  end
end
redis.call('PEXPIREAT', KEYS[1], ARGV[2])
return before
""")

UNDO = Script("""
-- the version that the save stored, how long Redis keeps an expired session (ms), the hash before, if any
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then
  return
end
redis.call('DEL', KEYS[1])
if ARGV[3] then
  local before = cmsgpack.unpack(ARGV[3])
  redis.call('HSET', KEYS[1], unpack(before))
  redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', redis.call('HGET', KEYS[1], 'expires_at') + ARGV[2]))
end
""")

TOUCH = Script("""
-- the version that must be stored, expiry, PEXPIREAT, how many fields to set, these with values, those to delete
local stored = redis.call('HMGET', KEYS[1], 'version', 'superseded', 'expires_at')
if stored[1] ~= ARGV[1] or stored[2] == '1' then
  return 0
end
if tonumber(ARGV[2]) > tonumber(stored[3]) then
  redis.call('HSET', KEYS[1], 'expires_at', ARGV[2])
  redis.call('PEXPIREAT', KEYS[1], ARGV[3])
end
local last = 4 + 2 * tonumber(ARGV[4])
if last > 4 then
  redis.call('HSET', KEYS[1], unpack(ARGV, 5, last))
end
if #ARGV > last then
  redis.call('HDEL', KEYS[1], unpack(ARGV, last + 1))
end
return 1
""")

END = Script("""
-- whose: 'anybody', 'user' (it must be their session), 'concerned' (they may be its actor); the user, as stored
-- Returns 1 if it deleted a session. A marker stays: returns its user and the id that it names. Otherwise nothing.
local user, actor, superseded, data = unpack(redis.call('HMGET', KEYS[1], 'user', 'actor', 'superseded', 'data'))
if not data then
  return false
end
user = user or ''
local is_actor = ARGV[1] == 'concerned' and actor and '=' .. actor == ARGV[2]
if ARGV[1] ~= 'anybody' and user ~= ARGV[2] and not is_actor then
  return false
end
if superseded == '1' then
  return {user, data}
end
redis.call('DEL', KEYS[1])
return 1
""")
