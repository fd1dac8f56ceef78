#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ONNX Runtime's side of the benchmarks (serve.py):

    decoder model=PATH batch=128 threads=2 seconds=0.1 [clock=cpu]    times of calls in ms
    conv model=PATH n= cin= h= w= threads=2 seconds=0.1 [clock=cpu]   the same, of one convolution with ReLU
    check model=PATH x= y=                                            pixels of one point of the latent plane
    graphs model=PATH batch= inputs=x:f32:N,2 threads=2 seconds=0.1   times of a network; inputs as in lib/ports.lua
    numbers model=PATH inputs=x:f32:N,2                               its results from the pattern of lib/ports.lua

With --once MODEL INPUTS it loads a network, runs it once with a batch of 1, and ends.

Graph optimizations are on, all of them; everything else is as the package has it."""
import sys
import time

import numpy
import onnxruntime

from serve import measure, serve

sessions = {}


def session_for(model, threads):
    if (model, threads) not in sessions:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        sessions[model, threads] = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    return sessions[model, threads]


DTYPES = {"f32": "float32", "i32": "int32", "i64": "int64"}


def make_inputs(text, batch, fill):
    """The inputs by name; fill(count, whole) gives the elements of one."""
    inputs = {}
    for port in text.split(";"):
        name, dtype, sizes = port.split(":")
        shape = [batch if size == "N" else int(size) for size in sizes.split(",") if size]
        x = fill(int(numpy.prod(shape)), dtype != "f32") if shape else numpy.array(16000)
        inputs[name] = x.astype(DTYPES[dtype]).reshape(shape)
    return inputs


def pattern(count, whole):
    return numpy.arange(count) % 251 if whole else numpy.arange(count) % 9 / 8


def draw(count, whole):
    random = numpy.random.default_rng(1)
    return random.integers(0, 251, count) if whole else random.standard_normal(count)


def once(model, inputs):
    session_for(model, 1).run(None, make_inputs(inputs, 1, draw))


def answer_graphs(session, kind, a):
    if kind == "numbers":
        return session.run(None, make_inputs(a["inputs"], 1, pattern))[0].ravel(), ""
    x = make_inputs(a["inputs"], int(a["batch"]), draw)
    clock = time.process_time if a.get("clock") == "cpu" else time.perf_counter
    return measure(lambda: session.run(None, x), clock, a["seconds"]), ""


def answer(kind, a):
    session = session_for(a["model"], int(a.get("threads", 1)))
    if kind in ("graphs", "numbers"):
        return answer_graphs(session, kind, a)
    if kind == "check":
        pixels, = session.run(None, {"z": numpy.array([[a["x"], a["y"]]], numpy.float32)})
        return pixels.ravel(), ""
    shapes = {"decoder": ("batch",), "conv": ("n", "cin", "h", "w")}
    if kind not in shapes:
        raise ValueError("unknown request " + kind)
    shape = [int(a[name]) for name in shapes[kind]] + [2] * (kind == "decoder")
    z = numpy.random.default_rng(1).standard_normal(shape, numpy.float32)
    clock = time.process_time if a.get("clock") == "cpu" else time.perf_counter
    return measure(lambda: session.run(None, {"z": z}), clock, a["seconds"]), ""


if sys.argv[1:2] == ["--once"]:
    once(*sys.argv[2:4])
    sys.exit()
serve(f"ONNX Runtime {onnxruntime.__version__}", answer)
