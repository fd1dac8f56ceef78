# SPDX-License-Identifier: MIT
"""Writes spec/golden/t7.lua: files of Torch7 in hexadecimal digits, written here by its published format and read again by
the package torchfile, and what networks in them give, for spec/t7_spec.lua. Needs torchfile and NumPy.

    python3 spec/golden/make_t7.py > spec/golden/t7.lua
"""
import os
import struct
import tempfile

import numpy as np
import torchfile

random = np.random.default_rng(1)
TYPES = {"f4": "Float", "f8": "Double", "f2": "Half", "u1": "Byte", "i1": "Char", "i2": "Short", "i4": "Int", "i8": "Long"}


class Object:
    """An object of a class, which writes a table."""
    def __init__(self, name, **fields):
        self.name, self.fields = name, fields


class Storage:
    def __init__(self, array):
        self.array = array


class Raw(bytes):
    """Bytes as they are."""


class Writer:
    def __init__(self, versions=True, prefix=""):
        self.out, self.seen, self.keep, self.versions, self.prefix = [], {}, [], versions, prefix

    def pack(self, form, *values):
        self.out.append(struct.pack("<" + form, *values))

    def string(self, s):
        self.pack("i", len(s.encode()))
        self.out.append(s.encode())

    def index(self, value, role=""):
        """Writes the index; whether it is new. An array is a tensor, and may be its storage too."""
        key = id(value), role
        new = key not in self.seen
        if new:
            self.seen[key] = len(self.seen) + 1
            self.keep.append(value)
        self.pack("i", self.seen[key])
        return new

    def begin(self, value, name, role=""):
        self.pack("i", 4)
        if not self.index(value, role):
            return False
        if self.versions:
            self.string("V 1")
        self.string(name)
        return True

    def tensor(self, a):
        base = a
        while base.base is not None:
            base = base.base
        kind = "torch." + self.prefix + ("" if self.prefix and a.dtype == np.float32 else TYPES[a.dtype.str[1:]])
        if not self.begin(a, kind + "Tensor"):
            return
        place = (a.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // a.itemsize
        self.pack("i" + "q" * (2 * a.ndim + 1), a.ndim, *a.shape, *(s // a.itemsize for s in a.strides), place + 1)
        if self.begin(base, kind + "Storage", "storage"):
            self.pack("q", base.size)
            self.out.append(np.ravel(base, order="K").tobytes())

    def table(self, pairs):
        self.pack("i", 3)
        if self.index(pairs):
            items = enumerate(pairs, 1) if isinstance(pairs, list) else pairs.items()
            self.pack("i", len(pairs))
            for key, value in items:
                self.value(key)
                self.value(value)

    def value(self, v):
        if v is None:
            self.pack("i", 0)
        elif isinstance(v, bool):
            self.pack("ii", 5, v)
        elif isinstance(v, (int, float)):
            self.pack("id", 1, v)
        elif isinstance(v, str):
            self.pack("i", 2)
            self.string(v)
        elif isinstance(v, (dict, list)):
            self.table(v)
        elif isinstance(v, np.ndarray):
            self.tensor(v)
        elif isinstance(v, Raw):
            self.out.append(v)
        elif isinstance(v, Storage):
            if self.begin(v, "torch." + TYPES[v.array.dtype.str[1:]] + "Storage"):
                self.pack("q", v.array.size)
                self.out.append(v.array.tobytes())
        elif self.begin(v, v.name):
            self.table(v.fields)


def written(value, check=True, **options):
    w = Writer(**options)
    w.value(value)
    file = b"".join(w.out)
    if check:
        path = os.path.join(tempfile.mkdtemp(), "a.t7")
        with open(path, "wb") as f:
            f.write(file)
        compare(value, torchfile.load(path, utf8_decode_strings=True))
    return file.hex()


def compare(ours, theirs):
    if isinstance(ours, np.ndarray):
        assert np.array_equal(ours, theirs)
    elif isinstance(ours, Object):
        assert theirs.torch_typename() in (ours.name, ours.name.encode())
        for key, value in ours.fields.items():
            compare(value, theirs._obj[key])
    elif isinstance(ours, dict):
        for key, value in ours.items():
            if value is not ours:
                compare(value, theirs[key])
    elif isinstance(ours, Storage):
        assert np.array_equal(ours.array, theirs)
    elif not isinstance(ours, list):
        assert ours == theirs, (ours, theirs)
    else:
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs):
            compare(a, b)


def quoted(numbers):
    return "{" + ", ".join(repr(float(x)) for x in np.asarray(numbers, np.float64).reshape(-1)) + "}"


def normal(*shape, kind=np.float64):
    a = (random.normal(size=shape) / 3).astype(kind)
    return np.array(a)


# ---- layers: an object, and what it computes of an array with channels first ----

def linear(n_in, n_out, kind=np.float64):
    w, b = normal(n_out, n_in, kind=kind), normal(n_out, kind=kind)
    return Object("nn.Linear", weight=w, bias=b, gradWeight=np.zeros_like(w), train=False), lambda x: x @ w.T + b


def convolution(name, n_in, n_out, k, **more):
    w, b = normal(n_out, n_in, k, k), normal(n_out)

    def run(x):
        h, v = x.shape[2] - k + 1, x.shape[3] - k + 1
        patches = np.stack([x[:, :, i:i + h, j:j + v] for i in range(k) for j in range(k)], 2)
        return np.einsum("nckhv,ock->nohv", patches, w.reshape(n_out, n_in, k * k)) + b[:, None, None]

    kept = w.reshape(n_out, -1).copy() if name.endswith("MM") else w
    return Object(name, weight=kept, bias=b, nInputPlane=n_in, nOutputPlane=n_out, kW=k, kH=k, dW=1, dH=1), run


def temporal(n_in, n_out, k):
    w, b = normal(n_out, k * n_in), normal(n_out)

    def run(x):  # (N, T, C)
        steps = x.shape[1] - k + 1
        return np.concatenate([x[:, i:i + steps] for i in range(k)], 2) @ w.T + b

    return Object("nn.TemporalConvolution", weight=w, bias=b, kW=k, dW=1, inputFrameSize=n_in, outputFrameSize=n_out), run


def norm(n, old=False):
    w, b, mean, var = normal(n) + 1, normal(n), normal(n), random.uniform(0.5, 2, n)
    fields = {"running_std": 1 / np.sqrt(var + 1e-5)} if old else {"running_var": var}

    def run(x):
        return ((x.swapaxes(1, -1) - mean) / np.sqrt(var + 1e-5) * w + b).swapaxes(1, -1)

    return Object("nn.SpatialBatchNormalization", weight=w, bias=b, running_mean=mean, eps=1e-5, affine=True, **fields), run


def plain(name, f):
    return Object("nn." + name, output=np.zeros(0), gradInput=np.zeros(0)), f


def embedding(n, size):
    w = normal(n, size)
    return Object("nn.LookupTable", weight=w), lambda x: w[x.astype(int) - 1]


def sequential(*layers):
    def run(x):
        for _, f in layers:
            x = f(x)
        return x

    return Object("nn.Sequential", modules=[o for o, _ in layers], train=False), run


relu, tanh = plain("ReLU", lambda x: np.maximum(x, 0)), plain("Tanh", np.tanh)
networks = {
    "double": (sequential(linear(5, 7), tanh, linear(7, 3)), random.normal(size=(4, 5)), {}),
    "float": (sequential(linear(5, 7, np.float32), relu, sequential(linear(7, 4, np.float32), tanh)),
              random.normal(size=(4, 5)), {}),
    "cuda": (sequential(linear(5, 3, np.float32)), random.normal(size=(4, 5)), {"prefix": "Cuda", "check": False}),
    "conv": (sequential(convolution("nn.SpatialConvolution", 2, 3, 3), norm(3), relu), random.normal(size=(2, 2, 5, 6)), {}),
    "old": (sequential(convolution("nn.SpatialConvolutionMM", 2, 3, 2), norm(3, True), relu),
            random.normal(size=(2, 2, 4, 5)), {"versions": False, "check": False}),
    "temporal": (sequential(temporal(3, 4, 2), tanh), random.normal(size=(2, 5, 3)), {}),
    "embedding": (sequential(embedding(6, 4), linear(4, 2)), np.array([1.0, 6, 3]), {}),
}

base = np.array(np.arange(24, dtype=np.float32))
cycle = {"name": "cycle"}
cycle["itself"] = cycle
shared = {"x": 1}
values = {
    "f32": np.array([[1.5, -2.0]], np.float32), "f64": np.array([1 / 3]), "u8": np.array([200, 1], np.uint8),
    "i8": np.array([-128, 127], np.int8), "i16": np.array([-300], np.int16), "i32": np.array([-5, 2**31 - 1], np.int32),
    "i64": np.array([-2**62, 7]), "transposed": base.reshape(4, 6).T, "middle": base.reshape(4, 6)[1:3, 2:4],
    "empty": np.zeros(0, np.float32), "storage": Storage(np.array([2, 3])), "number": 0.1, "integer": -7, "yes": True,
    "no": False, "text": "größe", "list": [1, "x", [2.5]], "cycle": cycle, "a": shared, "b": shared, 3: "three",
    2.5: "half", True: "true", "object": Object("nn.Identity", size=3),
}

if __name__ == "__main__":
    print("-- luacheck: no max line length")
    print("-- Written by spec/golden/make_t7.py, read again by the package torchfile.")
    print("return {")
    print(f'  values = "{written(values)}",')
    print(f'''  half = "{written(np.array([0.5, 65504], np.float16), check=False)}",''')
    print(f'''  code = "{written(Object('nn.Apply', f=Raw(struct.pack('<iii', 8, 3, 0))), check=False)}",''')
    print(f'''  own = "{written([Raw(struct.pack('<iii', 4, 2, 3) + b'V 1' + struct.pack('<i', 8) + b'tds.Hash' + struct.pack('<i', 1))], check=False)}",''')
    print("  networks = {")
    for name, ((net, f), x, options) in networks.items():
        print(f'    {name} = {{file = "{written(net, **options)}",')
        print(f'      x = {quoted(x)}, y = {quoted(f(x))}, shape = {{{", ".join(map(str, x.shape))}}}}},')
    print("  },")
    print("}")
