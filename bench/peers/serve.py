# SPDX-License-Identifier: MIT
"""A peer's side of bench/lib/worker.lua: requests, one a line,

    KIND name=value ... threads=2 seconds=0.1 [clock=cpu]

are answered with "ok" and numbers, and a remark behind "# ", or with "error" and why.
"""
import sys


def measure(f, clock, seconds, count=1):
    """Times of calls in ms; the first call is not counted."""
    times = []
    f()
    stop = clock() + seconds
    while True:
        start = clock()
        f()
        now = clock()
        times.append(1000 * (now - start) / count)
        if now >= stop:
            return times


def value(text):
    try:
        return float(text)
    except ValueError:
        return text


def serve(name, answer):
    """answer: kind, {name: value} -> numbers, remark."""
    print("ready", name, flush=True)
    for line in sys.stdin:
        try:
            kind, *pairs = line.split()
            numbers, remark = answer(kind, {key: value(text) for key, text in (pair.split("=") for pair in pairs)})
            print("ok", *(f"{x:.9g}" for x in numbers), *(["#", remark] if remark else []), flush=True)
        except Exception as error:  # whatever it is, the driver shows it
            print("error", " ".join(f"{type(error).__name__}: {error}".split()), flush=True)
