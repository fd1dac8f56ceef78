#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the reference numbers of spec/golden_spec.lua with PyTorch (made with Debian's 1.13.1).

    python3 spec/golden/make_golden.py [folder]

The spec reads the files that are kept beside this script; running it again is only needed for new cases.

Every case is computed in float64 from inputs that are exact in float32, and rounded once, so a comparison shows the
error of the tested side alone (cases of op `bce` at the clip run in float32, where the clip itself rounds).
Layouts are Marea's: images N,H,W,C; kernels H,W,Cin,Cout, of transposed convolutions H,W,Cout,Cin; linear weights
(in, out); labels from 1. Padding 'same' follows Keras: the odd pixel goes after (bottom, right).

A file holds the tensors `<op>/<nn>/<name>` and, in its metadata, one line of `key=value` pairs a case:

    inputs=x,weight,bias  names of the operator's inputs, in order
    stride=2,1            attributes, under the names of the operator; lists have commas
    k.y=27                length of the sum behind an element of tensor y (widens the tolerance by its root)

Cases of distributions (op `Normal`, ...) hold f64 throughout: parameters under their names at Marea, values x with
log_prob and the gradients d_<parameter> of its sum, shares p with icdf, and entropy, mean, variance, cdf where PyTorch
has them; cases of op `kl` hold p.<parameter>, q.<parameter> and y, their attributes p and q name the classes.

`y` is the result, `dy` the upstream gradient, `d_<input>` the gradient of an input. Optimizer cases hold p, the
gradients g (steps, ...) and the parameters after each step, p_steps.
"""
import json
import os
import struct
import sys

import torch
import torch.nn.functional as F
from torch import distributions as D
from torch.distributions import Normal, kl_divergence

F64 = torch.float64
DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64", torch.uint8: "U8"}


def write_safetensors(path, tensors, texts):
    """The format by hand: length of the header, header (JSON), bytes; wide types first, so all are aligned."""
    order = sorted(tensors, key=lambda n: (-tensors[n].element_size(), n))
    header, offset = {"__metadata__": texts}, 0
    for name in order:
        t = tensors[name]
        size = t.numel() * t.element_size()
        header[name] = {"dtype": DTYPES[t.dtype], "shape": list(t.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            f.write(tensors[name].contiguous().numpy().tobytes())


def text_of(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return ",".join(text_of(v) for v in value)
    return repr(value) if isinstance(value, float) else str(value)


class File:
    """Collects cases and writes them."""

    def __init__(self):
        self.tensors, self.texts, self.count = {}, {"torch": torch.__version__}, {}

    def case(self, op, tensors, attrs, inputs=None, sums=None, wide=False):
        self.count[op] = self.count.get(op, 0) + 1
        key = "%s/%02d" % (op, self.count[op])
        for name, t in tensors.items():
            t = t.detach()
            self.tensors[key + "/" + name] = t.float() if t.dtype == F64 and not wide else t
        pairs = {"inputs": inputs} if inputs else {}
        pairs.update(attrs)
        pairs.update({"k." + n: k for n, k in (sums or {}).items()})
        self.texts[key] = " ".join("%s=%s" % (k, text_of(v)) for k, v in pairs.items())

    def write(self, folder, name):
        path = os.path.join(folder, name)
        write_safetensors(path, self.tensors, self.texts)
        print("%-24s %7d bytes, %s" % (name, os.path.getsize(path), self.count))


def normal(*shape, scale=1.0):
    """Values exact in float32, held in float64."""
    return (torch.randn(shape) * scale).to(F64)


def uniform(low, high, *shape):
    return (torch.rand(shape) * (high - low) + low).to(F64)


def pair(v):
    return (v, v) if isinstance(v, int) else tuple(v)


def tlbr(padding):
    """padding as (top, bottom, left, right)"""
    if isinstance(padding, int):
        return (padding,) * 4
    return tuple(padding) if len(padding) == 4 else (padding[0], padding[0], padding[1], padding[1])


def same(size, k, s, d):
    """Keras: pads of one dimension, before and after, that give ceil(size / s) outputs."""
    total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
    return total // 2, total - total // 2


ACTIVATIONS = {"none": lambda x, s: x, "relu": lambda x, s: F.relu(x), "leaky_relu": F.leaky_relu,
               "elu": F.elu, "sigmoid": lambda x, s: torch.sigmoid(x), "tanh": lambda x, s: torch.tanh(x),
               "softplus": lambda x, s: F.softplus(x, threshold=1e9)}


def gradients(y, inputs, scale):
    """A fixed upstream gradient and what it gives for every input."""
    dy = normal(*y.shape, scale=scale)
    names = [n for n, t in inputs.items() if t.requires_grad]
    grads = torch.autograd.grad(y, [inputs[n] for n in names], dy)
    return {"dy": dy, **{"d_" + n: g for n, g in zip(names, grads)}}


# ---- convolutions: (x shape, cout, kernel, attributes); 'bias' and 'activation' among the attributes ----

CONV = [
    ((1, 1, 1, 1), 1, (1, 1), {}),
    ((2, 5, 5, 1), 3, (3, 3), {}),
    ((2, 5, 6, 3), 2, (3, 3), {"padding": 1}),
    ((1, 7, 6, 2), 4, (3, 2), {"stride": 2}),
    ((2, 8, 8, 3), 4, (3, 3), {"stride": 2, "padding": "same"}),
    ((1, 7, 7, 3), 5, (5, 5), {"stride": 2, "padding": "same"}),
    ((2, 6, 9, 2), 3, (3, 3), {"stride": (2, 3), "padding": "same"}),
    ((1, 9, 8, 2), 3, (2, 4), {"stride": 1, "padding": "same"}),
    ((1, 5, 7, 2), 3, (3, 3), {"padding": (0, 1, 2, 0)}),
    ((2, 6, 5, 2), 2, (3, 4), {"padding": (1, 2, 0, 3), "stride": (2, 1)}),
    ((1, 9, 9, 2), 3, (3, 3), {"dilation": 2}),
    ((1, 10, 9, 2), 2, (3, 2), {"dilation": (2, 3), "padding": 2, "stride": 2}),
    ((1, 11, 11, 1), 2, (3, 3), {"dilation": 3, "padding": "same"}),
    ((2, 5, 5, 4), 6, (3, 3), {"groups": 2, "padding": 1}),
    ((1, 6, 6, 4), 4, (3, 3), {"groups": 4, "padding": "same", "stride": 2}),
    ((1, 6, 6, 3), 6, (2, 2), {"groups": 3}),
    ((2, 4, 4, 3), 2, (1, 1), {"bias": False}),
    ((2, 5, 5, 2), 3, (3, 3), {"activation": "relu", "padding": 1}),
    ((1, 5, 5, 2), 3, (3, 3), {"activation": "leaky_relu", "slope": 0.2, "padding": "same"}),
    ((1, 5, 5, 2), 3, (3, 3), {"activation": "elu", "slope": 1.0}),
    ((1, 5, 5, 2), 1, (3, 3), {"activation": "sigmoid", "padding": 1}),
    ((1, 5, 5, 2), 3, (3, 3), {"activation": "tanh", "bias": False}),
    ((1, 5, 5, 2), 3, (3, 3), {"activation": "softplus", "stride": 2}),
    ((1, 28, 28, 1), 8, (3, 3), {"activation": "relu", "padding": "same"}),
    ((1, 14, 14, 32), 32, (3, 3), {"activation": "relu", "padding": "same"}),
    ((1, 14, 14, 32), 48, (3, 3), {"padding": "same", "stride": 2}),
    ((1, 7, 7, 17), 33, (5, 5), {"padding": "same", "stride": 2}),
    ((3, 1, 9, 2), 2, (1, 9), {}),
]

CONV_TRANSPOSE = [
    ((1, 1, 1, 1), 1, (1, 1), {}),
    ((2, 3, 4, 2), 3, (3, 3), {}),
    ((2, 3, 3, 2), 3, (3, 3), {"stride": 2}),
    ((2, 4, 4, 3), 2, (3, 3), {"stride": 2, "padding": "same"}),
    ((1, 3, 5, 2), 3, (5, 5), {"stride": 2, "padding": "same"}),
    ((1, 4, 3, 2), 3, (3, 3), {"stride": 1, "padding": "same"}),
    ((1, 4, 3, 2), 2, (4, 2), {"stride": (2, 1), "padding": "same"}),
    ((1, 3, 3, 2), 2, (2, 2), {"stride": 3, "padding": "same"}),
    ((2, 4, 4, 2), 2, (3, 3), {"padding": 1}),
    ((1, 4, 5, 2), 2, (3, 3), {"padding": (0, 1, 1, 2), "stride": 2}),
    ((1, 4, 4, 2), 2, (3, 3), {"padding": 1, "stride": 2, "output_padding": 1}),
    ((1, 3, 4, 2), 3, (3, 2), {"stride": (3, 2), "output_padding": (2, 1)}),
    ((1, 4, 4, 2), 2, (3, 3), {"dilation": 2}),
    ((1, 4, 3, 1), 2, (3, 2), {"dilation": (1, 3), "stride": 2, "padding": 1, "output_padding": (0, 1)}),
    ((2, 3, 3, 4), 6, (3, 3), {"groups": 2, "stride": 2}),
    ((1, 4, 4, 3), 3, (3, 3), {"groups": 3, "padding": "same", "stride": 2}),
    ((1, 3, 3, 2), 2, (2, 2), {"bias": False, "stride": 2}),
    ((1, 4, 4, 2), 3, (3, 3), {"activation": "relu", "padding": "same", "stride": 2}),
    ((1, 4, 4, 2), 3, (3, 3), {"activation": "leaky_relu", "slope": 0.2}),
    ((1, 4, 4, 2), 3, (3, 3), {"activation": "elu", "slope": 0.7, "padding": 1}),
    ((1, 4, 4, 2), 1, (3, 3), {"activation": "sigmoid", "padding": "same"}),
    ((1, 4, 4, 2), 3, (3, 3), {"activation": "tanh", "stride": 2, "bias": False}),
    ((1, 4, 4, 2), 3, (3, 3), {"activation": "softplus"}),
    ((1, 14, 14, 16), 8, (3, 3), {"activation": "relu", "padding": "same", "stride": 2}),
    ((1, 14, 14, 32), 32, (3, 3), {"activation": "relu", "padding": "same"}),
    ((1, 20, 20, 32), 1, (3, 3), {"activation": "sigmoid", "padding": "same"}),
    ((1, 4, 4, 33), 17, (5, 5), {"padding": "same", "stride": 2}),
]


def conv_forward(x, w, b, a, kernel):
    s, d = pair(a.get("stride", 1)), pair(a.get("dilation", 1))
    p = a.get("padding", 0)
    if p == "same":
        p = same(x.shape[1], kernel[0], s[0], d[0]) + same(x.shape[2], kernel[1], s[1], d[1])
    t, o, l, r = tlbr(p)
    x = F.pad(x.permute(0, 3, 1, 2), (l, r, t, o))
    y = F.conv2d(x, w.permute(3, 2, 0, 1).contiguous(), b, stride=s, dilation=d, groups=a.get("groups", 1))
    return y.permute(0, 2, 3, 1)


def conv_transpose_forward(x, w, b, a, kernel):
    """The full result, cut by the padding; 'same' is the crop of the convolution that this is the gradient of."""
    s, d = pair(a.get("stride", 1)), pair(a.get("dilation", 1))
    p, extra = a.get("padding", 0), pair(a.get("output_padding", 0))
    if p == "same":
        sizes = x.shape[1] * s[0], x.shape[2] * s[1]
        p = same(sizes[0], kernel[0], s[0], d[0]) + same(sizes[1], kernel[1], s[1], d[1])
        extra = tuple(max(si - (di * (k - 1) + 1), 0) for si, di, k in zip(s, d, kernel))
    t, o, l, r = tlbr(p)
    # kernel H,W,Cout/groups,Cin -> Cin,Cout/groups,H,W
    y = F.conv_transpose2d(x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1).contiguous(), b, stride=s, dilation=d,
                           groups=a.get("groups", 1), output_padding=extra)
    y = y[:, :, t:y.shape[2] - o, l:y.shape[3] - r]
    return y.permute(0, 2, 3, 1)


def conv_cases(out, op, table, forward, transposed):
    for shape, cout, kernel, attrs in table:
        attrs = dict(attrs)
        with_bias, act = attrs.pop("bias", True), attrs.get("activation", "none")
        groups, cin = attrs.get("groups", 1), shape[3]
        taps = kernel[0] * kernel[1]
        k = taps * cin // groups
        wshape = (*kernel, cout // groups, cin) if transposed else (*kernel, cin // groups, cout)
        ins = {"x": normal(*shape), "weight": normal(*wshape, scale=k ** -0.5)}
        if with_bias:
            ins["bias"] = normal(cout)
        for t in ins.values():
            t.requires_grad_(True)
        y = forward(ins["x"], ins["weight"], ins.get("bias"), attrs, kernel)
        y = ACTIVATIONS[act](y, attrs.get("slope", 0.01))
        places = y.shape[0] * y.shape[1] * y.shape[2]
        g = gradients(y, ins, max(places, 1) ** -0.5)
        sums = {"y": k, "d_x": taps * cout // groups, "d_weight": places, "d_bias": places}
        out.case(op, {**ins, "y": y, **g}, attrs, list(ins), sums)


# ---- linear ----

LINEAR = [((4,), 3, {}), ((1, 1), 1, {}), ((2, 3), 4, {}), ((5, 7), 2, {"bias": False}), ((2, 3, 4), 5, {}),
          ((2, 1, 3, 4), 3, {"bias": False}), ((3, 16), 16, {}), ((7, 33), 17, {}), ((2, 128), 40, {}),
          ((16, 2), 65, {}), ((1, 300), 5, {}), ((0, 4), 3, {}), ((3, 5), 4, {"activation": "relu"}),
          ((3, 5), 4, {"activation": "leaky_relu"}), ((3, 5), 4, {"activation": "leaky_relu", "slope": 0.3}),
          ((3, 5), 4, {"activation": "elu", "slope": 1.0}), ((3, 5), 4, {"activation": "sigmoid"}),
          ((3, 5), 4, {"activation": "tanh"}), ((3, 5), 4, {"activation": "softplus"}),
          ((3, 5), 4, {"activation": "tanh", "bias": False}), ((2, 2, 9), 31, {"activation": "relu"}),
          ((8, 64), 64, {"activation": "relu"})]


def linear_cases(out):
    for shape, n, attrs in LINEAR:
        attrs = dict(attrs)
        ins = {"x": normal(*shape), "weight": normal(shape[-1], n, scale=shape[-1] ** -0.5)}
        if attrs.pop("bias", True):
            ins["bias"] = normal(n)
        for t in ins.values():
            t.requires_grad_(True)
        y = F.linear(ins["x"], ins["weight"].t(), ins.get("bias"))
        y = ACTIVATIONS[attrs.get("activation", "none")](y, attrs.get("slope", 0.01))
        rows = max(y.numel() // n, 1)
        g = gradients(y, ins, rows ** -0.5)
        out.case("linear", {**ins, "y": y, **g}, attrs, list(ins),
                 {"y": shape[-1], "d_x": n, "d_weight": rows, "d_bias": rows})


# ---- pools ----

POOL = [((1, 2, 2, 1), {"kernel": 2}), ((2, 4, 4, 3), {"kernel": 2}), ((1, 5, 5, 2), {"kernel": 2}),
        ((1, 5, 7, 2), {"kernel": (2, 3)}), ((1, 6, 6, 2), {"kernel": 3, "stride": 1}),
        ((2, 6, 6, 1), {"kernel": 3, "stride": 2}), ((1, 7, 5, 3), {"kernel": (3, 2), "stride": (2, 1)}),
        ((1, 4, 4, 2), {"kernel": 2, "padding": 1}), ((1, 5, 5, 2), {"kernel": 3, "padding": 1, "stride": 2}),
        ((1, 5, 5, 2), {"kernel": 3, "padding": "same", "stride": 1}),
        ((2, 8, 8, 2), {"kernel": 3, "padding": "same", "stride": 2}),
        ((1, 7, 7, 2), {"kernel": 2, "padding": "same"}),
        ((1, 7, 8, 1), {"kernel": 4, "padding": "same", "stride": 3}),
        ((1, 5, 6, 2), {"kernel": 3, "padding": (0, 1, 2, 1), "stride": 2}),
        ((1, 5, 6, 2), {"kernel": (2, 3), "padding": (1, 0, 0, 2), "stride": (1, 2)}),
        ((1, 6, 6, 2), {"kernel": 2, "stride": 4}), ((1, 1, 9, 4), {"kernel": (1, 3)}),
        ((3, 3, 3, 5), {"kernel": 3}), ((1, 12, 12, 17), {"kernel": 2}), ((2, 9, 9, 8), {"kernel": 3, "stride": 2}),
        ((1, 5, 5, 33), {"kernel": 2, "stride": 1})]


def pool_forward(op, x, a):
    k = pair(a["kernel"])
    s = pair(a.get("stride", k))
    p = a.get("padding", 0)
    if p == "same":
        p = same(x.shape[1], k[0], s[0], 1) + same(x.shape[2], k[1], s[1], 1)
    t, o, l, r = tlbr(p)
    x = x.permute(0, 3, 1, 2)
    if op == "max_pool2d":
        y = F.max_pool2d(F.pad(x, (l, r, t, o), value=-float("inf")), k, s)
    else:
        y = F.avg_pool2d(F.pad(x, (l, r, t, o)), k, s)
        if not a.get("count_padding", False):
            y = y / F.avg_pool2d(F.pad(torch.ones_like(x), (l, r, t, o)), k, s)
    return y.permute(0, 2, 3, 1)


def pool_cases(out, op, variants):
    for i, (shape, attrs) in enumerate(POOL):
        attrs = {**attrs, **variants[i % len(variants)]}
        n = 1
        for d in shape:
            n *= d
        x = (torch.randperm(n).to(F64) / 16 - n / 32).reshape(shape).requires_grad_(True)  # no ties
        y = pool_forward(op, x, attrs)
        k = pair(attrs["kernel"])
        out.case(op, {"x": x, "y": y, **gradients(y, {"x": x}, 1.0)}, attrs, ["x"],
                 {"y": k[0] * k[1], "d_x": k[0] * k[1]})


# ---- blur and bilinear upsampling ----

RESAMPLE = [(1, 1, 1, 1), (1, 2, 2, 1), (2, 3, 5, 2), (1, 4, 4, 3), (2, 5, 1, 4), (1, 1, 7, 2), (3, 6, 4, 1),
            (1, 9, 10, 1), (1, 3, 3, 17), (1, 6, 4, 8), (1, 18, 5, 2)]


def mirrored(x, dim, radius):
    """x with `radius` more on both sides of a dimension, the element at the edge repeated first."""
    n = x.shape[dim]
    index = torch.arange(-radius, n + radius) % (2 * n)
    return x.index_select(dim, torch.where(index < n, index, 2 * n - 1 - index))


def gaussian_blur(x, a):
    sigma = a["sigma"]
    radius = a.get("radius", int(4 * sigma + 0.5))
    bell = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=F64) / sigma) ** 2)
    bell = bell / bell.sum()
    planes = x.permute(0, 3, 1, 2)
    n, c, h, w = planes.shape
    planes = mirrored(mirrored(planes, 2, radius), 3, radius).reshape(n * c, 1, h + 2 * radius, w + 2 * radius)
    return F.conv2d(planes, torch.outer(bell, bell)[None, None]).reshape(n, c, h, w).permute(0, 2, 3, 1)


def upsample_bilinear(x, a):
    return F.interpolate(x.permute(0, 3, 1, 2), scale_factor=pair(a["scale"]), mode="bilinear",
                         align_corners=False).permute(0, 2, 3, 1)


def resample_cases(out, op, forward, variants):
    for i in range(2 * len(RESAMPLE)):
        shape, attrs = RESAMPLE[i % len(RESAMPLE)], variants[i % len(variants)]
        x = normal(*shape).requires_grad_(True)
        y = forward(x, attrs)
        out.case(op, {"x": x, "y": y, **gradients(y, {"x": x}, 1.0)}, attrs, ["x"], {})


# ---- affine ----

AFFINE = [(n, h, w, c) for n, h, w in [(1, 2, 2), (2, 5, 4), (1, 4, 7), (3, 6, 6), (1, 11, 12)] for c in (1, 2, 3, 17)]


def affine_cases(out):
    """Places in pixels from the centre, turned into those of grid_sample, from -1 to 1 between the centres at the
    borders."""
    for n, h, w, c in AFFINE:
        x = normal(n, h, w, c).requires_grad_(True)
        identity = torch.tensor([[1.0, 0, 0], [0, 1, 0]], dtype=F64)
        matrix = (identity + normal(n, 2, 3, scale=0.4)).float().to(F64).requires_grad_(True)
        v, u = torch.meshgrid(torch.arange(h) - (h - 1) / 2, torch.arange(w) - (w - 1) / 2, indexing="ij")
        places = torch.stack([u, v, torch.ones_like(u)], -1).to(F64)
        grid = torch.einsum("hwk,nik->nhwi", places, matrix) / torch.tensor([(w - 1) / 2, (h - 1) / 2], dtype=F64)
        y = F.grid_sample(x.permute(0, 3, 1, 2), grid, align_corners=True).permute(0, 2, 3, 1)
        g = gradients(y, {"x": x, "matrix": matrix}, (h * w) ** -0.5)
        out.case("affine2d", {"x": x, "matrix": matrix, "y": y, **g}, {}, ["x", "matrix"],
                 {"y": 4, "d_x": 4, "d_matrix": h * w * c})


# ---- eigenvalues, and the Frechet distance of features ----

def linalg_cases(out):
    for n in (1, 2, 3, 5, 8, 16, 33, 64):
        a = normal(n, n)
        out.case("eigh", {"a": a, "w": torch.linalg.eigvalsh(a + a.T) / 2}, {})
    for n, d in [(10, 1), (40, 2), (200, 3), (100, 16), (300, 64), (20, 30)]:
        a, b = F.relu(normal(n, d)), 1.5 * F.relu(normal(n, d) @ normal(d, d, scale=d ** -0.5)) + 0.25
        a, b = a.float().to(F64), b.float().to(F64)
        s1, s2 = torch.cov(a.T).reshape(d, d), torch.cov(b.T).reshape(d, d)
        # the eigenvalues of S1 S2, which is not symmetric, are real and not negative but for rounding
        trace = torch.linalg.eigvals(s1 @ s2).real.clamp(min=0).sqrt().sum()
        distance = (a.mean(0) - b.mean(0)).square().sum() + s1.trace() + s2.trace() - 2 * trace
        out.case("frechet", {"a": a, "b": b, "distance": distance}, {})


# ---- losses ----

REDUCTIONS = ["mean", "sum", "none", "batchmean"]
SHAPES = [(1,), (4,), (2, 3), (3, 1, 2), (2, 4, 4, 1), (33,), (5, 7)]


def reduce(values, reduction):
    return {"mean": values.mean, "sum": values.sum, "none": lambda: values,
            "batchmean": lambda: values.sum() / values.shape[0]}[reduction]()


def loss_case(out, op, ins, attrs, values, total=None):
    for t in ins.values():
        if t.is_floating_point():
            t.requires_grad_(True)
    v = values(*ins.values())
    y = total(v) if total else reduce(v, attrs["reduction"])
    out.case(op, {**ins, "y": y, **gradients(y, ins, 1.0)}, attrs, list(ins), {"y": max(v.numel(), 1)})


def bce_values(eps):
    def values(p, target):
        q = p.clamp(eps, 1 - eps)
        return -(target * q.log() + (1 - target) * (1 - q).log())
    return values


def kl_to_standard_normal(mean, logvar):
    standard = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    return kl_divergence(Normal(mean, (0.5 * logvar).exp()), standard)


def loss_cases(out):
    for i in range(22):
        shape, attrs = SHAPES[i % len(SHAPES)], {"reduction": REDUCTIONS[i % 4]}
        target = uniform(0, 1, *shape) if i % 3 else (uniform(0, 1, *shape) > 0.5).to(F64)
        eps = 0.05 if i % 5 == 4 else 1e-7
        with_eps = {**attrs, "eps": eps} if eps != 1e-7 else attrs
        probabilities = {"p": uniform(0.001, 0.999, *shape), "target": target.clone()}
        loss_case(out, "bce", probabilities, with_eps, bce_values(eps))
        scale = [1.0, 5.0, 40.0][i % 3]
        logits = {"x": normal(*shape, scale=scale), "target": target.clone()}
        loss_case(out, "bce_with_logits", logits, attrs,
                  lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="none"))
        for op, f in (("mse", F.mse_loss), ("l1", F.l1_loss)):
            loss_case(out, op, {"x": normal(*shape, scale=2.0), "target": normal(*shape)}, attrs,
                      lambda x, t, f=f: f(x, t, reduction="none"))
        delta = [1.0, 0.25, 2.5][i % 3]
        loss_case(out, "huber", {"x": normal(*shape, scale=2.0), "target": normal(*shape)},
                  {**attrs, "delta": delta}, lambda x, t: F.huber_loss(x, t, reduction="none", delta=delta))
        loss_case(out, "kl_normal", {"mean": normal(*shape), "logvar": normal(*shape, scale=2.0)}, attrs,
                  kl_to_standard_normal)
    # the clip of bce at 0 and 1 rounds in float32: 15.9424 for a target of 0, 16.1181 for a target of 1
    edge = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    loss_case(out, "bce", {"p": edge.clone(), "target": torch.tensor([0.0, 0.5, 1.0] * 2)}, {"reduction": "none"},
              bce_values(1e-7))


def cross_entropy_cases(out):
    for i in range(24):
        shape = [(3, 5), (1, 2), (4, 10), (2, 3, 4), (6, 1), (2, 2, 2, 7), (5, 65)][i % 7]
        attrs = {"reduction": REDUCTIONS[i % 3]}
        smoothing, ignore = [0.0, 0.1, 0.3][i // 4 % 3], None
        labels = torch.randint(1, shape[-1] + 1, shape[:-1])
        if i % 2 and labels.numel() > 1:  # a label of the range, or one outside of it as padding; some others remain
            ignore = int(labels.flatten()[0]) if i % 4 == 1 else 0
            labels.view(-1)[-1] = ignore
            if bool((labels == ignore).all()):
                labels.view(-1)[0] = ignore % shape[-1] + 1
            attrs["ignore_label"] = ignore
        if smoothing:
            attrs["label_smoothing"] = smoothing
        logits = normal(*shape, scale=[1.0, 10.0][i % 2]).requires_grad_(True)
        y = F.cross_entropy(logits.reshape(-1, shape[-1]), labels.reshape(-1) - 1, reduction=attrs["reduction"],
                            label_smoothing=smoothing, ignore_index=-100 if ignore is None else ignore - 1)
        if attrs["reduction"] == "none":
            y = y.reshape(shape[:-1])
        ins = {"logits": logits, "labels": labels.to(torch.uint8) if i % 5 == 4 else labels}
        out.case("cross_entropy", {**ins, "y": y, **gradients(y, {"logits": logits}, 1.0)}, attrs, list(ins),
                 {"y": logits.numel(), "d_logits": shape[-1]})


# ---- normalization ----


def channels_second(x, shape):
    """(N, ..., C) as PyTorch has it."""
    return x.reshape(shape[0], -1, shape[-1]).transpose(1, 2)


def channels_last(y, shape):
    return y.transpose(1, 2).reshape(shape)


NORMS = {
    "batch_norm": (lambda x, w, b, a: F.batch_norm(x, None, None, w, b, True, 0, a["eps"]), {}),
    "group_norm": (lambda x, w, b, a: F.group_norm(x, a["groups"], w, b, a["eps"]), {"groups": [1, 2, 3, 6]}),
    "layer_norm": (lambda x, w, b, a: F.layer_norm(x, x.shape[-1:], w, b, a["eps"]), {}),
}


def norm_cases(out):
    for op, (f, more) in NORMS.items():
        for i in range(20):
            shape = [(5, 3, 6), (4, 3, 2, 6), (3, 12, 6), (2, 5, 3, 12), (20, 18)][i % 5]
            attrs = {"eps": [1e-3, 1e-5][i % 2], **{k: v[i % 4] for k, v in more.items()}}
            ins = {"x": (normal(*shape) * [1, 3][i % 2] + [0, 5][i // 10]).requires_grad_(True)}
            if i % 4 != 3:
                ins["weight"] = (normal(shape[-1]) + 1).requires_grad_(True)
                ins["bias"] = normal(shape[-1]).requires_grad_(True)
            x, last = ins["x"], op == "layer_norm"
            y = f(x if last else channels_second(x, shape), ins.get("weight"), ins.get("bias"), attrs)
            y = y if last else channels_last(y, shape)
            count = x.numel() // shape[-1]
            out.case(op, {**ins, "y": y, **gradients(y, ins, 1.0)}, attrs, list(ins),
                     {"d_x": count, "d_weight": count, "d_bias": count})
    batch_norm_training(out)


def batch_norm_training(out, steps=8):
    """A layer over several batches: its running statistics, and what it gives outside training."""
    layer = torch.nn.BatchNorm1d(6, eps=1e-3, momentum=0.1).double()
    x, test = normal(steps, 10, 4, 6) * 2 + 3, normal(5, 4, 6)
    means, variances = [], []
    for batch in x:
        layer(channels_second(batch, (10, 4, 6)))
        means.append(layer.running_mean.clone())
        variances.append(layer.running_var.clone())
    y = channels_last(layer.eval()(channels_second(test, (5, 4, 6))), (5, 4, 6))
    out.case("batch_norm_training", {"x": x, "mean": torch.stack(means), "variance": torch.stack(variances),
                                     "test": test, "y": y}, {"momentum": 0.9, "eps": 1e-3})


# ---- optimizers: names of the attributes are ours; `make` gets the parameter ----

OPTIMIZERS = {
    "sgd_step": ([{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"weight_decay": 0.1},
                  {"momentum": 0.5, "nesterov": True, "weight_decay": 0.01}],
                 lambda p, lr, a: torch.optim.SGD([p], lr, **a)),
    "rmsprop_step": ([{}, {"rho": 0.99}, {"momentum": 0.9}, {"eps": 1e-3}, {"weight_decay": 0.1}],
                     lambda p, lr, a: torch.optim.RMSprop([p], lr, alpha=a.get("rho", 0.9), eps=a.get("eps", 1e-7),
                                                          momentum=a.get("momentum", 0),
                                                          weight_decay=a.get("weight_decay", 0))),
    "adam_step": ([{}, {"beta1": 0.5}, {"eps": 1e-3}, {"l2": 0.1}, {"beta2": 0.9, "beta1": 0.0}],
                  lambda p, lr, a: torch.optim.Adam([p], lr, betas=(a.get("beta1", 0.9), a.get("beta2", 0.999)),
                                                    eps=a.get("eps", 1e-8), weight_decay=a.get("l2", 0))),
    "adamw_step": ([{"weight_decay": 0.01}, {"weight_decay": 0.1}, {"weight_decay": 0.01, "beta1": 0.5},
                    {"weight_decay": 0.5, "eps": 1e-3}, {"weight_decay": 0.01, "beta2": 0.95}],
                   lambda p, lr, a: torch.optim.AdamW([p], lr, betas=(a.get("beta1", 0.9), a.get("beta2", 0.999)),
                                                      eps=a.get("eps", 1e-8), weight_decay=a["weight_decay"])),
    "adagrad_step": ([{}, {"eps": 1e-3}, {"weight_decay": 0.1}, {"eps": 1e-7}, {"weight_decay": 0.01}],
                     lambda p, lr, a: torch.optim.Adagrad([p], lr, eps=a.get("eps", 1e-10),
                                                          weight_decay=a.get("weight_decay", 0))),
}


def optimizer_cases(out, steps=6):
    for op, (variants, make) in OPTIMIZERS.items():
        for i in range(20):
            attrs, shape = variants[i % len(variants)], [(1,), (3, 4), (37,), (2, 2, 5)][i // 5]
            lr = [1e-3, 1e-2, 0.1, 0.5][i % 4]
            p0 = normal(*shape)
            p = p0.clone().requires_grad_(True)
            optimizer, grads, after = make(p, lr, attrs), normal(steps, *shape), []
            if i % 3 == 2:
                grads[1] = 0  # a step without a gradient
            for g in grads:
                p.grad = g.clone()
                optimizer.step()
                after.append(p.detach().clone())
            out.case(op, {"p": p0, "g": grads, "p_steps": torch.stack(after)}, {"lr": lr, **attrs})


# ---- a small VAE: 8x8 images, latent size 2, RMSprop ----

VAE = {  # in Marea's layouts
    "enc1.weight": (3, 3, 1, 4), "enc1.bias": (4,), "enc2.weight": (3, 3, 4, 8), "enc2.bias": (8,),
    "hidden.weight": (128, 16), "hidden.bias": (16,), "mean.weight": (16, 2), "mean.bias": (2,),
    "logvar.weight": (16, 2), "logvar.bias": (2,), "dec1.weight": (2, 16), "dec1.bias": (16,),
    "dec2.weight": (16, 128), "dec2.bias": (128,), "up1.weight": (3, 3, 4, 8), "up1.bias": (4,),
    "up2.weight": (3, 3, 1, 4), "up2.bias": (1,)}


def vae_loss(w, x, noise):
    """64 * mean binary cross-entropy + mean over images of the KL divergence."""
    same_pad = {"padding": "same"}
    half = {"padding": "same", "stride": 2}
    h = F.relu(conv_forward(x, w["enc1.weight"], w["enc1.bias"], same_pad, (3, 3)))
    h = F.relu(conv_forward(h, w["enc2.weight"], w["enc2.bias"], half, (3, 3)))
    h = F.relu(h.reshape(len(x), -1) @ w["hidden.weight"] + w["hidden.bias"])
    mean, logvar = h @ w["mean.weight"] + w["mean.bias"], h @ w["logvar.weight"] + w["logvar.bias"]
    z = mean + (0.5 * logvar).exp() * noise
    h = F.relu(z @ w["dec1.weight"] + w["dec1.bias"])
    h = F.relu(h @ w["dec2.weight"] + w["dec2.bias"]).reshape(len(x), 4, 4, 8)
    h = F.relu(conv_transpose_forward(h, w["up1.weight"], w["up1.bias"], half, (3, 3)))
    p = torch.sigmoid(conv_transpose_forward(h, w["up2.weight"], w["up2.bias"], same_pad, (3, 3)))
    kl = kl_to_standard_normal(mean, logvar)
    return 64 * bce_values(1e-7)(p, x).mean() + kl.sum() / len(x)


def vae_train(start, images, noise, steps, lr, dtype):
    w = {n: t.to(dtype).clone().requires_grad_(True) for n, t in start.items()}
    optimizer = torch.optim.RMSprop(w.values(), lr, alpha=0.9, eps=1e-7)
    losses, first, tenth = [], None, None
    for step in range(steps):
        batch = images[step % len(images)].to(dtype)
        loss = vae_loss(w, batch, noise[step].to(dtype))
        optimizer.zero_grad()
        loss.backward()
        if first is None:
            first = {n: t.grad.clone() for n, t in w.items()}
        optimizer.step()
        losses.append(loss.detach())
        if step == 9:
            tenth = {n: t.detach().clone() for n, t in w.items()}
    return {"losses": torch.stack(losses), "grad": first, "step10": tenth, "final": w}


def vae_case(out, steps=200, batch=6, lr=1e-3):
    start = {}
    for name, shape in VAE.items():
        if name.endswith("bias"):
            start[name] = uniform(-0.1, 0.1, *shape)
        else:
            fans = (shape[-1] + shape[-2]) * (9 if len(shape) == 4 else 1)
            limit = (6 / fans) ** 0.5
            start[name] = uniform(-limit, limit, *shape)
    images, noise = uniform(0, 1, 2, batch, 8, 8, 1), normal(steps, batch, 2)
    run = vae_train(start, images, noise, steps, lr, F64)
    # The case must be fit for its gate: float32 itself stays well inside 1e-4
    run32 = vae_train(start, images, noise, steps, lr, torch.float32)
    spread = max(float((run["final"][n] - run32["final"][n]).abs().max()) for n in start)
    print("vae: float32 weights differ by %.1e" % spread)
    assert spread < 1e-5
    tensors = {"images": images, "noise": noise, "losses": run["losses"]}
    for n in start:
        tensors["start." + n] = start[n]
        tensors.update({"%s.%s" % (what, n): run[what][n] for what in ("grad", "step10", "final")})
    out.case("vae", tensors, {"steps": steps, "lr": lr, "rho": 0.9, "eps": 1e-7})


# ---- distributions: class -> (constructor from parameters, parameters, values x) ----

TWO = (3, 2)  # parameters are (2), values (3, 2)


def location_scale():
    return {"loc": normal(2), "scale": uniform(0.3, 3, 2)}


def relaxed(temperature, **weights):
    return D.RelaxedBernoulli(temperature, **weights)


def relaxed_one_hot(temperature, logits):
    return D.RelaxedOneHotCategorical(temperature, logits=logits)


def rows(*shape):
    return torch.softmax(normal(*shape), -1)


def counts(*shape, high=2):
    return torch.randint(0, high, shape).to(F64)


DISTRIBUTIONS = {
    "Normal": lambda: (lambda mean, std: D.Normal(mean, std), {"mean": normal(2), "std": uniform(0.3, 3, 2)},
                       normal(*TWO)),
    "Laplace": lambda: (D.Laplace, location_scale(), normal(*TWO)),
    "Logistic": lambda: (None, location_scale(), normal(*TWO)),
    "Gumbel": lambda: (D.Gumbel, location_scale(), normal(*TWO)),
    "Uniform": lambda: (D.Uniform, {"low": uniform(-2, 0, 2), "high": uniform(1, 3, 2)}, uniform(0, 1, *TWO)),
    "Bernoulli": lambda: (D.Bernoulli, {"probs": uniform(0.05, 0.95, 2)}, counts(*TWO)),
    "Bernoulli-logits": lambda: (D.Bernoulli, {"logits": normal(2, scale=3)}, counts(*TWO)),
    "Categorical": lambda: (D.Categorical, {"probs": uniform(0.05, 0.95, 2, 4)}, counts(*TWO, high=4)),
    "Categorical-logits": lambda: (D.Categorical, {"logits": normal(2, 4)}, counts(*TWO, high=4)),
    "Poisson": lambda: (D.Poisson, {"rate": uniform(0.1, 20, 2)}, counts(*TWO, high=30)),
    "RelaxedBernoulli": lambda: (relaxed, {"temperature": torch.tensor(0.7, dtype=F64),
                                           "probs": uniform(0.05, 0.95, 2)}, uniform(0.1, 0.9, *TWO)),
    "RelaxedBernoulli-logits": lambda: (relaxed, {"temperature": torch.tensor(1.3, dtype=F64), "logits": normal(2)},
                                        uniform(0.1, 0.9, *TWO)),
    "GumbelSoftmax": lambda: (relaxed_one_hot, {"temperature": torch.tensor(0.7, dtype=F64), "logits": normal(2, 4)},
                              rows(3, 2, 4)),
}


def logistic(loc, scale):
    """PyTorch has it as a transformed uniform distribution only."""
    standard = D.Uniform(torch.zeros_like(loc), torch.ones_like(loc))
    return D.TransformedDistribution(standard, [D.SigmoidTransform().inv, D.AffineTransform(loc, scale)])


def distribution_case(out, name):
    make, parameters, x = DISTRIBUTIONS[name]()
    name = name.split("-")[0]
    for t in parameters.values():
        t.requires_grad_()
    q = (make or logistic)(**parameters)
    log_prob = q.log_prob(x)
    grads = torch.autograd.grad(log_prob.sum(), list(parameters.values()))
    tensors = {**parameters, "x": x, "log_prob": log_prob}
    tensors.update({"d_" + n: g for n, g in zip(parameters, grads)})
    if name == "Categorical":
        tensors["x"] = x.to(torch.int64) + 1
    for method in ("entropy", "cdf", "icdf", "mean", "variance"):
        try:
            value = getattr(q, method)
            shares = uniform(0.05, 0.95, *TWO)
            argument = {"cdf": [x], "icdf": [shares]}.get(method, [])
            tensors[method] = value(*argument) if callable(value) else value
        except NotImplementedError:
            continue
        if method == "icdf":
            tensors["p"] = shares
    if name == "Categorical":  # NaN there
        del tensors["mean"], tensors["variance"]
    out.case(name, tensors, {}, wide=True)


KL = [("Normal", "Normal"), ("Laplace", "Laplace"), ("Bernoulli", "Bernoulli"),
      ("Bernoulli-logits", "Bernoulli"), ("Bernoulli", "Bernoulli-logits"), ("Categorical", "Categorical"),
      ("Categorical-logits", "Categorical"), ("Categorical-logits", "Categorical-logits"), ("Uniform", "Uniform"),
      ("Gumbel", "Gumbel"), ("Poisson", "Poisson"), ("Uniform", "Normal"), ("Laplace", "Normal")]


def kl_case(out, first, second):
    sides = {}
    for side, name in (("p", first), ("q", second)):
        make, parameters, _ = DISTRIBUTIONS[name]()
        if (side, name) == ("q", "Uniform"):
            parameters = {"low": parameters["low"] - 2, "high": parameters["high"] + torch.tensor([2, -2.5], dtype=F64)}
        sides[side] = (make(**parameters), parameters)
    tensors = {"y": kl_divergence(sides["p"][0], sides["q"][0])}
    for side, (_, parameters) in sides.items():
        tensors.update({side + "." + n: t for n, t in parameters.items()})
    out.case("kl", tensors, {"p": first.split("-")[0], "q": second.split("-")[0]}, wide=True)


def distribution_cases(out):
    for name in DISTRIBUTIONS:
        distribution_case(out, name)
    for first, second in KL:
        kl_case(out, first, second)


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    torch.set_num_threads(1)

    def conv(out):
        conv_cases(out, "conv2d", CONV, conv_forward, False)
        conv_cases(out, "conv_transpose2d", CONV_TRANSPOSE, conv_transpose_forward, True)

    def pool(out):
        pool_cases(out, "max_pool2d", [{}])
        pool_cases(out, "avg_pool2d", [{}, {"count_padding": True}])

    def resample(out):
        resample_cases(out, "gaussian_blur", gaussian_blur, [{"sigma": 1.0}, {"sigma": 0.5}, {"sigma": 1.5, "radius": 2},
                                                             {"sigma": 2.25}, {"sigma": 3.0, "radius": 0}])
        resample_cases(out, "upsample_bilinear2d", upsample_bilinear,
                       [{"scale": 2}, {"scale": (1, 3)}, {"scale": (4, 2)}, {"scale": 1}, {"scale": 5}])

    def loss(out):
        loss_cases(out)
        cross_entropy_cases(out)

    makers = {"conv": (1, conv), "linear": (2, linear_cases), "pool": (3, pool), "loss": (4, loss),
              "optim": (5, optimizer_cases), "vae": (6, vae_case), "dist": (7, distribution_cases),
              "affine": (7, affine_cases), "linalg": (8, linalg_cases), "norm": (7, norm_cases),
              "resample": (7, resample)}
    for name, (seed, make) in makers.items():
        torch.manual_seed(seed)
        out = File()
        make(out)
        out.write(folder, name + ".safetensors")


if __name__ == "__main__":
    main()
