-- SPDX-License-Identifier: MIT
--- Dates from 1930 to 2029 as people write them, with what they mean in ISO 8601, for scripts/dates.lua. Every text has
--- one reading: two digits for a year mean 1930 to 2029; in forms of numbers alone that do not begin with the year, the
--- day is 13 or more.
local shared = dofile((debug.getinfo(1, "S").source:match "^@(.*/)" or "") .. "options.lua")
local dates = {}

--- All that the texts are made of.
dates.CHARACTERS = " ',-./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

local MONTHS = {"January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
  "November", "December"}
local WEEKDAYS = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"}
local ENDINGS = {"st", "nd", "rd", [21] = "st", [22] = "nd", [23] = "rd", [31] = "st"} -- others: "th"

-- Names between braces are those of the table that parts() returns.
local FORMS = {
  "{day} {month} {year}", "{month} {day}, {year}", "{nth} of {month} {year}", "the {nth} of {month}, {year}",
  "{month} {nth}, {year}", "{nth} {month} {year}", "{dd} {mon} {year}", "{mon} {day} {year}", "{mon}. {day}, {year}",
  "{dd}-{mon}-{year}", "{day} {mon} '{yy}", "{wd} {dd} {mon} {year}", "{wd}, {mon} {day}, {year}",
  "{weekday}, {month} {day}, {year}", "{weekday} {nth} of {month} {year}", "{weekday} the {nth} of {month}, {year}",
  "{year} {month} {day}", "{year}, {mon} {nth}", "{year}/{mm}/{dd}", "{year}.{mm}.{dd}",
}
local NUMBERS = {"{m}/{day}/{yy}", "{mm}/{dd}/{year}", "{day}/{m}/{year}", "{dd}.{mm}.{yy}", "{day}-{m}-{year}"}

local function parts(t)
  local month, weekday = MONTHS[t.month], WEEKDAYS[t.wday]
  return {day = t.day, dd = ("%02d"):format(t.day), nth = t.day .. (ENDINGS[t.day] or "th"), m = t.month,
    mm = ("%02d"):format(t.month), month = month, mon = month:sub(1, 3), weekday = weekday, wd = weekday:sub(1, 3),
    year = t.year, yy = ("%02d"):format(t.year % 100)}
end

local CASES = {string.lower, string.upper, tostring, tostring, tostring}

--- Days since 1970-01-01. Every tenth one comes in the test alone, and every tenth one in the validation alone.
local FIRST <const>, DAYS <const> = -14610, 36524
local PART = {[0] = "test", [5] = "validation"} -- of the last digit; others: "training"

local function draw_day(draw, part)
  while true do
    local day = FIRST + draw(DAYS) - 1
    if (PART[day % 10] or "training") == part then return os.date("!*t", day * 86400) end
  end
end

--- n dates: a list of texts, a list of their ISO forms. The same seed gives the same ones.
---@param part "training"|"validation"|"test" whose days have no other part's among them
function dates.draw(n, seed, part)
  local draw, free, iso = shared.numbers(seed), {}, {}
  for _ = 1, 10 do draw(1) end -- seeds that are close together begin alike
  for i = 1, n do
    local t = draw_day(draw, part)
    local k = draw(#FORMS + (t.day > 12 and #NUMBERS or 0))
    local line = (FORMS[k] or NUMBERS[k - #FORMS]):gsub("{(%w+)}", parts(t))
    free[i], iso[i] = CASES[draw(#CASES)](line), ("%04d-%02d-%02d"):format(t.year, t.month, t.day)
  end
  return free, iso
end

return dates
