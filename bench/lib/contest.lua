-- SPDX-License-Identifier: MIT
--- Measures contestants in alternating rounds, so that all see the same machine: in each round everybody has one turn,
--- in every other round in the opposite order.
local marea = require "marea"
local contestants = require "lib.contestants"
local settings = require "lib.settings"
local stats = require "lib.stats"

---@class Entry
---@field rounds number[]   ms of each round; a hole where it failed
---@field label string|nil  the setting, where a peer has several
---@field remark string|nil what the worker said about its only request
---@field failure string|nil why it has no figure
---@field by_cpu boolean whether it is timed by CPU time

local Contest = {}
Contest.__index = Contest

local contest = {}

contest.cpu_time = false -- whether turns with one thread are timed by CPU time

local TRIAL = 2 -- rounds, after which settings that are far behind get no more turns
local FAR_BEHIND = 1.25

function contest.new() return setmetatable({entries = {}, races = {}}, Contest) end

--- An entry whose figures are known.
function contest.known(rounds) return {rounds = rounds} end

--- A list of the lists' entries.
function contest.join(...)
  local joined = {}
  for i = 1, select("#", ...) do
    local list = select(i, ...) or {}
    table.move(list, 1, #list, #joined + 1, joined)
  end
  return joined
end

contest.threads_text = settings.threads_text

--- A list of one entry, which asks the contestant of this name; of none when it is absent. requests: one, or a list
--- whose times are added.
function Contest:ask(name, requests, label)
  local worker = contestants.get(name)
  if not worker then return {} end
  if type(requests) == "string" then requests = {requests} end
  local entry = {worker = worker, requests = requests, rounds = {}, label = label,
    by_cpu = contest.cpu_time and requests[1]:find " threads=1 " ~= nil}
  self.entries[#self.entries + 1] = entry
  return {entry}
end

--- A peer's entries in all of its settings (lib/settings.lua), which race each other.
function Contest:ask_settings(of, request, threads, seconds)
  local list = {}
  for _, setting in ipairs(of(threads)) do
    list = contest.join(list, self:ask(setting.worker, settings.request(request, setting, threads, seconds),
      setting.label))
  end
  self.races[#self.races + 1] = list
  return list
end

--- Marks settings as out whose best turn took far longer than the best turn of their race.
local function end_trial(race)
  local best, bests = math.huge, {}
  for i, entry in ipairs(race) do
    bests[i] = (stats.summary(entry.rounds) or {low = math.huge}).low
    best = math.min(best, bests[i])
  end
  for i, entry in ipairs(race) do entry.out = bests[i] > FAR_BEHIND * best end
end

--- One turn: the sum over requests of the median time.
local function turn(entry)
  local sum = 0
  for _, request in ipairs(entry.requests) do
    local times, remark = entry.worker:ask(request .. (entry.by_cpu and " clock=cpu" or ""))
    if not times then return nil, remark end
    sum = sum + stats.median(times)
    entry.remark = remark ~= "" and #entry.requests == 1 and remark or nil
  end
  return sum
end

--- Fills in the rounds of all entries.
function Contest:run(title, rounds)
  local entries, round, place = self.entries, 1, 0
  local function next_turn()
    place = place + 1
    if place > #entries then round, place = round + 1, 1 end
    if place == 1 and round == TRIAL + 1 then
      for _, race in ipairs(self.races) do end_trial(race) end
    end
    if round <= rounds then return round, entries[round % 2 == 1 and place or #entries + 1 - place] end
  end
  for r, entry in marea.data.progress(next_turn, {title = title, unit = "turns", total = rounds * #entries}) do
    if not entry.out then
      local ms, message = turn(entry)
      entry.rounds[r] = ms
      if not ms then
        io.stderr:write("\n", message, "\n")
        entry.out = next(entry.rounds) == nil -- it would fail again
        entry.failure = entry.out and message or nil
      end
    end
  end
end

return contest
