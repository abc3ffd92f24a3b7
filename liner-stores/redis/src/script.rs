//! What runs inside the server. A turn is one call: it is checked first, then written, and its number is written last.

/// What a call of [`turn`] returns when it has written everything.
pub(crate) const DONE: &str = "DONE";
/// Another instance has a newer token.
pub(crate) const TAKEN: &str = "TAKEN";
/// The node's row, or the last turn of it, is not there.
pub(crate) const GONE: &str = "GONE";
/// A list is not as the caller thinks; nothing was written.
pub(crate) const MOVED: &str = "MOVED";

/// Arguments: token, the last turn's number, this turn's; how many checks, and for each a list, an index, and what the bytes 6 to 21 of the
/// element there are (its epoch and its number); then for each command how many words, and the words.
///
/// There is no work by record in it: records are words of `RPUSH`. Nothing fails in the second half that was not looked for in the first one,
/// unless somebody takes a permission away meanwhile.
const TURN: &str = r"
local node, a, n = KEYS[1], ARGV, #ARGV
local had = redis.call('HMGET', node, 'token', 'turn')
if not had[1] or not had[2] then return 'GONE' end
if had[1] ~= a[1] then
  if tonumber(had[1]) > tonumber(a[1]) then return 'TAKEN' end
  return 'GONE'
end
if had[2] ~= a[2] then return 'GONE' end
local at = 5
for _ = 1, tonumber(a[4]) do
  local element = redis.call('LINDEX', a[at], a[at + 1])
  if not element or string.sub(element, 6, 21) ~= a[at + 2] then return 'MOVED' end
  at = at + 3
end
local kinds = {RPUSH='list', LTRIM='list', HSET='hash', HDEL='hash', HINCRBY='hash', XADD='stream',
  subscribe='hash', unsubscribe='hash'}
local first = at
while at <= n do
  local kind = kinds[a[at + 1]]
  if kind then
    local found = redis.call('TYPE', a[at + 2]).ok
    if found ~= 'none' and found ~= kind then
      return redis.error_reply('WRONGTYPE ' .. a[at + 2] .. ' is a ' .. found .. ' and should be a ' .. kind)
    end
  end
  at = at + 1 + tonumber(a[at])
end
local changed = false
local function number(topic)
  local key = 'lnr_topic:' .. topic .. ':key'
  if redis.call('EXISTS', key) == 0 then redis.call('SET', key, redis.call('INCR', 'lnr_unique_key')) end
end
local own = {}
function own.subscribe(at)
  local key, address, name, topic = a[at], a[at + 1], a[at + 2], a[at + 3]
  if redis.call('HGET', key, address) ~= name then
    redis.call('HSET', key, address, name)
    changed = true
  end
  redis.call('SADD', 'lnr_topics', topic)
  number(topic)
end
function own.unsubscribe(at)
  if redis.call('HGET', a[at], a[at + 1]) == a[at + 2] then
    redis.call('HDEL', a[at], a[at + 1])
    changed = true
  end
end
function own.forget(at)
  if redis.call('HGET', a[at], a[at + 1]) == a[at + 2] then redis.call('HDEL', a[at], a[at + 1]) end
end
at = first
while at <= n do
  local words = tonumber(a[at])
  local special = own[a[at + 1]]
  if special then special(at + 2) else redis.call(unpack(a, at + 1, at + words)) end
  at = at + 1 + words
end
if changed then
  redis.call('PUBLISH', 'lnr_directory', redis.call('HINCRBY', 'lnr_directory', 'version', 1))
end
redis.call('HSET', node, 'turn', a[3])
return 'DONE'
";

/// The script of a turn. `allow_oom` if it takes no more than it gives: then it runs in a server that is full.
pub(crate) fn turn(allow_oom: bool) -> String {
    let flags = if allow_oom { " flags=allow-oom" } else { "" };
    format!("#!lua{flags}{TURN}")
}

/// Takes the name: the next token. Gives the node's row as it was before, and the token. Argument: the format of the row.
pub(crate) const TAKE: &str = r"#!lua flags=allow-oom
local before = redis.call('HGETALL', KEYS[1])
local format = redis.call('HGET', KEYS[1], 'format')
if format and tonumber(format) > tonumber(ARGV[1]) then return {before, '0'} end
local token = redis.call('HINCRBY', KEYS[1], 'token', 1)
redis.call('HSETNX', KEYS[1], 'turn', '0')
redis.call('HSET', KEYS[1], 'format', ARGV[1], 'clean', '0')
return {before, tostring(token)}
";

/// After an outcome that is not known: takes the next token if this one is the newest. Argument: the token. Gives the token and the turn.
pub(crate) const RETAKE: &str = r"#!lua flags=allow-oom
local had = redis.call('HMGET', KEYS[1], 'token', 'turn')
if not had[1] or not had[2] or tonumber(had[1]) < tonumber(ARGV[1]) then return 'GONE' end
if had[1] ~= ARGV[1] then return 'TAKEN' end
return {tostring(redis.call('HINCRBY', KEYS[1], 'token', 1)), had[2]}
";

/// Gives so many new connection keys: above all that were given out, and none that anything bears. Argument: how many.
pub(crate) const KEYS: &str = r"#!lua
local keys = {}
for i = 1, tonumber(ARGV[1]) do
  local key, free
  repeat
    key = tostring(redis.call('INCR', KEYS[1]))
    free = redis.call('EXISTS', 'lnr_connection:' .. key .. ':messages', 'lnr_connection:' .. key .. ':sender') == 0
      and redis.call('HEXISTS', 'lnr_connections', key) == 0
  until free
  keys[i] = key
end
return keys
";

/// Renews the node's lease, or gives it up. Arguments: the name, and for how many milliseconds it runs. Others are told if that changes
/// whether the node is up.
pub(crate) const LEASE: &str = r"#!lua flags=allow-oom
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local was = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0') > now
local is = tonumber(ARGV[2]) > 0
if is then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now + ARGV[2]))
elseif redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  redis.call('HSET', KEYS[1], ARGV[1], '0')
end
if was ~= is then
  redis.call('PUBLISH', 'lnr_directory', redis.call('HINCRBY', 'lnr_directory', 'version', 1))
end
return 'DONE'
";

/// Sets a list right. Arguments: the token, the list, where an operator's elements go, where damaged ones go, whose queue it is; then for
/// each element its index, what is there, and what is to be there: an element, or `inserted` or `stale` if none is.
pub(crate) const MEND: &str = r"#!lua flags=allow-oom
local a = ARGV
if redis.call('HGET', KEYS[1], 'token') ~= a[1] then return 'TAKEN' end
for at = 6, #a, 3 do
  if redis.call('LINDEX', a[2], a[at]) ~= a[at + 1] then return 'MOVED' end
end
local gone = 'gone' .. redis.sha1hex(a[1] .. a[2] .. #a)
local removed = false
for at = 6, #a, 3 do
  local what = a[at + 2]
  if what == 'inserted' or what == 'stale' then
    if what == 'inserted' then redis.call('RPUSH', a[3], a[at + 1]) end
    redis.call('LSET', a[2], a[at], gone)
    removed = true
  else
    redis.call('RPUSH', a[4], a[5] .. '\n' .. a[at + 1])
    redis.call('LSET', a[2], a[at], what)
  end
end
if removed then redis.call('LREM', a[2], 0, gone) end
return 'DONE'
";

/// Marks the node's row as closed by its owner. Argument: the token.
pub(crate) const RETIRE: &str = r"#!lua flags=allow-oom
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 'TAKEN' end
redis.call('HSET', KEYS[1], 'clean', '1')
return 'DONE'
";
