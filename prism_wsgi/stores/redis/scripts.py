"""The Lua scripts of RedisStore: each is one atomic step on one key, the one that stands in KEYS.

A session is a hash under `<prefix>session:<id>`. The sessions of a user are listed in a sorted set under
`<prefix>user=<user>`, each id with the moment until which its hash may be there.
"""

from prism_wsgi.stores.redis.server import Script

SAVE = Script("""
-- version that must be stored, PEXPIREAT, whether to return what stood here, packed; the fields with their values
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
-- First of all: a server that is full refuses it, but not once the script has written.
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
-- version that the save has stored, how long Redis keeps what expired (ms), what the save has returned
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
-- version that must be stored, expiry, PEXPIREAT, how many fields to set, these with their values, those absent
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
-- 1 where a session has been deleted; of a marker, which stays, its user and where it leads; otherwise nothing
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
