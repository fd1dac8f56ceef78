#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes half.safetensors: bits of bf16 and f16 as PyTorch has them (made with 2.14.1), for spec/half_spec.lua.

    python3 spec/golden/make_half.py [folder]

x are f32 of all magnitudes; bf16 and f16 what they are converted to. <dtype>.a and .b are operands, .add, .sub, .mul,
.div and .sqrt (of a) their results, .grad the gradient that a leaf has after three passes of different scale.
"""
import json
import os
import struct
import sys

import torch

NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def write(path, tensors):
    order = sorted(tensors, key=lambda n: (-tensors[n].element_size(), n))
    header, offset = {}, 0
    for name in order:
        size = tensors[name].numel() * tensors[name].element_size()
        header[name] = {"dtype": NAMES[tensors[name].dtype], "shape": list(tensors[name].shape),
                        "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            f.write(tensors[name].contiguous().view(torch.uint8).numpy().tobytes())


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    torch.set_num_threads(1)
    torch.manual_seed(17)
    bits = torch.randint(-2**31, 2**31, (2000,), dtype=torch.int64).to(torch.int32)
    x = bits.view(torch.float32)
    near = (torch.rand(1000) * 2 - 1) * 2.0 ** torch.randint(-30, 18, (1000,))  # the range of f16
    ties = torch.arange(600, dtype=torch.float32) * 2.0**-25
    x = torch.cat([x[torch.isfinite(x)], near, ties, -ties, torch.tensor([65504.0, 65519.99, 65520.0, 3.4e38])])
    out = {"x": x, "bf16": x.to(torch.bfloat16), "f16": x.to(torch.float16)}
    for name, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16)):
        a, b = (torch.randn(600) * 3).to(dtype), (torch.randn(600) * 3).to(dtype)
        out.update({f"{name}.a": a, f"{name}.b": b, f"{name}.add": a + b, f"{name}.sub": a - b,
                    f"{name}.mul": a * b, f"{name}.div": a / b, f"{name}.sqrt": a.abs().sqrt()})
        leaf = a.clone().requires_grad_()
        for scale in (b, b * 0.125, b * b):
            (leaf * scale).backward(torch.ones_like(leaf))
        out[f"{name}.grad"] = leaf.grad
    write(os.path.join(folder, "half.safetensors"), out)


if __name__ == "__main__":
    main()
