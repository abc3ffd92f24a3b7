//! What runs inside the server. A turn is one call: it is checked first, then written, and its number is written last.

use crate::resp::Reply;

/// What a call of [`turn`] returns when it has written everything.
pub(crate) const DONE: &str = "DONE";
/// Another instance has a newer token.
pub(crate) const TAKEN: &str = "TAKEN";
/// The node's row, or the last turn of it, is not there.
pub(crate) const GONE: &str = "GONE";
/// A list is not as the caller thinks; nothing was written.
pub(crate) const MOVED: &str = "MOVED";

/// What the scripts that write have in common: what is looked for before the first write, so that nothing fails behind it. After the first
/// write Redis itself refuses nothing any more but what the user may not do and what is of the wrong kind.
pub(crate) const GUARD: &str = r"
local wrong
local function kind(key, wanted)
  local found = redis.call('TYPE', key).ok
  if found == 'none' or found == wanted then return true end
  wrong = wrong or 'WRONGTYPE ' .. key .. ' is a ' .. found .. ' and should be a ' .. wanted
end
local function may(command, ...)
  if not redis.acl_check_cmd(command, ...) then wrong = wrong or 'NOPERM the user may not do ' .. command .. ' any more' end
end
-- A number that can still grow.
local function counts(key, field)
  if not kind(key, 'hash') then return end
  local value = redis.call('HGET', key, field) or '0'
  if #value > 15 or value ~= '0' and not string.find(value, '^%-?[1-9]%d*$') then
    wrong = wrong or 'WRONGTYPE ' .. field .. ' of ' .. key .. ' is no number that can grow'
  end
end
local added = {}
-- Whether there is an id left is known only when an entry is there.
local function add(key, id, ...)
  local reply = redis.pcall('XADD', key, id, ...)
  if type(reply) == 'table' then
    for _, entry in ipairs(added) do redis.call('XDEL', entry[1], entry[2]) end
    return reply
  end
  added[#added + 1] = {key, reply}
end
";

/// Arguments: token, the last turn's number, this turn's; how many lists were pushed to in front of the script, and for each the list, how many
/// elements, and what was pushed behind them; how many checks, and for each a list, an index, and what the bytes 6 to 21 of the
/// element there are (its epoch and its number), or `len` and the length of the list; then for each command how many words, and the words.
///
/// There is no work by record in it: records are words of `RPUSH`. What was pushed before is taken back if there is no turn, whatever the reason is;
/// only then is an error told as a list of one, [`failure`]: an error of another form may have left something. Nothing fails behind
/// the first write: what could is looked for before, and entries of streams, of which that cannot be said, are the first that is written, and are taken back.
const TURN: &str = r"
local node, a, n, pushes = KEYS[1], ARGV, #ARGV, tonumber(ARGV[4])
local pushed = {}
for at = 5, 2 + 3 * pushes, 3 do
  if kind(a[at], 'list') and redis.call('LINDEX', a[at], -1) == a[at + 2] then
    redis.call('LTRIM', a[at], 0, -2)
    pushed[#pushed + 1] = at
  else
    wrong = wrong or 'ERR what was pushed to ' .. a[at] .. ' is not there'
  end
end
local function turn()
local had = redis.call('HMGET', node, 'token', 'turn')
if not had[1] or not had[2] then return 'GONE' end
if tonumber(had[1]) > tonumber(a[1]) then return 'TAKEN' end
if had[1] ~= a[1] or had[2] ~= a[2] then
  -- Whoever opens it next takes this for another server.
  redis.call('HSET', node, 'run_id', '')
  return 'GONE'
end
if wrong then return redis.error_reply(wrong) end
local at = 6 + 3 * pushes
for _ = 1, tonumber(a[at - 1]) do
  if a[at + 1] == 'len' then
    if redis.call('LLEN', a[at]) ~= tonumber(a[at + 2]) then return 'MOVED' end
  else
    local element = redis.call('LINDEX', a[at], a[at + 1])
    if not element or string.sub(element, 6, 21) ~= a[at + 2] then return 'MOVED' end
  end
  at = at + 3
end
may('HSET', node, 'turn', '0')
local kinds = {RPUSH='list', LTRIM='list', HSET='hash', HDEL='hash', HINCRBY='hash', XADD='stream'}
local function directory()
  if counts('lnr_directory', 'version') then return end
  may('HINCRBY', 'lnr_directory', 'version', '1')
  may('PUBLISH', 'lnr_directory', '0')
end
local needs = {}
function needs.dead(key)
  kind(key, 'stream')
  may('XADD', key, '0-*', 'f', '0')
  may('XDEL', key, '0-1')
  may('SET', 'lnr_dead_id', '0')
end
function needs.adopt(key, other)
  kind(key, 'list')
  kind(other, 'list')
  may('RENAME', key, other)
  may('LMOVE', key, other, 'LEFT', 'RIGHT')
end
function needs.release(key)
  kind('lnr_connections', 'hash')
  may('DEL', key)
  may('HDEL', 'lnr_connections', '0')
end
function needs.subscribe(key)
  kind(key, 'hash')
  kind('lnr_topics', 'set')
  may('HSET', key, 'f', '0')
  may('HGET', key, 'f')
  may('SADD', 'lnr_topics', '0')
  may('SET', 'lnr_topic::key', '0')
  directory()
end
function needs.unsubscribe(key)
  kind(key, 'hash')
  may('HGET', key, 'f')
  may('HDEL', key, 'f')
  directory()
end
function needs.forget(key)
  kind(key, 'hash')
  may('HGET', key, 'f')
  may('HDEL', key, 'f')
end
local first = at
while at <= n do
  local words, name, key = tonumber(a[at]), a[at + 1], a[at + 2]
  if needs[name] then
    needs[name](key, a[at + 3])
  else
    if kinds[name] then kind(key, kinds[name]) end
    if name == 'HINCRBY' then counts(key, a[at + 3]) end
    may(unpack(a, at + 1, at + math.min(words, 4)))
  end
  if wrong then return redis.error_reply(wrong) end
  at = at + 1 + words
end
at = first
while at <= n do
  local words, name, key = tonumber(a[at]), a[at + 1], a[at + 2]
  local failed
  if name == 'XADD' then
    failed = add(key, unpack(a, at + 3, at + words))
  elseif name == 'dead' then
    -- Ids go up in the whole server, whoever deletes the counter.
    local id = redis.pcall('INCR', 'lnr_dead_id')
    id = type(id) == 'number' and string.format('0-%.0f', id) or ''
    local reply = redis.pcall('XADD', key, id, unpack(a, at + 3, at + words))
    if type(reply) == 'table' then
      failed = add(key, '0-*', unpack(a, at + 3, at + words))
      if not failed then redis.call('SET', 'lnr_dead_id', string.sub(added[#added][2], 3)) end
    else
      added[#added + 1] = {key, reply}
    end
  end
  if failed then
    if string.sub(failed.err, 1, 4) ~= 'ERR ' then return failed end
    return redis.error_reply('WRONGTYPE ' .. key .. ' takes nothing more: ' .. failed.err)
  end
  at = at + 1 + words
end
local changed = false
-- Of use to whoever reads frames of liner_broker, and to nobody else.
local function number(topic)
  local key = 'lnr_topic:' .. topic .. ':key'
  if redis.call('EXISTS', key) == 1 then return end
  local id = redis.pcall('INCR', 'lnr_unique_key')
  if type(id) == 'number' then redis.call('SET', key, string.format('%.0f', id)) end
end
local own = {XADD=function() end, dead=function() end}
-- What was put into the list meanwhile goes behind what waits.
function own.adopt(at)
  if redis.call('EXISTS', a[at]) == 0 then return end
  if redis.call('EXISTS', a[at + 1]) == 0 then return redis.call('RENAME', a[at], a[at + 1]) end
  while redis.call('LMOVE', a[at], a[at + 1], 'LEFT', 'RIGHT') do end
end
function own.release(at)
  if redis.call('EXISTS', a[at], a[at + 1]) > 0 then return end
  redis.call('DEL', a[at + 2])
  redis.call('HDEL', 'lnr_connections', a[at + 3])
end
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
end
local was_run, reply = pcall(turn)
if reply == 'DONE' then return reply end
for _, at in ipairs(pushed) do redis.call('LTRIM', a[at], 0, -1 - a[at + 1]) end
if type(reply) == 'table' then return {reply.err} end
return was_run and reply or {reply}
";

/// Why there was no turn, if the script gives that for a reply: nothing is left of it.
pub(crate) fn failure(reply: &Reply) -> Option<&str> {
    let [words] = reply.list()? else { return None };
    words.text()
}

/// The script of a turn. `allow_oom` if it takes no more than it gives: then it runs in a server that is full.
pub(crate) fn turn(allow_oom: bool) -> String {
    let flags = if allow_oom { " flags=allow-oom" } else { "" };
    format!("#!lua{flags}{GUARD}{TURN}")
}

/// The script that sets a list right.
pub(crate) fn mend() -> String {
    format!("#!lua flags=allow-oom{GUARD}{MEND}")
}

/// The script that acts on entries of streams.
pub(crate) fn act() -> String {
    format!("#!lua flags=allow-oom{GUARD}{ACT}")
}

/// Tries commands, and gives the names of those that the user may not run on those keys, and behind a `?` of those that the server does not
/// have. Arguments: for each command how many words, and
/// the words; the first one deletes what the others leave.
pub(crate) const PROBE: &str = r"#!lua flags=allow-oom
local denied, at, n = {}, 1, #ARGV
while at <= n do
  local words = tonumber(ARGV[at])
  local reply = redis.pcall(unpack(ARGV, at + 1, at + words))
  local wrong = type(reply) == 'table' and reply.err
  local is_unknown = wrong and string.find(wrong, 'Unknown Redis command', 1, true)
  if wrong and (is_unknown or string.find(wrong, 'user executing the script', 1, true) or string.find(wrong, 'ACL failure', 1, true)) then
    denied[#denied + 1] = is_unknown and '?' .. ARGV[at + 1] or ARGV[at + 1]
    if at == 1 then return denied end
  end
  at = at + 1 + words
end
return denied
";

/// Takes the name: a higher token. Gives the node's row as it was before, and the token. Arguments: the format of the row, and by how much the
/// token goes up: by chance, so that two who take a name in two histories of a server do not have the same one.
pub(crate) const TAKE: &str = r"#!lua flags=allow-oom
local before = redis.call('HGETALL', KEYS[1])
local format = redis.call('HGET', KEYS[1], 'format')
if format and tonumber(format) > tonumber(ARGV[1]) then return {before, '0'} end
redis.call('HINCRBY', KEYS[1], 'token', ARGV[2])
redis.call('HSETNX', KEYS[1], 'turn', '0')
redis.call('HSET', KEYS[1], 'format', ARGV[1], 'clean', '0')
return {before, redis.call('HGET', KEYS[1], 'token')}
";

/// After an outcome that is not known: takes another token if the node's is the newest, or says that it has it already, as an answer may be lost.
/// Arguments: the token, the other one, and the last turn that is known to have taken place. Gives the last turn, which is that one or the next.
pub(crate) const RETAKE: &str = r"#!lua flags=allow-oom
local node, a = KEYS[1], ARGV
local had = redis.call('HMGET', node, 'token', 'turn')
if not had[1] or not had[2] then return 'GONE' end
if tonumber(had[1]) > tonumber(a[1]) and had[1] ~= a[2] then return 'TAKEN' end
local turn = tonumber(had[2]) or 0
if tonumber(had[1]) < tonumber(a[1]) or turn < tonumber(a[3]) or turn > tonumber(a[3]) + 1 then
  redis.call('HSET', node, 'run_id', '')
  return 'GONE'
end
redis.call('HSET', node, 'token', a[2])
return {had[2]}
";

/// Gives so many new connection keys: above all that were given out, and none that anything bears. Argument: how many.
pub(crate) const KEYS: &str = r"#!lua
local keys = {}
for i = 1, tonumber(ARGV[1]) do
  local key, free
  repeat
    key = string.format('%.0f', redis.call('INCR', KEYS[1]))
    local base = 'lnr_connection:' .. key
    free = redis.call('EXISTS', base .. ':messages', base .. ':inserted', base .. ':sender') == 0
      and redis.call('HEXISTS', 'lnr_connections', key) == 0
  until free
  keys[i] = key
end
return keys
";

/// Makes the counter no lower than a number, and a number that can grow. Argument: the number.
pub(crate) const RAISE: &str = r"#!lua flags=allow-oom
local had = redis.pcall('GET', KEYS[1])
if type(had) ~= 'string' or #had > 15 or not string.find(had, '^[1-9]%d*$') or tonumber(had) < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1])
end
return 'DONE'
";

/// Takes entries out of streams, all or none, and executes commands in their place. Arguments: how many entries, and for each the stream and
/// its id; then for each command how many words, and the words. Gives the index of an entry that is not there.
///
/// The entries are taken out last: whatever goes wrong, they are still there.
const ACT: &str = r"
local a, n, taken = ARGV, #ARGV, tonumber(ARGV[1])
for i = 0, taken - 1 do
  if #redis.call('XRANGE', a[2 + 2 * i], a[3 + 2 * i], a[3 + 2 * i]) == 0 then return i end
  may('XDEL', a[2 + 2 * i], a[3 + 2 * i])
end
local first, lists = 2 + 2 * taken, {}
local at = first
while at <= n do
  if a[at + 1] == 'again' then
    kind(a[at + 2], 'string')
    if wrong then return redis.error_reply(wrong) end
    local key = redis.call('GET', a[at + 2])
    if not key then
      repeat
        key = string.format('%.0f', redis.call('INCR', KEYS[1]))
        local base = 'lnr_connection:' .. key
      until redis.call('EXISTS', base .. ':messages', base .. ':inserted', base .. ':sender') == 0
        and redis.call('HEXISTS', 'lnr_connections', key) == 0
      redis.call('SET', a[at + 2], key)
    end
    lists[at] = 'lnr_connection:' .. key .. ':inserted'
    kind(lists[at], 'list')
    may('RPUSH', lists[at], '0')
  elseif a[at + 1] == 'HINCRBY' then
    counts(a[at + 2], a[at + 3])
    may('HINCRBY', a[at + 2], a[at + 3], '1')
  end
  at = at + 1 + tonumber(a[at])
end
if wrong then return redis.error_reply(wrong) end
at = first
while at <= n do
  local words = tonumber(a[at])
  if a[at + 1] == 'XADD' then
    local failed = add(unpack(a, at + 2, at + words))
    if failed then return failed end
  end
  at = at + 1 + words
end
at = first
while at <= n do
  local words = tonumber(a[at])
  if lists[at] then
    redis.call('RPUSH', lists[at], a[at + 3])
  elseif a[at + 1] ~= 'XADD' then
    redis.call(unpack(a, at + 1, at + words))
  end
  at = at + 1 + words
end
for i = 0, taken - 1 do redis.call('XDEL', a[2 + 2 * i], a[3 + 2 * i]) end
return 'DONE'
";

/// Renews the node's lease, or gives it up. Arguments: the name, and for how many milliseconds it runs. Others are told if that changes
/// whether the node is up.
pub(crate) const LEASE: &str = r"#!lua flags=allow-oom
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local was = (tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0') or 0) > now
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

/// Sets a list right. Arguments: the token, the list, where an operator's elements go, where those of an earlier queue go, where damaged ones
/// go, whose queue it is; then for each element its index, what is there, and what is to be there: an element, or `inserted`,
/// `orphaned` or `aside` if none is.
const MEND: &str = r"
local a = ARGV
if redis.call('HGET', KEYS[1], 'token') ~= a[1] then return 'TAKEN' end
for to = 3, 5 do
  kind(a[to], 'list')
  may('RPUSH', a[to], '0')
end
may('LSET', a[2], '0', '0')
may('LREM', a[2], '0', '0')
if wrong then return redis.error_reply(wrong) end
for at = 7, #a, 3 do
  if redis.call('LINDEX', a[2], a[at]) ~= a[at + 1] then return 'MOVED' end
end
local gone = 'gone' .. redis.sha1hex(a[1] .. a[2] .. #a)
local removed = false
for at = 7, #a, 3 do
  local what = a[at + 2]
  if what == 'inserted' or what == 'orphaned' then
    redis.call('RPUSH', what == 'inserted' and a[3] or a[4], a[at + 1])
    redis.call('LSET', a[2], a[at], gone)
    removed = true
  else
    redis.call('RPUSH', a[5], a[6] .. '\n' .. a[at + 1])
    redis.call('LSET', a[2], a[at], what == 'aside' and gone or what)
    removed = removed or what == 'aside'
  end
end
if removed then redis.call('LREM', a[2], 0, gone) end
return 'DONE'
";

/// Elements of a list, from one index on, before another, until they are so many bytes; one at least. Arguments: the indexes, the bytes, how
/// many elements to look at in one step.
pub(crate) const PAGE: &str = r"#!lua flags=no-writes,allow-oom
local from, to, room, step = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local page, bytes = {}, 0
while from < to do
  local part = redis.call('LRANGE', KEYS[1], from, math.min(from + step, to) - 1)
  for _, element in ipairs(part) do
    if bytes > 0 and bytes + #element > room then return page end
    bytes = bytes + #element + 1
    page[#page + 1] = element
  end
  if #part < step then return page end
  from = from + step
end
return page
";

/// Marks the node's row as closed by its owner. Argument: the token.
pub(crate) const RETIRE: &str = r"#!lua flags=allow-oom
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 'TAKEN' end
redis.call('HSET', KEYS[1], 'clean', '1')
return 'DONE'
";
