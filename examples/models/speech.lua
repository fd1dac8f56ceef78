-- SPDX-License-Identifier: MIT
--- speech.lua: when somebody speaks in a recording, told by the network of the package silero-vad, which `make models`
--- gets. The recording is a WAV file at 16 or 8 kHz; sox makes one of any other:
---
---   sox any.mp3 -r 16000 recording.wav
---   build/marea examples/models/speech.lua recording.wav
local marea = require "marea"

local folder = os.getenv "MAREA_MODELS" or "build/models"
local path = ...
if not path then error("usage: marea speech.lua recording.wav", 0) end

-- Probabilities, and seconds, as in the package's get_speech_timestamps.
local BEGIN <const>, STOP <const> = 0.5, 0.35
local LEAST_SPEECH <const>, LEAST_SILENCE <const>, MARGIN <const> = 0.25, 0.1, 0.03

--- Samples from -1 to 1, and how many there are in a second; several channels as their mean.
local function read_wav(name)
  local x, rate = assert(marea.load_wav(name))
  assert(rate == 16000 or rate == 8000, name .. ": expected sound at 16 or 8 kHz")
  return x:mean{dims = {2}}, rate
end

--- The probability of speech in each window of 32 ms. The network sees the last 4 ms before it too, and has a memory.
local function probabilities_of(net, samples, rate)
  local window, before = rate // 1000 * 32, rate // 1000 * 4
  local n = (#samples + window - 1) // window
  local padded = samples:pad({before, n * window - #samples})
  local inputs = {sr = marea.tensor(rate, {dtype = "i64"}), state = marea.zeros{2, 1, 128}}
  local list = {}
  for i = 1, n do
    inputs.input = padded:narrow(1, (i - 1) * window + 1, before + window):unsqueeze(1)
    local probability, state = net(inputs)
    list[i], inputs.state = probability:item(), state
  end
  return list, window
end

--- Spans of samples. Speech begins where the probability reaches BEGIN and ends where it stays below STOP.
local function find_spans(probabilities, window, total, rate)
  local spans, first, silent = {}, nil, nil
  local function close(last)
    if last - first > LEAST_SPEECH * rate then spans[#spans + 1] = {first, last} end
    first, silent = nil, nil
  end
  for i, p in ipairs(probabilities) do
    local at = (i - 1) * window
    if p >= BEGIN then first, silent = first or at, nil
    elseif p < STOP and first then
      silent = silent or at
      if at - silent >= LEAST_SILENCE * rate then close(silent) end
    end
  end
  if first then close(total) end
  return spans
end

--- Each span gets a margin; where that of two would meet, they share the silence.
local function widen(spans, total, rate)
  local margin = MARGIN * rate
  for i, span in ipairs(spans) do
    local following = spans[i + 1]
    local silence = following and following[1] - span[2] or math.huge
    local share = silence < 2 * margin and silence // 2 or margin
    if i == 1 then span[1] = math.max(0, span[1] - margin) end
    span[2] = math.min(total, span[2] + share)
    if following then following[1] = math.max(0, following[1] - share) end
  end
end

local net = assert(marea.onnx.load(folder .. "/silero_vad/data/silero_vad.onnx"))
local samples, rate = read_wav(path)
local probabilities, window = marea.no_grad(probabilities_of, net, samples, rate)
local spans = find_spans(probabilities, window, #samples, rate)
widen(spans, #samples, rate)
for _, span in ipairs(spans) do print(marea.format("%8.2f s to %8.2f s", span[1] / rate, span[2] / rate)) end
return spans, probabilities
