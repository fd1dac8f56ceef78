-- `make browser`: the page of examples/lighttpd in Chromium, driven through WebDriver as a person would.
-- Leaves build/browser.png to be looked at.

local build = os.getenv("MAREA_BUILD") or "build"
local SITE, DRIVER = "http://127.0.0.1:18750", "http://127.0.0.1:18751"
local ELEMENT = "element-6066-11e4-a52e-4f735466cecf" -- WebDriver's name for a reference to an element

local function run(command)
  local pipe = assert(io.popen(command))
  local output = pipe:read "a"
  pipe:close()
  return output
end

local function start(command, address)
  local process = run(command .. " >/dev/null 2>&1 & echo $!"):match "%d+"
  assert(os.execute(("curl -s -o /dev/null --retry 50 --retry-delay 0 --retry-max-time 20 --retry-connrefused %s")
    :format(address)), command)
  return process
end

describe("the latent plane", function()
  local server, driver, session

  local function post(path, json)
    local file = assert(io.open(build .. "/browser.json", "w"))
    file:write(json)
    file:close()
    return run(("curl -s -d @%s/browser.json %s%s"):format(build, DRIVER, path))
  end

  --- The result of JavaScript, a string.
  local function evaluate(code)
    local answer = post(session .. "/execute/sync", ('{"script": "return String(%s)", "args": []}'):format(code))
    return (assert(answer:match '^{"value":"(.*)"}$', answer))
  end

  local function wait_until(code, value)
    for _ = 1, 100 do
      if evaluate(code) == value then return end
      os.execute "sleep 0.05"
    end
    error(("%s is %s, not %s"):format(code, evaluate(code), value))
  end

  --- The pointer to a point of the plane, x and y from its middle in pixels of the page.
  local function point_to(x, y)
    local plane = post(session .. "/element", '{"using": "css selector", "value": "#plane"}'):match '":"([^"]+)"}}$'
    local move = ('{"type": "pointerMove", "duration": 100, "x": %d, "y": %d, "origin": {"%s": "%s"}}'):format(x, y,
      ELEMENT, plane)
    return post(session .. "/actions",
      ('{"actions": [{"type": "pointer", "id": "mouse", "actions": [%s]}]}'):format(move))
  end

  setup(function()
    server = start("PATH=$PATH:/usr/sbin sh examples/lighttpd/serve.sh 18750", SITE)
    driver = start("chromedriver --port=18751", DRIVER .. "/status")
    local sandbox = run "id -u" == "0\n" and ', "--no-sandbox"' or ""
    local answer = post("/session", ('{"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": '
      .. '["--headless=new", "--window-size=1100,850"%s]}}}}'):format(sandbox))
    session = "/session/" .. assert(answer:match '"sessionId":"(%w+)"', answer)
    post(session .. "/url", ('{"url": "%s/"}'):format(SITE))
  end)

  teardown(function()
    if session then run(("curl -s -X DELETE %s%s"):format(DRIVER, session)) end
    if driver then os.execute("kill " .. driver) end
    if server then os.execute("kill " .. server) end
    os.remove(build .. "/browser.json")
  end)

  local DRAWN = "document.getElementById('digit').naturalWidth"
  local WHERE = "document.getElementById('where').value"
  local PICTURE = "document.getElementById('digit').src"
  local PROBLEM = "document.getElementById('problem').value"

  it("shows a digit from the beginning", function()
    wait_until(DRAWN, "28")
    assert.are.equal("280 280", evaluate "[document.images[0].clientWidth, document.images[0].clientHeight].join(' ')")
    assert.are.equal("z = (0.00, 0.00)", evaluate(WHERE))
    assert.are.equal("", evaluate(PROBLEM))
  end)

  it("follows the pointer and the arrow keys", function()
    local side, first = tonumber(evaluate "document.getElementById('plane').clientWidth"), evaluate(PICTURE)
    point_to(side // 4, -side // 4)
    wait_until(PICTURE .. " != '" .. first .. "'", "true")
    local z1, z2 = evaluate(WHERE):match "%(([-%d.]+), ([-%d.]+)%)"
    assert.is_true(math.abs(z1 - 1.5) < 0.05 and math.abs(z2 - 1.5) < 0.05, z1 .. " " .. z2)
    evaluate "document.getElementById('plane').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft'}))"
    assert.are.equal(("z = (%.2f, %s)"):format(z1 - 0.05, z2), evaluate(WHERE))
    assert.are.equal("", evaluate(PROBLEM))
  end)

  it("draws while the pointer moves, within 50 ms a picture", function()
    for i = 0, 20 do point_to(-200 + 20 * i, 10 * (i % 5)) end
    local took = tonumber(evaluate("document.getElementById('time').value"):match "^[%d.]+")
    assert.is_true(took < 50, took)
    local png = run(("curl -s %s%s/screenshot"):format(DRIVER, session)):match '"value":"([^"]+)"'
    local file = assert(io.popen(("base64 -d > %s/browser.png"):format(build), "w"))
    file:write(png)
    file:close()
    local seen = assert(require "marea".load_png(build .. "/browser.png"))
    assert.is_true(seen:size(2) > 1000)
  end)

  it("says so when the server is gone", function()
    os.execute("kill " .. server)
    server = nil
    os.execute "sleep 0.3"
    point_to(50, 50)
    wait_until(PROBLEM .. " != ''", "true")
  end)
end)
