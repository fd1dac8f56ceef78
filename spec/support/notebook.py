# SPDX-License-Identifier: MIT
"""Talks to the kernel as a notebook does, and prints what it says, one line a fact, for spec/jupyter_spec.lua."""
import sys
import time

from jupyter_client.manager import start_new_kernel

manager, client = start_new_kernel(kernel_name="marea", startup_timeout=30)


def run(code, interrupt_after=None):
    """What a cell shows: (kind, value) pairs."""
    shown = []
    message = client.execute(code)
    while True:
        reply = client.get_iopub_msg(timeout=30)
        content, kind = reply["content"], reply["msg_type"]
        if reply["parent_header"].get("msg_id") != message:
            continue
        if kind == "stream":
            shown.append((content["name"], content["text"].strip()))
            if interrupt_after and interrupt_after in content["text"]:
                interrupt_after = None
                time.sleep(0.2)
                manager.interrupt_kernel()
        elif kind == "display_data":
            shown.append(("shows", " ".join(sorted(content["data"]))))
            shown.append(("text", content["data"]["text/plain"].split("\n")[0]))
        elif kind == "error":
            shown.append(("error", content["evalue"]))
        elif kind == "status" and content["execution_state"] == "idle":
            return shown


def say(name, facts):
    for kind, value in facts:
        print(f"{name}: {kind}: {value}")
    sys.stdout.flush()


def ask(send, *arguments):
    message = send(*arguments)
    while True:
        reply = client.get_shell_msg(timeout=30)
        if reply["parent_header"].get("msg_id") == message:
            return reply["content"]


try:
    say("value", run("x = marea.tensor{{1, 2}, {3, 4}}\nx"))
    say("print", run("print('é', 1 + 1)"))
    say("image", run("marea.eye(8):show()"))
    say("figure", run("plot.curves{{y = {1, 2, 3}}}"))
    say("two", run("1, 'a'"))
    say("mistake", run("x:matmul(marea.ones{3, 3})"))
    say("interrupted", run("n = 0 print 'begun' while true do n = n + 1 end", "begun"))
    say("after", run("n > 0, x"))
    say("ended", run("os.exit(3)"))
    say("anew", run("x"))
    found = ask(client.complete, "é = 1 x = marea.con", 19)
    print("complete:", found["cursor_start"], found["cursor_end"], " ".join(found["matches"]))
    print("inspect:", ask(client.inspect, "marea.tanh(x)", 8)["data"]["text/plain"].split("\n")[0])
    print("is_complete:", ask(client.is_complete, "for i = 1, 3 do")["status"], ask(client.is_complete, "1")["status"])
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
