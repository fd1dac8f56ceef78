#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ONNX Runtime's side of the benchmarks (serve.py):

    decoder model=PATH batch=128 threads=2 seconds=0.1 [clock=cpu]    times of calls in ms
    conv model=PATH n= cin= h= w= threads=2 seconds=0.1 [clock=cpu]   the same, of one convolution with ReLU
    check model=PATH x= y=                                            pixels of one point of the latent plane
    graphs model=PATH batch= shape=3,224,224 threads=2 seconds=0.1    times of a network whose input x is (batch, shape)
    numbers model=PATH shape=3,224,224                                its results from x = 0, 1/8, .. 1, 0, ..

With --once MODEL SHAPE it loads a network, runs it once with a batch of 1, and ends.

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


def sizes(text, batch):
    return [batch] + [int(size) for size in str(text).removesuffix(".0").split(",")]


def once(model, shape):
    session_for(model, 1).run(None, {"x": numpy.zeros(sizes(shape, 1), numpy.float32)})


def answer_graphs(session, kind, a):
    shape = sizes(a["shape"], int(a.get("batch", 1)))
    if kind == "numbers":
        x = (numpy.arange(numpy.prod(shape)) % 9 / 8).astype(numpy.float32).reshape(shape)
        return session.run(None, {"x": x})[0].ravel(), ""
    x = numpy.random.default_rng(1).standard_normal(shape, numpy.float32)
    clock = time.process_time if a.get("clock") == "cpu" else time.perf_counter
    return measure(lambda: session.run(None, {"x": x}), clock, a["seconds"]), ""


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
