# SPDX-License-Identifier: MIT
"""Writes spec/golden/torch.lua: files of torch.save in hexadecimal digits, what is in them, and what a network of each
kind gives for an input, for spec/torch_spec.lua. Needs PyTorch.

    python3 spec/golden/make_torch.py > spec/golden/torch.lua
"""
import collections
import io
import os

import torch
from torch import nn

torch.manual_seed(1)


def digits(value, **options):
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue().hex()


def numbers(t):
    t = t.detach()
    return "{" + ", ".join(repr(float(x)) for x in t.reshape(-1).double()) + "}"


def put(name, text):
    print(f"  {name} = {text},")


base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
values = {
    "f32": torch.tensor([[1.5, -2.0]]), "f64": torch.tensor(1 / 3, dtype=torch.float64),
    "f16": torch.tensor([0.5, 65504.0], dtype=torch.float16), "bf16": torch.tensor([0.5, 3e38]).bfloat16(),
    "i64": torch.tensor([-2**62, 7]), "i32": torch.tensor([-5, 2**31 - 1], dtype=torch.int32),
    "i16": torch.tensor([-300], dtype=torch.int16), "i8": torch.tensor([-128, 127], dtype=torch.int8),
    "u8": torch.tensor([200, 1], dtype=torch.uint8), "bool": torch.tensor([True, False]),
    "transposed": base[0].t(), "middle": base[1, 1:, 1:3], "permuted": base.permute(2, 0, 1),
    "expanded": torch.tensor([1.0, 2.0])[:, None].expand(2, 3), "empty": torch.zeros(0, 3),
    "parameter": nn.Parameter(torch.tensor([4.0, 5.0])),
    "nothing": None, "yes": True, "no": False, "integer": -7, "large": 2**40, "negative": -2**63, "number": 0.1,
    "text": "größe", "list": [1, None, "x", [2.5]], "tuple": (1, 2, 3, 4), "none": (), 3: "three", 2.5: "half",
    "ordered": collections.OrderedDict(b=1, a=2), "long list": list(range(1500)),
}
values["again"] = values["f32"]
values["itself"] = values["list"]
cycle = [1]
cycle.append(cycle)
values["cycle"] = cycle


class Recurrent(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


networks = {
    "linear": (nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)), torch.randn(4, 5)),
    "conv": (nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()), torch.randn(2, 2, 5, 6)),
    "lstm": (Recurrent(nn.LSTM(4, 6, num_layers=2, batch_first=True)), torch.randn(3, 5, 4)),
    "gru": (Recurrent(nn.GRU(4, 6, batch_first=True)), torch.randn(3, 5, 4)),
    "norm": (nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 2)), torch.randn(4, 5)),
}


class Code:
    def __reduce__(self):
        return os.system, ("touch ran",)


def adam():
    net = nn.Linear(2, 3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {"epoch": 3, "model": net.state_dict(), "optimizer": optimizer.state_dict()}


print("-- luacheck: no max line length")
print("-- Written by spec/golden/make_torch.py with PyTorch " + torch.__version__.split("+")[0] + ".")
print("return {")
put("values", f'"{digits(values)}"')
put("checkpoint", f'"{digits(adam())}"')
put("legacy", f'"{digits({"w": base}, _use_new_zipfile_serialization=False)}"')
put("code", f'"{digits({"w": base, "x": Code()})}"')
put("module", f'"{digits(nn.Linear(1, 1))}"')
put("protocol", f'"{digits({"w": base}, pickle_protocol=4)}"')
print("  networks = {")
for name, (net, x) in networks.items():
    net.train()
    net(x)  # so that batch normalization has statistics
    net.eval()
    y = net(x)
    inner = net.layer if isinstance(net, Recurrent) else net
    print(f'    {name} = {{file = "{digits(inner.state_dict())}",')
    print(f'      x = {numbers(x)}, y = {numbers(y)}, shape = {{{", ".join(map(str, x.shape))}}}}},')
print("  },")
print("}")
