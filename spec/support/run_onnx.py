# SPDX-License-Identifier: MIT
"""Runs files of ONNX by ONNX Runtime: for each NAME.onnx of a folder whose inputs lie in NAME.in.INPUT.npy and expected
results in NAME.out.RESULT.npy, a line "NAME: largest difference", or "NAME: what went wrong"."""
import glob
import sys

import numpy
import onnx
import onnxruntime

onnxruntime.set_default_logger_severity(3)


def difference(a, b):
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError("expected %s %s, got %s %s" % (b.dtype, b.shape, a.dtype, a.shape))
    if a.size == 0:
        return 0.0
    a, b = a.astype(numpy.float64), b.astype(numpy.float64)
    same = (a == b) | (numpy.isnan(a) & numpy.isnan(b))
    with numpy.errstate(invalid="ignore"):
        return float(numpy.where(same, 0, numpy.abs(a - b) / (1 + numpy.abs(b))).max())


def run(path):
    stem = path[:-len(".onnx")]
    onnx.checker.check_model(path, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {i.name: numpy.load(stem + ".in." + i.name + ".npy") for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    results = session.run(names, feed)
    return max(difference(r, numpy.load(stem + ".out." + n + ".npy")) for r, n in zip(results, names))


for path in sorted(glob.glob(sys.argv[1] + "/*.onnx")):
    name = path.split("/")[-1][:-len(".onnx")]
    try:
        print("%s: %.3g" % (name, run(path)), flush=True)
    except Exception as problem:
        print("%s: %s" % (name, str(problem).replace("\n", " ")[:400]), flush=True)
