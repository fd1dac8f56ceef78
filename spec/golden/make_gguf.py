# SPDX-License-Identifier: MIT
"""Writes spec/golden/gguf.lua: files of the package `gguf`, llama.cpp's own writer, in hexadecimal digits, what that package
reads from them, and what networks with these weights give, for spec/gguf_spec.lua. Needs gguf and NumPy.

    python3 spec/golden/make_gguf.py > spec/golden/gguf.lua
"""
import os
import tempfile

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

random = np.random.default_rng(1)


def quoted(numbers):
    return "{" + ", ".join(repr(float(x)) for x in np.asarray(numbers, np.float64).reshape(-1)) + "}"


def written(fill):
    """The bytes of a file, and the tensors that the package finds in it."""
    path = os.path.join(tempfile.mkdtemp(), "a.gguf")
    writer = gguf.GGUFWriter(path, "test")
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open(path, "rb") as f:
        return f.read(), gguf.GGUFReader(path).tensors


def decoded(t):
    data = t.data
    if t.tensor_type in (Type.BF16, Type.Q8_0, Type.Q4_0):
        data = gguf.quants.dequantize(data, t.tensor_type)
    return np.asarray(data).reshape([int(n) for n in reversed(t.shape)])


def add(writer, name, array, kind=None):
    if kind in (Type.BF16, Type.Q8_0, Type.Q4_0):
        writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, array)


def everything(w):
    w.add_uint8("u8", 200)
    w.add_int8("i8", -100)
    w.add_uint16("u16", 65535)
    w.add_int16("i16", -300)
    w.add_uint32("u32", 4294967295)
    w.add_int32("i32", -70000)
    w.add_uint64("u64", 1 << 40)
    w.add_int64("i64", -(1 << 62))
    w.add_float32("f32", 0.5)
    w.add_float64("f64", 0.1)
    w.add_bool("yes", True)
    w.add_bool("no", False)
    w.add_string("text", "größe")
    w.add_array("words", ["<s>", "a", "bc"])
    w.add_array("scores", [0.5, -1.5])
    w.add_array("ids", [3, -1, 7])
    add(w, "f32", np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    add(w, "f64", np.array([1 / 3]))
    add(w, "f16", np.array([0.5, 65504], np.float16))
    add(w, "i8", np.array([[-128], [127]], np.int8))
    add(w, "i16", np.array([-300], np.int16))
    add(w, "i32", np.array([-5, 2**31 - 1], np.int32))
    add(w, "i64", np.array([-(2**52), 7]))
    for name, kind in (("bf16", Type.BF16), ("q8_0", Type.Q8_0), ("q4_0", Type.Q4_0)):
        add(w, name, random.normal(size=(2, 64)).astype(np.float32), kind)


def perceptron(kinds):
    sizes = (32, 32, 3)

    def fill(w):
        for i, kind in enumerate(kinds):
            weight = random.normal(size=(sizes[i + 1], sizes[i])).astype(np.float32) / 5
            add(w, f"{2 * i}.weight", weight.astype(np.float16) if kind == Type.F16 else weight, kind)
            add(w, f"{2 * i}.bias", random.normal(size=sizes[i + 1]).astype(np.float32))

    file, t = written(fill)
    x = random.normal(size=(4, sizes[0]))
    t = {one.name: decoded(one).astype(np.float64) for one in t}
    y = np.maximum(x @ t["0.weight"].T + t["0.bias"], 0) @ t["2.weight"].T + t["2.bias"]
    return f'{{file = "{file.hex()}",\n      x = {quoted(x)},\n      y = {quoted(y)}}}'


def refused(w):
    for name, kind in (("a", Type.Q4_K), ("b", Type.Q8_0), ("c", Type.Q6_K), ("d", Type.Q4_K)):
        block, size = gguf.GGML_QUANT_SIZES[kind]
        w.add_tensor(name, np.zeros((1, 256 // block * size), np.uint8), raw_dtype=kind)


print("-- luacheck: no max line length")
print("-- Written by spec/golden/make_gguf.py with the package gguf.")
print("return {")
file, tensors = written(everything)
print(f'  everything = {{file = "{file.hex()}", tensors = {{')
for name, a in ((t.name, decoded(t)) for t in tensors):
    print(f'    {name} = {{shape = {{{", ".join(map(str, a.shape))}}}, {quoted(a)}}},')
print("  }},")
print(f'  refused = "{written(refused)[0].hex()}",')
print("  networks = {")
for name, kinds in {"f32": (Type.F32, Type.F32), "f16": (Type.F16, Type.F16), "bf16": (Type.BF16, Type.BF16),
                    "q8_0": (Type.Q8_0, Type.Q8_0), "q4_0": (Type.Q4_0, Type.Q4_0),
                    "mixed": (Type.Q4_0, Type.F16)}.items():
    print(f"    {name} = {perceptron(kinds)},")
print("  },")
print("}")
