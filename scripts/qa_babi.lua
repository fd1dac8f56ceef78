-- SPDX-License-Identifier: MIT
--- Little stories and questions about them, as in the first three tasks of bAbI (Weston et al. 2015), by a simulation:
--- people go from room to room, take things along and leave them behind.
---
---   1  Mary moved to the office. John went to the garden. Where is Mary?                         office
---   2  Mary went to the office. Mary took the milk. Mary moved to the garden. Where is the milk?  garden
---   3  the same. Where was the milk before the garden?                                            office
local shared = dofile((debug.getinfo(1, "S").source:match "^@(.*/)" or "") .. "options.lua")
local babi = {}

local PEOPLE = {"mary", "john", "daniel", "sandra"}
local ROOMS = {"bathroom", "hallway", "garden", "office", "bedroom", "kitchen"}
local THINGS = {"milk", "apple", "football"}
local GOES = {"moved to the", "went to the", "went back to the", "journeyed to the", "travelled to the"}
local TAKES = {"took the", "got the", "grabbed the", "picked up the"}
local LEAVES = {"dropped the", "left the", "put down the", "discarded the"}

--- A function that draws from a list, or a number from 1 to n.
local function generator(seed)
  local number = shared.numbers(seed)
  local function draw(from)
    if type(from) == "table" then return from[number(#from)] end
    return number(from)
  end
  for _ = 1, 10 do draw(2) end -- seeds that are close together begin alike
  return draw
end

local function add_words(list, sentence)
  for word in sentence:gmatch "[^ ]+" do list[#list + 1] = word end
end

-- ---- the world: rooms of people, and the rooms in which each thing was, so far as the story tells ----

local World = {}
World.__index = World

local function new_world(draw)
  local world = setmetatable({draw = draw, room = {}, holder = {}, place = {}, path = {}, story = {}}, World)
  for _, thing in ipairs(THINGS) do world.path[thing], world.place[thing] = {}, draw(ROOMS) end
  return world
end

function World:tell(...) add_words(self.story, table.concat({...}, " ") .. " .") end

--- A thing is somewhere, and the story tells.
function World:see(thing)
  local path = self.path[thing]
  self.place[thing] = self.room[self.holder[thing]]
  if path[#path] ~= self.place[thing] then path[#path + 1] = self.place[thing] end
end

function World:go(person)
  local room
  repeat room = self.draw(ROOMS) until room ~= self.room[person]
  self.room[person] = room
  self:tell(person, self.draw(GOES), room)
  for _, thing in ipairs(THINGS) do
    if self.holder[thing] == person then self:see(thing) end
  end
end

--- The person takes a thing that lies in the same room, or leaves one that it has; is there one?
function World:handle(person)
  local thing = self.draw(THINGS)
  if self.holder[thing] == person then
    self.holder[thing] = nil
    self:tell(person, self.draw(LEAVES), thing)
    return true
  end
  if self.holder[thing] or self.place[thing] ~= self.room[person] then return false end
  self.holder[thing] = person
  self:see(thing)
  self:tell(person, self.draw(TAKES), thing)
  return true
end

--- One sentence more.
function World:go_on(with_things)
  local person = self.draw(PEOPLE)
  if not (with_things and self.room[person] and self.draw(2) == 1 and self:handle(person)) then self:go(person) end
end

-- ---- questions: words and answer, or nil when the story does not tell enough ----

local ask = {}

ask[1] = function(world)
  local person = world.draw(PEOPLE)
  return "where is " .. person, world.room[person]
end

ask[2] = function(world)
  local thing = world.draw(THINGS)
  return "where is the " .. thing, world.path[thing][1] and world.place[thing]
end

--- The last time that a thing came to a room, one of the last three of its path.
ask[3] = function(world)
  local thing = world.draw(THINGS)
  local path = world.path[thing]
  local k = #path + 1 - world.draw(3)
  for later = k + 1, #path do
    if path[later] == path[k] then return end
  end
  return ("where was the %s before the %s"):format(thing, path[k] or ""), path[k - 1]
end

--- Questions and answers of one story: five, each behind a few sentences more.
local function tell(task, draw, questions, answers, n)
  local world = new_world(draw)
  for _ = 1, 5 do
    if #questions == n then return end
    for _ = 1, task == 1 and 2 or 1 + draw(2 * task) do world:go_on(task > 1) end
    local question, answer = ask[task](world)
    while not answer do
      if task > 1 then world:go_on(true) end
      question, answer = ask[task](world)
    end
    local words = table.move(world.story, 1, #world.story, 1, {})
    add_words(words, question)
    questions[#questions + 1], answers[#answers + 1] = words, {answer}
  end
end

--- n questions, each behind its story, and their answers: lists of words. The same seed gives the same ones.
---@param task integer 1 to 3
function babi.draw(task, n, seed)
  local draw, questions, answers = generator(seed), {}, {}
  while #questions < n do tell(task, draw, questions, answers, n) end
  return {questions = questions, answers = answers}
end

return babi
