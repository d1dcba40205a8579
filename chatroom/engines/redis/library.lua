-- The function library that keeps the rooms in a store of Valkey or Redis.
--
-- Keys of a room: `m` meta hash (e epoch, l last id, t its time, f first id kept, v version of its presence), `s` stream (its entries
-- are <id>-0 with the fields t u x and perhaps c: time, username, text, cid), `c` hash of cids, `p` presence hash
-- (n:NODE\nNAME: the node has the name here; k:NAME: how many nodes do; s:NODE: the last sequence number taken).
--
-- 1. Every function checks everything, then writes everything, then announces by a publish that may fail: the writes of a
--    function that fails half-way would stay.
-- 2. Every function answers one JSON text: a list that begins with a word of ours. An empty list is {} in it.
-- 3. Ids are dense within an epoch. An entry of another program in the stream is skipped, or ends a page.
-- 4. A context is a JSON list: the node, the room's channel, the command that publishes, how many messages are kept and
--    for how many milliseconds (0: no limit).
-- 5. From a room's first message on all its keys exist. While a slot of a Cluster moves to another server, a function that
--    names an absent key beside others is refused (TRYAGAIN).
--
-- Doesn't know: rooms' names, and who subscribes.
--
-- In front of this text stand the library's name and SUFFIX, which ends the names of its functions.

local STEP = 50            -- so many entries are read at a time
local TRIM = 200           -- so many entries are trimmed in one call at most, beyond those that it adds
local BETWEEN = 200        -- so many messages of other nodes are in the reply to an append at most
local BETWEEN_BYTES = 65536
local IDLE = 60            -- seconds for which a room without messages outlives its use
local UNSAID = 3600        -- seconds for which it lives in use, unless a node renews it: that node may be dead
local PLACEHOLDER = ''     -- a field of no cid's, which nobody reads: see rule 5

local function answer(...)
  return cjson.encode({ ... })
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function whole(number)
  return string.format('%.0f', number)
end

local function meta(key)
  local found = redis.call('HMGET', key, 'e', 'l', 'f', 'v')
  if not found[1] then
    return nil
  end
  return { epoch = found[1], last = tonumber(found[2]), first = tonumber(found[3]), version = tonumber(found[4]) }
end

-- The room, if it is there and has this epoch; else nothing, and what to answer.
local function in_epoch(key, epoch)
  local room = meta(key)
  if not room then
    return nil, answer('missing')
  end
  if room.epoch ~= epoch then
    return nil, answer('replaced', room.epoch, room.last)
  end
  return room
end

-- A room without a meta hash begins with `epoch`, behind the messages that its stream may still hold.
local function create(key, stream, epoch)
  local room = { epoch = epoch, last = 0, first = 1, version = 0 }
  if redis.call('EXISTS', stream) == 1 then
    local info = redis.call('XINFO', 'STREAM', stream)
    for at = 1, #info, 2 do
      if info[at] == 'last-generated-id' then
        room.last = tonumber(string.match(info[at + 1], '^%d+'))
      end
    end
    local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    room.first = oldest and tonumber(string.match(oldest[1], '^%d+')) or room.last + 1
  end
  redis.call('HSET', key, 'e', epoch, 'l', whole(room.last), 'f', whole(room.first), 'v', 0)
  return room
end

-- A room with messages lives without limit; a room without messages lives for as long as it is held.
local function hold(key, presence, room)
  for _, each in ipairs({ key, presence }) do
    if room.last == 0 then
      redis.call('EXPIRE', each, UNSAID)
    else
      redis.call('PERSIST', each)
    end
  end
end

-- Whether the log has the message `id` as it was shown, at the time `ts` (0: at any time). After a failover the log may
-- have gone back and have got other messages under the same ids.
local function is_same(keys, room, id, ts)
  if room.last < id then
    return false
  end
  if ts == 0 or id < room.first then
    return true
  end
  if id == room.last then
    return (tonumber(redis.call('HGET', keys[1], 't')) or ts) == ts
  end
  local entry = redis.call('XRANGE', keys[2], whole(id) .. '-0', whole(id) .. '-0')[1]
  return not entry or tonumber(entry[2][2]) == ts
end

-- The message in an entry, if it is that of `id`; whether it is an entry of another program that is to be skipped.
local function message_of(entry, id)
  local fields = entry[2]
  local found = tonumber(string.match(entry[1], '^(%d+)%-0$') or '')
  if not found then
    return nil, true
  end
  if found ~= id or fields[1] ~= 't' or fields[3] ~= 'u' or fields[5] ~= 'x' then
    return nil, false
  end
  return { tonumber(fields[2]), fields[4], fields[6], fields[7] == 'c' and fields[8] or nil }, false
end

-- The messages from `first` to `last`, until the bytes of their texts make `most` or one is missing.
local function upward(stream, first, last, most)
  local found, size, id = {}, 0, first
  while id <= last do
    local before = id
    for _, entry in ipairs(redis.call('XRANGE', stream, whole(id), whole(math.min(last, id + STEP - 1)) .. '-0')) do
      local message, foreign = message_of(entry, id)
      if message then
        found[#found + 1] = message
        size = size + #message[3]
        if size >= most then
          return found
        end
        id = id + 1
      elseif not foreign then
        return found
      end
    end
    if id == before or id < math.min(last + 1, before + STEP) then
      return found
    end
  end
  return found
end

-- The same from `last` down to `first`; ascending, too.
local function downward(stream, first, last, most)
  local found, size, id = {}, 0, last
  while id >= first do
    local before = id
    local low = math.max(first, id - STEP + 1)
    local full = false
    for _, entry in ipairs(redis.call('XREVRANGE', stream, whole(id) .. '-0', whole(low))) do
      local message, foreign = message_of(entry, id)
      if message then
        found[#found + 1] = message
        size = size + #message[3]
        id = id - 1
        full = size >= most
      elseif not foreign then
        full = true
      end
      if full then
        break
      end
    end
    if full or id ~= low - 1 then
      break
    end
  end
  for at = 1, math.floor(#found / 2) do
    found[at], found[#found + 1 - at] = found[#found + 1 - at], found[at]
  end
  return found
end

local function announce(command, channel, payload)
  redis.pcall(command, channel, payload)
  return payload
end

-- Remove the oldest messages beyond the limits, with their cids. Returns the first id kept.
local function trim(keys, room, count, ms, now, most)
  local first, limit = room.first, math.min(room.last, room.first + most - 1)
  if first > limit or (count == 0 and ms == 0) then
    return first
  end
  local keep = first
  if count > 0 then
    keep = math.max(first, math.min(limit + 1, room.last - count + 1))
  end
  if ms > 0 then
    local entries = redis.call('XRANGE', keys[2], whole(keep), '+', 'COUNT', 1)
    while keep <= limit and entries[1] and entries[1][2][1] == 't' and tonumber(entries[1][2][2]) < now - ms do
      keep = math.max(keep, tonumber(string.match(entries[1][1], '^%d+'))) + 1
      entries = redis.call('XRANGE', keys[2], whole(keep), '+', 'COUNT', 1)
    end
    keep = math.min(keep, room.last + 1)
  end
  if keep == first then
    return first
  end
  local cids = {}
  for _, entry in ipairs(redis.call('XRANGE', keys[2], whole(first), whole(keep - 1))) do
    local fields = entry[2]
    if fields[7] == 'c' then
      cids[#cids + 1] = fields[4] .. '\0' .. fields[8]
    end
  end
  for at = 1, #cids, 100 do
    redis.call('HDEL', keys[3], unpack(cids, at, math.min(at + 99, #cids)))
  end
  redis.call('XTRIM', keys[2], 'MINID', '=', whole(keep))
  redis.call('HSET', keys[1], 'f', whole(keep))
  room.first = keep
  return keep
end

-- m s c p | context, epoch, the last id that the node has shown, its time or 0, [[username, text, cid or nothing], …]
-- ["ok", first id kept, [outcome, …], ts, [message of another node, …], the error that refused the rest or false]
--   an outcome: the id; -id of a message that is stored already; 0: a conflict; false: not stored
-- ["replaced", epoch, last] ["behind", epoch, last] ["missing"]
local function append(keys, args)
  local room, refusal = in_epoch(keys[1], args[2])
  if not room then
    return refusal
  end
  local known = tonumber(args[3])
  if not is_same(keys, room, known, tonumber(args[4])) then
    return answer('behind', room.epoch, room.last)
  end
  local context, drafts = cjson.decode(args[1]), cjson.decode(args[5])
  local now = now_ms()

  local fields, draft_of = {}, {}
  for at, draft in ipairs(drafts) do
    if draft[3] then
      fields[#fields + 1] = draft[1] .. '\0' .. draft[3]
      draft_of[#fields] = at
    end
  end
  local stored = {}  -- by cid field: the id, or the number of the draft that is to be stored
  for at = 1, #fields, 100 do
    local upto = math.min(at + 99, #fields)
    for offset, id in ipairs(redis.call('HMGET', keys[3], unpack(fields, at, upto))) do
      if id then
        stored[fields[at + offset - 1]] = { id = tonumber(id) }
      end
    end
  end

  local outcomes, write, next_id = {}, {}, room.last
  for at, draft in ipairs(drafts) do
    local field = draft[3] and draft[1] .. '\0' .. draft[3]
    local old = field and stored[field]
    if old then
      if not old.text then
        local entry = redis.call('XRANGE', keys[2], whole(old.id) .. '-0', whole(old.id) .. '-0')[1]
        old.text = entry and entry[2][6] or draft[2]
      end
      outcomes[at] = old.text == draft[2] and -old.id or 0
    else
      next_id = next_id + 1
      outcomes[at] = next_id
      write[#write + 1] = at
      if field then
        stored[field] = { id = next_id, text = draft[2] }
      end
    end
  end

  local between = {}
  if known < room.last and known + 1 >= room.first and room.last - known <= BETWEEN then
    between = upward(keys[2], known + 1, room.last, BETWEEN_BYTES)
  end

  local refused, messages, cids, last = false, {}, {}, room.last
  local ts = whole(now)
  for _, at in ipairs(write) do
    local draft, id = drafts[at], outcomes[at]
    local added
    if refused then
      outcomes[at] = false
    elseif draft[3] then
      added = redis.pcall('XADD', keys[2], whole(id) .. '-0', 't', ts, 'u', draft[1], 'x', draft[2], 'c', draft[3])
    else
      added = redis.pcall('XADD', keys[2], whole(id) .. '-0', 't', ts, 'u', draft[1], 'x', draft[2])
    end
    if added and type(added) == 'table' and added.err then
      refused = added.err
      outcomes[at] = false
    elseif added then
      last = id
      messages[#messages + 1] = { now, draft[1], draft[2], draft[3] }
      if draft[3] then
        cids[#cids + 1] = draft[1] .. '\0' .. draft[3]
        cids[#cids + 1] = whole(id)
      end
    end
  end
  if refused then  -- a draft that repeats one that is not stored isn't stored either
    for at, id in ipairs(outcomes) do
      if id and math.abs(id) > last then
        outcomes[at] = false
      end
    end
  end
  local first = room.first
  if #messages > 0 then
    if room.last == 0 then
      cids[#cids + 1] = PLACEHOLDER
      cids[#cids + 1] = ''
    end
    redis.call('HSET', keys[1], 'l', whole(last), 't', ts)
    for at = 1, #cids, 100 do
      redis.call('HSET', keys[3], unpack(cids, at, math.min(at + 99, #cids)))
    end
    local payload = table.concat({ 'm', context[1], room.epoch, whole(room.last + 1), whole(last) }, ' ')
    if room.last == 0 then
      hold(keys[1], keys[4], { last = last })
    end
    room.last = last
    first = trim(keys, room, context[4], context[5], now, #messages + TRIM)
    announce(context[3], context[2], payload .. '\n' .. cjson.encode(messages))
  end
  return answer('ok', first, outcomes, now, between, refused)
end

-- m s | epoch, after, upto, limit, bytes
-- ["ok", first id kept, [message, …] from after + 1 on] ["trimmed", first] ["replaced", epoch, last] ["missing"]
local function read(keys, args)
  local room, refusal = in_epoch(keys[1], args[1])
  if not room then
    return refusal
  end
  local after = tonumber(args[2])
  if after + 1 < room.first then
    return answer('trimmed', room.first)
  end
  local upto = math.min(tonumber(args[3]), after + tonumber(args[4]), room.last)
  if upto <= after then
    return answer('ok', room.first, {})
  end
  local found = upward(keys[2], after + 1, upto, tonumber(args[5]))
  if #found > 0 then
    return answer('ok', room.first, found)
  end
  local later = redis.call('XRANGE', keys[2], whole(after + 2), '+', 'COUNT', 1)[1]
  return answer('trimmed', later and tonumber(string.match(later[1], '^%d+')) or room.last + 1)
end

-- m s | epoch, before (0: none), after (-1: none), upto, limit, bytes
-- ["ok", first id kept, id of the first message, [message, …], whether there are more]; else as `read`
local function history(keys, args)
  local room, refusal = in_epoch(keys[1], args[1])
  if not room then
    return refusal
  end
  local before, after = tonumber(args[2]), tonumber(args[3])
  local upto, limit, most = math.min(tonumber(args[4]), room.last), tonumber(args[5]), tonumber(args[6])
  if after >= 0 then
    local start = math.max(after + 1, room.first)
    local found = upward(keys[2], start, math.min(upto, start + limit - 1), most)
    return answer('ok', room.first, start, found, #found > 0 and start + #found - 1 < upto)
  end
  local stop = before > 0 and math.min(upto, before - 1) or upto
  local found = downward(keys[2], math.max(room.first, stop - limit + 1), stop, most)
  local start = stop - #found + 1
  return answer('ok', room.first, start, found, #found > 0 and start > room.first)
end

-- The names in a room: {node: [name, …], …} with all nodes that have ever told names of it.
local function names_of(key)
  local nodes = {}
  for _, field in ipairs(redis.call('HKEYS', key)) do
    local kind = string.sub(field, 1, 2)
    if kind == 's:' then
      local node = string.sub(field, 3)
      nodes[node] = nodes[node] or {}
    elseif kind == 'n:' then
      local node, name = string.match(field, '^n:([^\n]*)\n(.*)$')
      nodes[node] = nodes[node] or {}
      table.insert(nodes[node], name)
    end
  end
  return nodes
end

-- Copies. A room that is being copied into the store has no epoch yet, so every function finds it missing, and a node
-- can't open it. Its meta hash has i (the epoch that it is to get), f, and l (the last id that is there).

local function is_being_copied(key)
  return redis.call('HEXISTS', key, 'i') == 1
end

-- m s p | the epoch that a new room is to have
-- ["ok", epoch, last, first id kept, version, who]
local function open(keys, args)
  local room = meta(keys[1])
  if not room then
    if is_being_copied(keys[1]) then
      return answer('copying')
    end
    room = create(keys[1], keys[2], args[1])
  end
  hold(keys[1], keys[3], room)
  return answer('ok', room.epoch, room.last, room.first, room.version, names_of(keys[3]))
end

-- m p | (nothing)   ["ok", epoch, last, version, who] ["missing"]
local function who(keys)
  local room = meta(keys[1])
  if not room then
    return answer('missing')
  end
  return answer('ok', room.epoch, room.last, room.version, names_of(keys[2]))
end

-- m s | the epoch that is wrong ('' where the room was missing), the new one   ["ok", epoch, last]
local function renew(keys, args)
  if is_being_copied(keys[1]) then
    return answer('copying')
  end
  local room = meta(keys[1]) or create(keys[1], keys[2], args[2])
  if room.epoch == args[1] then
    redis.call('HSET', keys[1], 'e', args[2])
    room.epoch = args[2]
  end
  return answer('ok', room.epoch, room.last)
end

-- m s | the last id that the node has shown, its time or 0
-- ["ok", epoch, last, version, whether the log has that message still] ["missing"]
local function verify(keys, args)
  local room = meta(keys[1])
  if not room then
    return answer('missing')
  end
  return answer('ok', room.epoch, room.last, room.version, is_same(keys, room, tonumber(args[1]), tonumber(args[2])))
end

-- m… | (nothing)   ["ok", [[epoch, last, version] or false, …]]
local function heads(keys)
  local found = {}
  for at, key in ipairs(keys) do
    local room = meta(key)
    found[at] = room and { room.epoch, room.last, room.version } or false
  end
  return answer('ok', found)
end

-- Let names come and go on a node, as one version if anything changed. Returns the push that was published.
local function change(keys, room, context, node, came, went)
  local arrived, left = {}, {}
  for _, name in ipairs(came) do
    if redis.call('HSETNX', keys[2], 'n:' .. node .. '\n' .. name, 1) == 1 then
      arrived[#arrived + 1] = { name, redis.call('HINCRBY', keys[2], 'k:' .. name, 1) }
    end
  end
  for _, name in ipairs(went) do
    if redis.call('HDEL', keys[2], 'n:' .. node .. '\n' .. name) == 1 then
      local count = redis.call('HINCRBY', keys[2], 'k:' .. name, -1)
      if count <= 0 then
        redis.call('HDEL', keys[2], 'k:' .. name)
      end
      left[#left + 1] = { name, count }
    end
  end
  if #arrived == 0 and #left == 0 then
    return nil
  end
  room.version = redis.call('HINCRBY', keys[1], 'v', 1)
  local head = table.concat({ 'p', node, room.epoch, whole(room.version), whole(room.last) }, ' ')
  return announce(context[3], context[2], head .. '\n' .. cjson.encode({ arrived, left }))
end

-- Whether names that a node tells come behind newer ones. If not, the room is held.
local function is_late(keys, room, context, seq)
  local field = 's:' .. context[1]
  if tonumber(redis.call('HGET', keys[2], field) or 0) >= tonumber(seq) then
    return true
  end
  redis.call('HSET', keys[2], field, seq)
  hold(keys[1], keys[2], room)
  return false
end

-- m p | context, sequence number, [name that came, …], [name that went, …]
-- ["ok", epoch, last, version, [push that was published, …]] ["late"] ["missing"]
local function attend(keys, args)
  local room = meta(keys[1])
  if not room then
    return answer('missing')
  end
  local context = cjson.decode(args[1])
  if is_late(keys, room, context, args[2]) then
    return answer('late')
  end
  local told = change(keys, room, context, context[1], cjson.decode(args[3]), cjson.decode(args[4]))
  return answer('ok', room.epoch, room.last, room.version, { told })
end

-- m p | context, sequence number, [all names that are here on the node, …]   as `attend`
local function state(keys, args)
  local room = meta(keys[1])
  if not room then
    return answer('missing')
  end
  local context = cjson.decode(args[1])
  if is_late(keys, room, context, args[2]) then
    return answer('late')
  end
  local here, came, went = {}, cjson.decode(args[3]), {}
  for _, name in ipairs(came) do
    here[name] = true
  end
  for _, name in ipairs(names_of(keys[2])[context[1]] or {}) do
    if not here[name] then
      went[#went + 1] = name
    end
  end
  local told = change(keys, room, context, context[1], came, went)
  return answer('ok', room.epoch, room.last, room.version, { told })
end

-- m p | context, [node that is dead, …]   as `attend`, with one version for each node
local function reap(keys, args)
  local room = meta(keys[1])
  if not room then
    return answer('missing')
  end
  local context, names, told = cjson.decode(args[1]), names_of(keys[2]), {}
  for _, node in ipairs(cjson.decode(args[2])) do
    told[#told + 1] = change(keys, room, context, node, {}, names[node] or {})
    redis.call('HDEL', keys[2], 's:' .. node)
  end
  return answer('ok', room.epoch, room.last, room.version, told)
end

-- m s c | context   ["ok", first id kept, whether there is more to remove]
local function prune(keys, args)
  local room = meta(keys[1])
  if not room then
    return answer('ok', 1, false)
  end
  local context, before = cjson.decode(args[1]), room.first
  local first = trim(keys, room, context[4], context[5], now_ms(), TRIM)
  return answer('ok', first, first - before >= TRIM)
end

-- m p | (nothing)   The room is used on this node.
local function keep(keys)
  local room = meta(keys[1])
  if room then
    hold(keys[1], keys[2], room)
  end
  return answer('ok')
end

-- m p | (nothing)   This node no longer uses the room: without messages and names it is removed after a while.
local function forget(keys)
  local room = meta(keys[1])
  if room and room.last == 0 then
    for _, names in pairs(names_of(keys[2])) do
      if #names > 0 then
        return answer('ok')
      end
    end
    redis.call('EXPIRE', keys[1], IDLE)
    redis.call('EXPIRE', keys[2], IDLE)
  end
  return answer('ok')
end

-- nodes | the node's line, for how many milliseconds
-- ["ok", now, whether it held its lease until now, [[line, when its lease ends], …]]   (ms since 1970)
local function lease(keys, args)
  local now = now_ms()
  local held = tonumber(redis.call('ZSCORE', keys[1], args[1]) or 0) > now
  redis.call('ZREMRANGEBYSCORE', keys[1], '-inf', whole(now - 86400000))
  redis.call('ZADD', keys[1], whole(now + tonumber(args[2])), args[1])
  local found, leases = redis.call('ZRANGE', keys[1], 0, -1, 'WITHSCORES'), {}
  for at = 1, #found, 2 do
    leases[#leases + 1] = { found[at], tonumber(found[at + 1]) }
  end
  return answer('ok', now, held, leases)
end

-- Refused whenever an append would be refused.
local function probe()
  return answer('ok')
end

-- m s c | (nothing)
-- ["free"] ["foreign"] ["there" or "copying", epoch, first id kept, last, [newest message] or []]
local function inspect(keys)
  local found = redis.call('HMGET', keys[1], 'e', 'i', 'f', 'l')
  local epoch, last = found[1] or found[2], tonumber(found[4] or 0)
  if not epoch or (found[1] and last == 0) then
    local clear = redis.call('EXISTS', keys[2], keys[3]) == 0
    return answer(clear and 'free' or 'foreign')
  end
  local newest = upward(keys[2], last, last, 0)
  return answer(found[1] and 'there' or 'copying', epoch, tonumber(found[3]), last, newest)
end

-- m s c | the epoch that it is to get, first id kept   ["ok", last id that is there] ["taken"]
local function copy_begin(keys, args)
  local found = redis.call('HMGET', keys[1], 'i', 'f', 'l')
  if found[1] == args[1] and found[2] == args[2] then
    return answer('ok', tonumber(found[3]))
  end
  local room = meta(keys[1])
  if found[1] or (room and room.last > 0) or redis.call('EXISTS', keys[2], keys[3]) > 0 then
    return answer('taken')
  end
  redis.call('DEL', keys[1])
  redis.call('HSET', keys[1], 'i', args[1], 'f', args[2], 'l', whole(tonumber(args[2]) - 1))
  return answer('ok', tonumber(args[2]) - 1)
end

-- m s c | epoch, the last id that is there, [[ts, username, text, cid or nothing], …]   ["ok", last] ["taken"] ["refused", why]
local function copy_add(keys, args)
  local found = redis.call('HMGET', keys[1], 'i', 'l')
  if found[1] ~= args[1] or found[2] ~= args[2] then
    return answer('taken')
  end
  local last, refused, cids = tonumber(args[2]), nil, {}
  for _, message in ipairs(cjson.decode(args[3])) do
    local ts, username, text, cid = whole(message[1]), message[2], message[3], message[4]
    local added
    if cid then
      added = redis.pcall('XADD', keys[2], whole(last + 1) .. '-0', 't', ts, 'u', username, 'x', text, 'c', cid)
    else
      added = redis.pcall('XADD', keys[2], whole(last + 1) .. '-0', 't', ts, 'u', username, 'x', text)
    end
    if type(added) == 'table' and added.err then
      refused = added.err
      break
    end
    last = last + 1
    if cid then
      cids[#cids + 1] = username .. '\0' .. cid
      cids[#cids + 1] = whole(last)
    end
  end
  for at = 1, #cids, 100 do
    redis.call('HSET', keys[3], unpack(cids, at, math.min(at + 99, #cids)))
  end
  redis.call('HSET', keys[1], 'l', whole(last))
  if refused then
    return answer('refused', refused)
  end
  return answer('ok', last)
end

-- m s c | epoch, last id   From here on the room is like any other.   ["ok", last] ["taken"]
local function copy_end(keys, args)
  local found = redis.call('HMGET', keys[1], 'i', 'l')
  if found[1] ~= args[1] or found[2] ~= args[2] then
    return answer('taken')
  end
  redis.call('HSET', keys[1], 'e', args[1], 'v', 0)
  redis.call('HDEL', keys[1], 'i')
  if tonumber(args[2]) > 0 then
    redis.call('HSET', keys[3], PLACEHOLDER, '')
  end
  return answer('ok', tonumber(args[2]))
end

local function register(name, callback, flags)
  redis.register_function({ function_name = name .. SUFFIX, callback = callback, flags = flags })
end

register('append', append, {})
register('probe', probe, {})
register('read', read, { 'no-writes' })
register('history', history, { 'no-writes' })
register('who', who, { 'no-writes' })
register('heads', heads, { 'no-writes' })
register('verify', verify, { 'no-writes' })
register('open', open, { 'allow-oom' })
register('renew', renew, { 'allow-oom' })
register('attend', attend, { 'allow-oom' })
register('state', state, { 'allow-oom' })
register('reap', reap, { 'allow-oom' })
register('prune', prune, { 'allow-oom' })
register('keep', keep, { 'allow-oom' })
register('forget', forget, { 'allow-oom' })
register('lease', lease, { 'allow-oom' })
register('inspect', inspect, { 'no-writes' })
register('copy_begin', copy_begin, {})
register('copy_add', copy_add, {})
register('copy_end', copy_end, { 'allow-oom' })
