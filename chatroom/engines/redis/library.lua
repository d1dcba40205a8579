-- The function library that keeps the rooms in a store of Valkey or Redis.
--
-- Keys of a room:
--   m  meta hash: e epoch, l last id, t its time, f first id kept, v version of its presence, o how many of all records so far were
--      no messages, z how many sanctions follow; mute:NAME or ban:NAME is a sanction [by whom, until when or false, reason]
--   s  stream: the messages as they were posted; <id>-0 with the fields t u x and perhaps c: time, username, text, cid
--   c  hash: USERNAME\0CID is the id that has the cid; \0ID is a record that isn't in the stream (rule 6)
--   p  presence hash: n:NODE\nNAME the node has the name here; k:NAME how many nodes do; s:NODE the last sequence number taken
--
-- A record is a line [time, username, text, cid, rest]; see `changes.rest_of`. What there isn't is left out at the end, else false.
--
-- 1. Every function checks everything, then writes everything, then announces by a publish that may fail: the writes of a
--    function that fails half-way would stay.
-- 2. Every function answers one JSON text: a list that begins with a word of ours. An empty list is {} in it.
-- 3. Ids are dense within an epoch. An entry of another program in the stream is skipped, or ends a page.
-- 4. A context is a JSON list: the node, the room's channel, the command that publishes, how many messages are kept and
--    for how many milliseconds (0: no limit).
-- 5. From a room's first record on all its keys exist. While a slot of a Cluster moves to another server, a function that
--    names an absent key beside others is refused (TRYAGAIN).
-- 6. The stream has messages as they were posted; every other record is kept beside it. An entry of a stream can't be replaced,
--    and its bytes stay until its node of the stream has no entry any more. So with a message that is changed all those near it
--    leave the stream, once and for all: then its text as it was is nowhere in the store.
-- 7. Drafts are judged as `changes` says, by the store's clock, each one behind those before it. What they change is held in a
--    state, and written when all are judged.
--
-- Doesn't know: rooms' names, and who subscribes.
--
-- In front of this text stand the library's name and SUFFIX, which ends the names of its functions.

local STEP = 50            -- so many records are read at a time
local SCAN = 2000          -- so many records are looked at in one call at most, for messages or moderations among them
local NODE = 100           -- a node of a stream has so many entries at most (stream-node-max-entries)
local NODE_BYTES = 4096    -- and, if it has two of them, fewer bytes (stream-node-max-bytes)
local NEAR = 10            -- so many of its entries are read at a time
local SHORT = 20           -- bytes of a text that may be a number, which takes fewer
local MAX_SANCTIONS = 1000 -- see `core.sanctions`
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

-- A command for a key with very many arguments, in several calls. Returns the sum of their answers.
local function in_pieces(command, key, arguments)
  local sum = 0
  for at = 1, #arguments, 100 do
    sum = sum + redis.call(command, key, unpack(arguments, at, math.min(at + 99, #arguments)))
  end
  return sum
end

-- The values of fields of a hash, by field, as far as there are any.
local function values_of(key, fields)
  local found = {}
  for at = 1, #fields, 100 do
    local upto = math.min(at + 99, #fields)
    for offset, value in ipairs(redis.call('HMGET', key, unpack(fields, at, upto))) do
      if value then
        found[fields[at + offset - 1]] = value
      end
    end
  end
  return found
end

local function meta(key)
  local found = redis.call('HMGET', key, 'e', 'l', 'f', 'v', 'o', 'z')
  if not found[1] then
    return nil
  end
  return {
    epoch = found[1], last = tonumber(found[2]), first = tonumber(found[3]), version = tonumber(found[4]),
    others = tonumber(found[5] or 0), sanctions = tonumber(found[6] or 0),
  }
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
  local room = { epoch = epoch, last = 0, first = 1, version = 0, others = 0, sanctions = 0 }
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

-- Records

local NO_REST = {}

local function line_of(time, username, text, cid, rest)
  if rest then
    return { time, username, text, cid or false, rest }
  end
  return { time, username, text, cid or nil }
end

local function rest_of(line)
  return line[5] and cjson.decode(line[5]) or NO_REST
end

-- The field in which the record of an id is kept that isn't in the stream.
local function beside(id)
  return '\0' .. whole(id)
end

-- The id of an entry, unless it is of another program, and its line, if it is a message.
local function message_of(entry)
  local fields, id = entry[2], tonumber(string.match(entry[1], '^(%d+)%-0$') or '')
  if fields[1] ~= 't' or fields[3] ~= 'u' or fields[5] ~= 'x' then
    return id, nil
  end
  return id, { tonumber(fields[2]), fields[4], fields[6], fields[7] == 'c' and fields[8] or nil }
end

-- The records from `low` to `high` that are there, by id, and the fields of those that are beside the stream.
local function records_of(keys, low, high)
  local found, count, apart = {}, 0, {}
  for _, entry in ipairs(redis.call('XRANGE', keys[2], whole(low), whole(high) .. '-0')) do
    local id, line = message_of(entry)
    if id and line then
      found[id] = line
      count = count + 1
    end
  end
  if count <= high - low then
    local missing, ids = {}, {}
    for id = low, high do
      if not found[id] then
        local field = beside(id)
        missing[#missing + 1], ids[field] = field, id
      end
    end
    for field, value in pairs(values_of(keys[3], missing)) do
      found[ids[field]] = cjson.decode(value)
      apart[#apart + 1] = field
    end
  end
  return found, apart
end

local function record_of(keys, id)
  return records_of(keys, id, id)[id]
end

-- The records from `first` to `last`, until the bytes of their texts make `most` or one is missing.
local function upward(keys, first, last, most)
  local found, size = {}, 0
  for low = first, last, STEP do
    local high = math.min(last, low + STEP - 1)
    local lines = records_of(keys, low, high)
    for id = low, high do
      local line = lines[id]
      if not line then
        return found
      end
      found[#found + 1] = line
      size = size + #line[3]
      if size >= most then
        return found
      end
    end
  end
  return found
end

-- Whether the log has the record `id` as it was shown, of the time `ts` (0: of any time). After a failover the log may have
-- gone back and have got other records under the same ids.
local function has_shown(keys, room, id, ts)
  if room.last < id then
    return false
  end
  if ts == 0 or id < room.first then
    return true
  end
  if id == room.last then
    return (tonumber(redis.call('HGET', keys[1], 't')) or ts) == ts
  end
  local line = record_of(keys, id)
  return not line or line[1] == ts
end

-- Take the next id in the stream, for a record of the time `ts` that is or isn't kept in it. Returns the error, if it is refused.
local function put(keys, id, line, ts)
  local at, added = whole(id) .. '-0', nil
  if line[5] then
    added = redis.pcall('XADD', keys[2], at, 'o', '')
  elseif line[4] then
    added = redis.pcall('XADD', keys[2], at, 't', ts, 'u', line[2], 'x', line[3], 'c', line[4])
  else
    added = redis.pcall('XADD', keys[2], at, 't', ts, 'u', line[2], 'x', line[3])
  end
  if type(added) == 'table' and added.err then
    return added.err
  end
  if line[5] then
    redis.call('XDEL', keys[2], at)
  end
end

-- The messages that may be in one node of the stream with that of `id`, which isn't among them, by id.
local function neighbours(stream, id)
  local found = {}
  local function gather(command, from, to)
    local size, entries = 0, nil
    repeat
      entries = redis.call(command, stream, from, to, 'COUNT', NEAR)
      for _, entry in ipairs(entries) do
        local own, line = message_of(entry)
        if own and line then
          found[own] = line
          size = size + math.max(0, #line[3] - SHORT)
        end
        from = '(' .. entry[1]
      end
    until size >= NODE_BYTES or #entries < NEAR
  end
  gather('XRANGE', whole(id + 1), whole(id + NODE - 1) .. '-0')
  gather('XREVRANGE', whole(id - 1) .. '-0', whole(math.max(0, id - NODE + 1)))
  return found
end

-- Keep these records beside the stream, by id; and with each of `changed` all that may be in one node with it (rule 6), also if
-- it has left the stream before, as somebody's neighbour.
local function keep_beside(keys, lines, changed)
  local apart, gone = {}, {}
  for _, id in ipairs(changed) do
    gone[#gone + 1] = whole(id) .. '-0'
    for near, other in pairs(neighbours(keys[2], id)) do
      apart[near] = other
    end
  end
  for id in pairs(apart) do
    gone[#gone + 1] = whole(id) .. '-0'
  end
  for id, line in pairs(lines) do
    apart[id] = line
  end
  local fields = {}
  for id, line in pairs(apart) do
    fields[#fields + 1] = beside(id)
    fields[#fields + 1] = cjson.encode(line)
  end
  in_pieces('HSET', keys[3], fields)
  in_pieces('XDEL', keys[2], gone)
end

local function announce(command, channel, payload)
  redis.pcall(command, channel, payload)
  return payload
end

-- Remove the oldest records beyond the limits, with their cids. Returns the first id kept.
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
    while keep <= limit do
      local line = record_of(keys, keep)
      if line and line[1] >= now - ms then
        break
      end
      keep = keep + 1
    end
  end
  if keep == first then
    return first
  end
  local gone = {}
  local entries = redis.call('XRANGE', keys[2], whole(first), whole(keep - 1))
  for _, entry in ipairs(entries) do
    local fields = entry[2]
    if fields[7] == 'c' then
      gone[#gone + 1] = fields[4] .. '\0' .. fields[8]
    end
  end
  if #entries < keep - first then
    local lines, apart = records_of(keys, first, keep - 1)
    for _, field in ipairs(apart) do
      local line = lines[tonumber(string.sub(field, 2))]
      gone[#gone + 1] = field
      gone[#gone + 1] = line[4] and line[2] .. '\0' .. line[4] or nil
    end
  end
  in_pieces('HDEL', keys[3], gone)
  redis.call('XTRIM', keys[2], 'MINID', '=', whole(keep))
  redis.call('HSET', keys[1], 'f', whole(keep))
  room.first = keep
  return keep
end

-- Sanctions

local TAKES_BACK = { unmute = 'mute', unban = 'ban' }

-- The sanctions in a meta hash, by field.
local function all_sanctions(key)
  local found, flat = {}, redis.call('HGETALL', key)
  for at = 1, #flat, 2 do
    if string.find(flat[at], ':', 1, true) then
      found[flat[at]] = cjson.decode(flat[at + 1])
    end
  end
  return found
end

local function is_in_force(sanction, now)
  return not sanction[2] or tonumber(sanction[2]) > now
end

-- [[action, username, by whom, until when or false, reason], …]; without a time, those that have ended as well.
local function sanctions_of(key, room, now)
  local found = {}
  if room.sanctions > 0 then
    for field, each in pairs(all_sanctions(key)) do
      if not now or is_in_force(each, now) then
        local action, username = string.match(field, '^(%a+):(.*)$')
        found[#found + 1] = { action, username, each[1], each[2], each[3] }
      end
    end
  end
  return found
end

-- Judging
--
-- The state of an append (rule 7): keys, room, now;
--   new: the lines that are to be stored, in their order; effects: what they change beside, by their place there
--   changed: the lines of other records as they are to be, by id
--   sanctions: as far as they were looked up, by field (false: there is none); count: of all that are kept; ended: fields to remove

local function line_at(state, id)
  local room = state.room
  local line = state.changed[id] or state.new[id - room.last]
  if line or id < room.first or id > room.last then
    return line
  end
  return record_of(state.keys, id)
end

local function sanction_in_force(state, action, username)
  local field = action .. ':' .. username
  if state.sanctions[field] == nil then
    local value = state.room.sanctions > 0 and redis.call('HGET', state.keys[1], field)
    state.sanctions[field] = value and cjson.decode(value) or false
  end
  local found = state.sanctions[field]
  return found and is_in_force(found, state.now) and found or nil
end

local function forget_ended(state)
  for field, each in pairs(all_sanctions(state.keys[1])) do
    if state.sanctions[field] == nil then
      state.sanctions[field] = each
    end
  end
  state.count = 0
  for field, each in pairs(state.sanctions) do
    if each and is_in_force(each, state.now) then
      state.count = state.count + 1
    elseif each then
      state.sanctions[field] = false
      state.ended[#state.ended + 1] = field
    end
  end
end

-- When what a moderator did at `time` ends, if it does.
local function end_of(act, time)
  local lasts = act[2] == 'mute' or act[2] == 'ban'
  return lasts and act[4] and time + act[4] * 1000 or nil
end

-- Whether `line` is what the draft asks for, if both have the same author and cid.
local function is_same(draft, line)
  local act, rest = draft[4], rest_of(line)
  if not act then
    return not rest.event and (line[3] == draft[2] or rest.edited ~= nil or rest.deleted ~= nil)
  end
  if act[1] == 'edit' then
    return rest.event == 'edited' and rest.about == act[2] and (line[3] == draft[2] or line[3] == '')
  end
  if act[1] == 'delete' then
    return rest.event == 'deleted' and rest.about == act[2]
  end
  local same = rest.event == 'moderated' and rest.action == act[2] and rest.target == act[3] and line[3] == draft[2]
  return same and rest['until'] == end_of(act, line[1])
end

-- Why the author of a draft may not say anything now, as an outcome.
local function denial(state, draft)
  local act = draft[4]
  if draft[5] or (act and act[1] == 'moderate') then
    return nil
  end
  local ban = sanction_in_force(state, 'ban', draft[1])
  if ban then
    return { 'denied', 'BANNED', ban[2] }
  end
  local mute = sanction_in_force(state, 'mute', draft[1])
  if mute and not (act and act[1] == 'delete') then
    return { 'denied', 'MUTED', mute[2] }
  end
end

-- What becomes of an edit or a deletion: its line, and its effect; or nothing, and its outcome.
local function judge_change(state, draft)
  local what, about, within = unpack(draft[4])
  local id = state.room.last + #state.new + 1
  local target = line_at(state, about)
  local rest = target and rest_of(target)
  if not target or rest.event then
    return nil, 'not_found'
  end
  if rest.deleted then
    return nil, what == 'delete' and 'done' or 'not_found'
  end
  if not (what == 'delete' and draft[5]) then
    if target[2] ~= draft[1] then
      return nil, { 'denied', 'NOT_YOURS', false }
    end
    if state.now - target[1] >= within then
      return nil, { 'denied', 'TOO_LATE', false }
    end
  end
  local about_it = '"about":' .. whole(about) .. ',"replaces":' .. whole(rest.edited or about) .. '}'
  local line, text, changed
  if what == 'edit' then
    text, changed = draft[2], '{"edited":' .. whole(id) .. '}'
    line = line_of(state.now, draft[1], text, draft[3], '{"event":"edited",' .. about_it)
  else
    local edited = rest.edited and '"edited":' .. whole(rest.edited) .. ',' or ''
    local author = '"author":' .. cjson.encode(target[2]) .. ','
    text, changed = '', '{' .. edited .. '"deleted":' .. whole(id) .. '}'
    line = line_of(state.now, draft[1], text, draft[3], '{"event":"deleted",' .. author .. about_it)
  end
  local lines = { [about] = line_of(target[1], target[2], text, target[4], changed) }
  local earlier = rest.edited and line_at(state, rest.edited)
  if earlier then
    lines[rest.edited] = line_of(earlier[1], earlier[2], '', earlier[4], earlier[5])
  end
  return line, { lines = lines, first = not rest.edited and about }
end

-- The same of an action against a name. Its effect sets a sanction, or removes it (value false).
local function judge_sanction(state, draft)
  local _, action, username = unpack(draft[4])
  local kind = TAKES_BACK[action] or action
  local lasts, before = action == 'mute' or action == 'ban', nil
  if kind ~= 'kick' then
    before = sanction_in_force(state, kind, username)
  end
  if TAKES_BACK[action] and not before then
    return nil, 'done'
  end
  if lasts and not before and state.count >= MAX_SANCTIONS then
    forget_ended(state)
    if state.count >= MAX_SANCTIONS then
      return nil, { 'denied', 'TOO_MANY', false }
    end
  end
  local ends = end_of(draft[4], state.now)
  ends = ends and whole(ends)
  local rest = '{"event":"moderated","action":' .. cjson.encode(action) .. ',"target":' .. cjson.encode(username)
  local line = line_of(state.now, draft[1], draft[2], draft[3], rest .. (ends and ',"until":' .. ends or '') .. '}')
  if action == 'kick' then
    return line, { lines = NO_REST }
  end
  local field = kind .. ':' .. username
  local value = lasts and { draft[1], ends or false, draft[2] } or false
  state.count = state.count + (value and 1 or 0) - (state.sanctions[field] and 1 or 0)
  state.sanctions[field] = value
  return line, { lines = NO_REST, field = field, value = value }
end

-- What becomes of a draft that isn't stored: its line, and its effect if it is no message; or nothing, and its outcome.
local function judge(state, draft)
  local refused = state.count > 0 and denial(state, draft)
  if refused then
    return nil, refused
  end
  local act = draft[4]
  if not act then
    return line_of(state.now, draft[1], draft[2], draft[3])
  elseif act[1] == 'moderate' then
    return judge_sanction(state, draft)
  end
  return judge_change(state, draft)
end

-- Write what the first `count` new records change beside (rule 7).
local function write_effects(state, count)
  local lines, changed, sanctions, meta_key = {}, {}, state.room.sanctions, state.keys[1]
  sanctions = sanctions - in_pieces('HDEL', meta_key, state.ended)
  for at = 1, count do
    local effect = state.effects[at]
    if effect then
      lines[state.room.last + at] = state.new[at]
      for id, line in pairs(effect.lines) do
        lines[id] = line
      end
      changed[#changed + 1] = effect.first or nil
      if effect.value then
        sanctions = sanctions + redis.call('HSET', meta_key, effect.field, cjson.encode(effect.value))
      elseif effect.field then
        sanctions = sanctions - redis.call('HDEL', meta_key, effect.field)
      end
    end
  end
  keep_beside(state.keys, lines, changed)
  if sanctions ~= state.room.sanctions then
    redis.call('HSET', meta_key, 'z', sanctions)
  end
end

-- m s c p | context, epoch, the last id that the node has shown, its time or 0, [draft, …]
--   a draft: [username, text, cid, act, whether a moderator drafts it]; at the end, what there isn't is left out, else it is false
--   an act: ["edit" or "delete", the id about which it is, within how many ms] or ["moderate", action, username, seconds or false]
-- ["ok", first id kept, [outcome, …], ts, [record of another node, …], the error that refused the rest or false]
--   an outcome: the id; [the id, rest] of a record that is no message; -id of a record that is stored already; 0: a conflict;
--   "done"; "not_found"; ["denied", a Denial, until when or false]; false: not stored
-- ["replaced", epoch, last] ["behind", epoch, last] ["missing"]
local function append(keys, args)
  local room, refusal = in_epoch(keys[1], args[2])
  if not room then
    return refusal
  end
  local known = tonumber(args[3])
  if not has_shown(keys, room, known, tonumber(args[4])) then
    return answer('behind', room.epoch, room.last)
  end
  local context, drafts = cjson.decode(args[1]), cjson.decode(args[5])
  local now = now_ms()
  local new = {}
  local state = {
    keys = keys, room = room, now = now, new = new, effects = {}, changed = {},
    sanctions = {}, count = room.sanctions, ended = {},
  }

  local fields, field_of = {}, {}
  for at, draft in ipairs(drafts) do
    if draft[3] then
      local field = draft[1] .. '\0' .. draft[3]
      fields[#fields + 1], field_of[at] = field, field
    end
  end
  local known_ids = values_of(keys[3], fields)  -- the ids that have these cids; those of new records come to them
  local outcomes, draft_of = {}, {}
  for at, draft in ipairs(drafts) do
    local field = field_of[at]
    local id = field and tonumber(known_ids[field])
    if id then
      local line = line_at(state, id)
      outcomes[at] = (not line or is_same(draft, line)) and -id or 0
    else
      local line, more
      if draft[4] or state.count > 0 then
        line, more = judge(state, draft)
      else  -- nearly always
        line = { now, draft[1], draft[2], draft[3] or nil }
      end
      if line then
        local place = #new + 1
        id = room.last + place
        new[place], draft_of[place] = line, at
        outcomes[at] = id
        if more then
          outcomes[at], state.effects[place] = { id, line[5] }, more
          for changed, its in pairs(more.lines) do
            state.changed[changed] = its
          end
        end
        if field then
          known_ids[field] = id
        end
      else
        outcomes[at] = more
      end
    end
  end

  local between = {}
  if known < room.last and known + 1 >= room.first and room.last - known <= BETWEEN then
    between = upward(keys, known + 1, room.last, BETWEEN_BYTES)
  end

  local refused, last, others, cids = false, room.last, 0, {}
  local ts = whole(now)
  for place, line in ipairs(new) do
    refused = put(keys, last + 1, line, ts) or false
    if refused then
      break
    end
    last = last + 1
    if line[5] then
      others = others + 1
    end
    if line[4] then
      cids[#cids + 1] = field_of[draft_of[place]]
      cids[#cids + 1] = whole(last)
    end
  end
  local written = last - room.last
  if refused then  -- what was judged behind it counts for nothing, but for duplicates and conflicts
    for at = draft_of[written + 1], #drafts do
      local id = outcomes[at]
      if type(id) ~= 'number' or math.abs(id) > last then
        outcomes[at] = false
      end
    end
    for place = #new, written + 1, -1 do
      new[place] = nil
    end
  end
  local first = room.first
  if written > 0 then
    if room.last == 0 then
      cids[#cids + 1] = PLACEHOLDER
      cids[#cids + 1] = ''
    end
    redis.call('HSET', keys[1], 'l', whole(last), 't', ts)
    in_pieces('HSET', keys[3], cids)
    if others > 0 then
      write_effects(state, written)
      redis.call('HINCRBY', keys[1], 'o', others)
    end
    local payload = table.concat({ 'm', context[1], room.epoch, whole(room.last + 1), whole(last) }, ' ')
    if room.last == 0 then
      hold(keys[1], keys[4], { last = last })
    end
    room.last = last
    first = trim(keys, room, context[4], context[5], now, written + TRIM)
    announce(context[3], context[2], payload .. '\n' .. cjson.encode(new))
  end
  return answer('ok', first, outcomes, now, between, refused)
end

-- m s c | epoch, after, upto, limit, bytes
-- ["ok", first id kept, [record, …] from after + 1 on] ["trimmed", first] ["replaced", epoch, last] ["missing"]
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
  local found = upward(keys, after + 1, upto, tonumber(args[5]))
  if #found > 0 then
    return answer('ok', room.first, found)
  end
  local later = redis.call('XRANGE', keys[2], whole(after + 2), '+', 'COUNT', 1)[1]
  return answer('trimmed', later and tonumber(string.match(later[1], '^%d+')) or room.last + 1)
end

-- m s c | epoch, before (0: none), after (-1: none), upto, limit, bytes
-- ["ok", first id kept, [id, …], [message, …], whether there are more, the id from which to go on or false]; else as `read`
--   newest first unless there is an `after`; "go on": SCAN records were looked at, and the answer isn't complete
local function history(keys, args)
  local room, refusal = in_epoch(keys[1], args[1])
  if not room then
    return refusal
  end
  local before, after = tonumber(args[2]), tonumber(args[3])
  local limit, most = tonumber(args[5]), tonumber(args[6])
  local low, high = math.max(room.first, after + 1), math.min(tonumber(args[4]), room.last)
  local up = after >= 0
  if not up and before > 0 then
    high = math.min(high, before - 1)
  end
  local ids, found, size, seen = {}, {}, 0, 0
  local step = math.min(limit, STEP) + 1  -- the page, and the message that shows that there are more
  while low <= high and seen < SCAN do
    local from = up and low or math.max(low, high - step + 1)
    local to = up and math.min(high, low + step - 1) or high
    local lines = records_of(keys, from, to)
    for id = up and from or to, up and to or from, up and 1 or -1 do
      local line = lines[id]
      if not line then
        return answer('ok', room.first, ids, found, false, false)
      end
      if not rest_of(line).event then
        if #ids >= limit or size >= most then
          return answer('ok', room.first, ids, found, true, false)
        end
        ids[#ids + 1], found[#found + 1] = id, line
        size = size + #line[3]
      end
    end
    seen = seen + step
    step = STEP
    if up then
      low = to + 1
    else
      high = from - 1
    end
  end
  return answer('ok', room.first, ids, found, false, low <= high and (up and low - 1 or high + 1))
end

-- m s c | epoch, upto, limit
-- ["ok", [id, …], [record of an action, …] newest first, the id below which to go on or false]; else as `read`
local function moderations(keys, args)
  local room, refusal = in_epoch(keys[1], args[1])
  if not room then
    return refusal
  end
  local high, limit = math.min(tonumber(args[2]), room.last), tonumber(args[3])
  local low = math.max(room.first, high - SCAN + 1)
  local ids, found = {}, {}
  for upper = room.others > 0 and high or 0, low, -STEP do
    local fields = {}
    for id = upper, math.max(low, upper - STEP + 1), -1 do
      fields[#fields + 1] = beside(id)
    end
    for at, value in ipairs(redis.call('HMGET', keys[3], unpack(fields))) do
      local line = value and cjson.decode(value)
      if line and rest_of(line).event == 'moderated' then
        ids[#ids + 1], found[#found + 1] = upper - at + 1, line
        if #ids == limit then
          return answer('ok', ids, found, false)
        end
      end
    end
  end
  return answer('ok', ids, found, room.others > 0 and low > room.first and low)
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
-- ["ok", epoch, last, first id kept, version, who, others, [sanction in force, …]]
local function open(keys, args)
  local room = meta(keys[1])
  if not room then
    if is_being_copied(keys[1]) then
      return answer('copying')
    end
    room = create(keys[1], keys[2], args[1])
  end
  hold(keys[1], keys[3], room)
  local sanctions = sanctions_of(keys[1], room, now_ms())
  return answer('ok', room.epoch, room.last, room.first, room.version, names_of(keys[3]), room.others, sanctions)
end

-- m | (nothing)   ["ok", epoch, last, others, [sanction in force, …]] ["missing"]
local function head(keys)
  local room = meta(keys[1])
  if not room then
    return answer('missing')
  end
  return answer('ok', room.epoch, room.last, room.others, sanctions_of(keys[1], room, now_ms()))
end

-- m s c p, m s c p, … | (nothing)
-- ["ok", [[last id, its time, names] or false, …]]   of rooms in which a record is kept
local function summaries(keys)
  local found = {}
  for at = 1, #keys, 4 do
    local room, names, newest = meta(keys[at]), 0, nil
    if room and room.first <= room.last then
      newest = tonumber(redis.call('HGET', keys[at], 't') or nil)
      newest = newest or (record_of({ false, keys[at + 1], keys[at + 2] }, room.last) or { 0 })[1]
      for _, field in ipairs(redis.call('HKEYS', keys[at + 3])) do
        names = names + (string.sub(field, 1, 2) == 'k:' and 1 or 0)
      end
    end
    found[#found + 1] = newest and { room.last, newest, names } or false
  end
  return answer('ok', found)
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

-- m s c | the last id that the node has shown, its time or 0
-- ["ok", epoch, last, version, whether the log has that record still] ["missing"]
local function verify(keys, args)
  local room = meta(keys[1])
  if not room then
    return answer('missing')
  end
  return answer('ok', room.epoch, room.last, room.version, has_shown(keys, room, tonumber(args[1]), tonumber(args[2])))
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
-- ["free"] ["foreign"]
-- ["there" or "copying", epoch, first id kept, last, [newest record] or [], others, [sanction, also one that has ended, …]]
local function inspect(keys)
  local found = redis.call('HMGET', keys[1], 'e', 'i', 'f', 'l', 'o', 'z')
  local epoch, last = found[1] or found[2], tonumber(found[4] or 0)
  if not epoch or (found[1] and last == 0) then
    local clear = redis.call('EXISTS', keys[2], keys[3]) == 0
    return answer(clear and 'free' or 'foreign')
  end
  local state, newest = found[1] and 'there' or 'copying', upward(keys, last, last, 0)
  local sanctions = sanctions_of(keys[1], { sanctions = tonumber(found[6] or 0) })
  return answer(state, epoch, tonumber(found[3]), last, newest, tonumber(found[5] or 0), sanctions)
end

-- m s c | the epoch that it is to get, first id kept, others, [sanction, …]   ["ok", last id that is there] ["taken"]
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
  redis.call('HSET', keys[1], 'i', args[1], 'f', args[2], 'l', whole(tonumber(args[2]) - 1), 'o', args[3])
  local sanctions = cjson.decode(args[4])
  for _, each in ipairs(sanctions) do
    local action, username, by, ends, reason = unpack(each)
    redis.call('HSET', keys[1], action .. ':' .. username, cjson.encode({ by, ends, reason }))
  end
  redis.call('HSET', keys[1], 'z', #sanctions)
  return answer('ok', tonumber(args[2]) - 1)
end

-- m s c | epoch, the last id that is there, [record, …]   ["ok", last] ["taken"] ["refused", why]
local function copy_add(keys, args)
  local found = redis.call('HMGET', keys[1], 'i', 'l')
  if found[1] ~= args[1] or found[2] ~= args[2] then
    return answer('taken')
  end
  local last, refused, fields, newest = tonumber(args[2]), nil, {}, nil
  for _, line in ipairs(cjson.decode(args[3])) do
    refused = put(keys, last + 1, line, whole(line[1]))
    if refused then
      break
    end
    last, newest = last + 1, line
    if line[4] then
      fields[#fields + 1] = line[2] .. '\0' .. line[4]
      fields[#fields + 1] = whole(last)
    end
    if line[5] then
      fields[#fields + 1] = beside(last)
      fields[#fields + 1] = cjson.encode(line)
    end
  end
  in_pieces('HSET', keys[3], fields)
  if newest then
    redis.call('HSET', keys[1], 'l', whole(last), 't', whole(newest[1]))
  end
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
register('moderations', moderations, { 'no-writes' })
register('head', head, { 'no-writes' })
register('summaries', summaries, { 'no-writes' })
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
