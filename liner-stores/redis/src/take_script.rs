//! Scripts of those who take from an inbox.

use crate::script::GUARD;

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
for key, wanted in pairs({[node]='hash', [dead]='stream', [failures]='hash', lnr_quarantine='list'}) do
  kind(key, wanted)
end
-- Behind the application's commands it would be too late: they would be executed, and the entry would stay.
for _, command in ipairs({
  {'XDEL', inbox, '0-1'}, {'XLEN', inbox}, {'HGET', node, 'f'}, {'HSET', node, 'f', '0'}, {'HSET', failures, 'f', '0'},
  {'HDEL', failures, 'f'}, {'DEL', failures}, {'RPUSH', 'lnr_quarantine', '0'},
  {'INCR', 'lnr_dead_id'}, {'SET', 'lnr_dead_id', '0'}, {'XADD', dead, '0-*', 'f', '0'},
}) do
  may(unpack(command))
end
if wrong then return redis.error_reply(wrong) end
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
    format!("#!lua{flags}{GUARD}{DISPOSE}")
}
