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
/// element there are (its epoch and its number), or `len` and the length of the list; then for each command how many words, and the words.
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
  if a[at + 1] == 'len' then
    if redis.call('LLEN', a[at]) ~= tonumber(a[at + 2]) then return 'MOVED' end
  else
    local element = redis.call('LINDEX', a[at], a[at + 1])
    if not element or string.sub(element, 6, 21) ~= a[at + 2] then return 'MOVED' end
  end
  at = at + 3
end
local kinds = {RPUSH='list', LTRIM='list', HSET='hash', HDEL='hash', HINCRBY='hash', XADD='stream', SADD='set',
  subscribe='hash', unsubscribe='hash', dead='stream', adopt='list'}
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
-- Ids go up in the whole server; whoever deletes the counter must not make a turn fail in its middle.
function own.dead(at, words)
  local id = redis.pcall('INCR', 'lnr_dead_id')
  local added = redis.pcall('XADD', a[at], type(id) == 'number' and '0-' .. id or '', unpack(a, at + 1, at + words - 2))
  if type(added) == 'table' then
    added = redis.call('XADD', a[at], '0-*', unpack(a, at + 1, at + words - 2))
    redis.call('SET', 'lnr_dead_id', string.sub(added, 3))
  end
end
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
  if special then special(at + 2, words) else redis.call(unpack(a, at + 1, at + words)) end
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

/// Tries commands, and gives the names of those that the user may not run on those keys. Arguments: for each command how many words, and
/// the words; the first one deletes what the others leave.
pub(crate) const PROBE: &str = r"#!lua flags=allow-oom
local denied, at, n = {}, 1, #ARGV
while at <= n do
  local words = tonumber(ARGV[at])
  local reply = redis.pcall(unpack(ARGV, at + 1, at + words))
  local wrong = type(reply) == 'table' and reply.err
  if wrong and (string.find(wrong, 'user executing the script', 1, true) or string.find(wrong, 'ACL failure', 1, true)) then
    denied[#denied + 1] = ARGV[at + 1]
    if at == 1 then return denied end
  end
  at = at + 1 + words
end
return denied
";

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
    local base = 'lnr_connection:' .. key
    free = redis.call('EXISTS', base .. ':messages', base .. ':inserted', base .. ':sender') == 0
      and redis.call('HEXISTS', 'lnr_connections', key) == 0
  until free
  keys[i] = key
end
return keys
";

/// Makes the counter no lower than a number. Argument: the number.
pub(crate) const RAISE: &str = r"#!lua flags=allow-oom
if tonumber(redis.call('GET', KEYS[1]) or '0') < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return 'DONE'
";

/// Takes entries out of streams, all or none, and executes commands in their place. Arguments: how many entries, and for each the stream and
/// its id; then for each command how many words, and the words. Gives the index of an entry that is not there.
pub(crate) const ACT: &str = r"#!lua flags=allow-oom
local a, n, taken = ARGV, #ARGV, tonumber(ARGV[1])
for i = 0, taken - 1 do
  if #redis.call('XRANGE', a[2 + 2 * i], a[3 + 2 * i], a[3 + 2 * i]) == 0 then return i end
end
for i = 0, taken - 1 do redis.call('XDEL', a[2 + 2 * i], a[3 + 2 * i]) end
local at = 2 + 2 * taken
while at <= n do
  local words = tonumber(a[at])
  if a[at + 1] == 'again' then
    local key = redis.call('GET', a[at + 2])
    if not key then
      repeat
        key = tostring(redis.call('INCR', KEYS[1]))
        local base = 'lnr_connection:' .. key
      until redis.call('EXISTS', base .. ':messages', base .. ':inserted', base .. ':sender') == 0
        and redis.call('HEXISTS', 'lnr_connections', key) == 0
      redis.call('SET', a[at + 2], key)
    end
    redis.call('RPUSH', 'lnr_connection:' .. key .. ':inserted', a[at + 3])
  else
    redis.call(unpack(a, at + 1, at + words))
  end
  at = at + 1 + words
end
return 'DONE'
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

/// Sets a list right. Arguments: the token, the list, where an operator's elements go, where those of an earlier queue go, where damaged ones
/// go, whose queue it is; then for each element its index, what is there, and what is to be there: an element, or `inserted` or
/// `orphaned` if none is.
pub(crate) const MEND: &str = r"#!lua flags=allow-oom
local a = ARGV
if redis.call('HGET', KEYS[1], 'token') ~= a[1] then return 'TAKEN' end
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
    redis.call('LSET', a[2], a[at], what)
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

/// Entries of the inbox, until they are so many or so many bytes; one at least; and whether there may be more. Behind the id and the fields
/// of each is what the other key says of its failures. Arguments: what keeps the failures, behind which id, how many entries, how many bytes.
pub(crate) const ENTRIES: &str = r"#!lua flags=no-writes,allow-oom
local failures, after, left, room = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local has_failures = redis.call('EXISTS', failures) == 1
local page, bytes = {}, 0
while left > 0 do
  local count = math.min(left, 16)
  local part = redis.call('XRANGE', KEYS[1], after, '+', 'COUNT', count)
  for _, entry in ipairs(part) do
    local len = 0
    for _, word in ipairs(entry[2]) do len = len + #word end
    if bytes > 0 and bytes + len > room then return {page, 1} end
    bytes = bytes + len
    entry[3] = has_failures and redis.call('HGET', failures, entry[1])
    page[#page + 1] = entry
    after = '(' .. entry[1]
  end
  if #part < count then return {page, 0} end
  left = left - count
end
return {page, 1}
";

/// What becomes of entries of the inbox, for all of them at once: it is checked first that each is as it was read. Arguments: the node's row,
/// its dead letters, what keeps the failures, how many dead letters are too many; how many entries, and for each its id, its checksum as it
/// stands there, and its bytes; and then for each, in the same order, one of
///
/// * `give`, what is kept if it is refused at once and if that happens later, the sender, and how many commands, each behind the number
///   of its words. Gives 1 if all were done and the entry is gone, 0 if something of the same sender was refused before, or what the
///   server says to the command that it refuses, and how many were done by then;
/// * `fail` and what is kept. Gives 1;
/// * `aside`, what is kept if there are too many dead letters, and how many words of a dead letter, and the words. Gives 1 if it is one now, else 0;
/// * `damaged` and what of it goes to the quarantine. Gives 1.
const DISPOSE: &str = r"
local inbox, node, dead, failures, dead_max, n = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local a, at = ARGV, 6
for _ = 1, n do
  local found = redis.call('XRANGE', inbox, a[at], a[at])[1]
  if not found then return 'MOVED' end
  local crc = ''
  for i = 1, #found[2], 2 do
    if found[2][i] == 'crc' then crc = found[2][i + 1] break end
  end
  if crc ~= a[at + 1] then return 'MOVED' end
  at = at + 3
end
for key, kind in pairs({[node]='hash', [dead]='stream', [failures]='hash', lnr_quarantine='list'}) do
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= kind then
    return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. found .. ' and should be a ' .. kind)
  end
end
local freed, letters, replies, blocked = 0, redis.call('XLEN', dead), {}, {}
local id, bytes
local function remove()
  redis.call('XDEL', inbox, id)
  redis.call('HDEL', failures, id)
  freed = freed + bytes
end
local own = {}
function own.give()
  local sender, commands = a[at + 3], tonumber(a[at + 4])
  local at_once, later = a[at + 1], a[at + 2]
  local refused
  at = at + 5
  for i = 0, commands - 1 do
    local words = tonumber(a[at])
    if not refused and not blocked[sender] then
      local reply = redis.pcall(unpack(a, at + 1, at + words))
      if type(reply) == 'table' and reply.err then refused = {reply.err, i} end
    end
    at = at + 1 + words
  end
  if blocked[sender] then return 0 end
  if not refused then
    remove()
    return 1
  end
  blocked[sender] = true
  redis.call('HSET', failures, id, refused[2] == 0 and at_once or later)
  return refused
end
function own.fail()
  redis.call('HSET', failures, id, a[at + 1])
  at = at + 2
  return 1
end
function own.aside()
  local kept, words = a[at + 1], tonumber(a[at + 2])
  at = at + 3 + words
  if letters >= dead_max then
    redis.call('HSET', failures, id, kept)
    return 0
  end
  local number = redis.pcall('INCR', 'lnr_dead_id')
  local added = redis.pcall('XADD', dead, type(number) == 'number' and '0-' .. number or '', unpack(a, at - words, at - 1))
  if type(added) == 'table' then
    added = redis.pcall('XADD', dead, '0-*', unpack(a, at - words, at - 1))
    -- Somebody has put something there under an id of another form.
    if type(added) == 'table' then
      redis.call('HSET', failures, id, kept)
      return 0
    end
    redis.call('SET', 'lnr_dead_id', string.sub(added, 3))
  end
  letters = letters + 1
  remove()
  return 1
end
function own.damaged()
  redis.call('RPUSH', 'lnr_quarantine', a[at + 1])
  at = at + 2
  remove()
  return 1
end
for i = 0, n - 1 do
  id, bytes = a[6 + 3 * i], tonumber(a[8 + 3 * i])
  replies[#replies + 1] = own[a[at]]()
end
-- What an operator deletes is not counted out; in an empty inbox there is nothing to count.
local left = (tonumber(redis.call('HGET', node, 'inbox_bytes') or '0') or 0) - freed
if redis.call('XLEN', inbox) == 0 then
  left = 0
  redis.call('DEL', failures)
end
redis.call('HSET', node, 'inbox_bytes', string.format('%.0f', math.max(left, 0)))
return replies
";

/// The same; `allow_oom` if it takes no more than it gives.
pub(crate) fn dispose(allow_oom: bool) -> String {
    let flags = if allow_oom { " flags=allow-oom" } else { "" };
    format!("#!lua{flags}{DISPOSE}")
}
