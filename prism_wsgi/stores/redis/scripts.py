"""The Lua scripts of RedisStore: each verb that writes is one, because Redis runs a script as one atomic step.

A session is a hash under `<prefix>session:<id>`. A user's sessions are a sorted set under `<prefix>user=<user>`,
ids scored by their expiry. The field `user` of the hash has a "=" before the name and is empty for nobody, so that
both fit together without asking.
"""

FIELDS = ("data", "version", "created_at", "expires_at", "user", "superseded")

MARGIN_MS = 60_000
"""How long Redis keeps what has expired: its clock may be ahead of the application's, which decides."""

_COMMON = f"""
local prefix, now, margin = ARGV[1], tonumber(ARGV[2]), {MARGIN_MS}

local function session_key(id)
  return prefix .. 'session:' .. id
end

local function expire(key, expires_at)
  redis.call('PEXPIREAT', key, string.format('%.0f', expires_at + margin))
end

local function unlist(user, id)
  if user and user ~= '' then
    redis.call('ZREM', prefix .. 'user' .. user, id)
  end
end

local function list(user, id, expires_at)
  if user == '' then
    return
  end
  local key = prefix .. 'user' .. user
  redis.call('ZADD', key, expires_at, id)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - margin)
  local last = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]
  if last then
    expire(key, tonumber(last))
  end
end
"""

SAVE = (
    _COMMON
    + """
local function argument(number, position)
  return ARGV[2 + (number - 1) * 8 + position]
end

for number, key in ipairs(KEYS) do
  local version = argument(number, 2)
  local stored = redis.call('HMGET', key, 'version', 'expires_at')
  if version == '0' then
    if stored[1] then
      return {'exists', number}
    end
  elseif not stored[1] or tonumber(stored[2]) <= now then
    return {'gone', number}
  elseif stored[1] ~= version then
    return {'conflict', number}
  end
end

for number, key in ipairs(KEYS) do
  local id, expires_at, user, superseded =
    argument(number, 1), argument(number, 6), argument(number, 7), argument(number, 8)
  local before = redis.call('HGET', key, 'user')
  if before ~= user or superseded == '1' then
    unlist(before, id)
  end
  redis.call('HSET', key, 'version', argument(number, 3), 'data', argument(number, 4),
    'created_at', argument(number, 5), 'expires_at', expires_at, 'user', user, 'superseded', superseded)
  expire(key, tonumber(expires_at))
  if superseded == '0' then
    list(user, id, expires_at)
  end
end
return {'saved', 0}
"""
)

TOUCH = (
    _COMMON
    + """
local id, expires_at = ARGV[3], ARGV[4]
local stored = redis.call('HMGET', KEYS[1], 'expires_at', 'superseded', 'user')
if not stored[1] or stored[2] == '1' or tonumber(stored[1]) <= now then
  return 0
end
if tonumber(expires_at) > tonumber(stored[1]) then
  redis.call('HSET', KEYS[1], 'expires_at', expires_at)
  expire(KEYS[1], tonumber(expires_at))
  list(stored[3], id, expires_at)
end
return 1
"""
)

DESTROY = (
    _COMMON
    + """
local id = ARGV[3]
while id do
  local user, superseded, data = unpack(redis.call('HMGET', session_key(id), 'user', 'superseded', 'data'))
  redis.call('DEL', session_key(id))
  unlist(user, id)
  id = superseded == '1' and data ~= '' and data:gsub('.', function(byte)
    return string.format('%02x', string.byte(byte))
  end)
end
"""
)

# A listed id whose hash is gone, or is somebody else's, comes off the list when it is met.
FIND = (
    _COMMON
    + """
local user, limit, after = ARGV[3], tonumber(ARGV[4]), ARGV[5]
local ids = redis.call('ZRANGE', KEYS[1], 0, -1)
table.sort(ids)
local found = {}
for _, id in ipairs(ids) do
  if #found >= limit then
    break
  end
  if id > after then
    local stored = redis.call('HMGET', session_key(id), 'data', 'version', 'created_at', 'expires_at', 'user',
      'superseded')
    if stored[5] ~= user or stored[6] == '1' then
      redis.call('ZREM', KEYS[1], id)
    elseif tonumber(stored[4]) > now then
      found[#found + 1] = {id, stored}
    end
  end
end
return found
"""
)

DESTROY_ALL = (
    _COMMON
    + """
local user, except_id = ARGV[3], ARGV[4]
local destroyed = 0
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if id ~= except_id then
    if redis.call('HGET', session_key(id), 'user') == user then
      redis.call('DEL', session_key(id))
      destroyed = destroyed + 1
    end
    redis.call('ZREM', KEYS[1], id)
  end
end
return destroyed
"""
)
