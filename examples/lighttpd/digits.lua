-- SPDX-License-Identifier: MIT
--- GET /digit.png?z=0.3,-1: the digit at this point of the latent plane; GET /plane.png: many of them. mod_magnet runs
--- this file for each request, and keeps the Lua state, so that model.lua is loaded once.
local model = require "model"
local request = lighty.r -- luacheck: globals lighty

local function answer(status, kind, body)
  request.resp_header["Content-Type"] = kind
  request.resp_header["Cache-Control"] = status == 200 and "max-age=3600" or "no-store"
  request.resp_body.set{body}
  return status
end

local function refuse(status, message) return answer(status, "text/plain; charset=utf-8", message .. "\n") end

local method = request.req_attr["request.method"]
if method ~= "GET" and method ~= "HEAD" then
  request.resp_header["Allow"] = "GET, HEAD"
  return refuse(405, "expected GET, got " .. method)
end
if request.req_attr["uri.path"] == "/plane.png" then return answer(200, "image/png", model.plane()) end
local point, message = model.point(request.req_attr["uri.query"])
if not point then return refuse(400, message) end
return answer(200, "image/png", model.digit(point))
