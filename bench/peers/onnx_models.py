#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Networks for bench/groups/graphs.lua, with random weights, written by PyTorch as files of ONNX:

    onnx_models.py FOLDER

ResNet-18 (He et al., 2016), MobileNetV2 (Sandler et al., 2018) and SqueezeNet 1.1 (Iandola et al., 2016) for images of
224 x 224, the VAE's decoder, an LSTM over 50 steps, and a transformer's encoder of 6 layers over 64 places. The first size
of every input, the batch, is free."""
import sys
import warnings
from pathlib import Path

import torch
from torch import nn


def conv(inputs, outputs, kernel, stride=1, groups=1, act=nn.ReLU):
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([act()] if act else []))


class Residual(nn.Module):
    """act(body(x) + shortcut(x))"""

    def __init__(self, body, shortcut=None, act=None):
        super().__init__()
        self.body, self.shortcut, self.act = body, shortcut or nn.Identity(), act or nn.Identity()

    def forward(self, x):
        return self.act(self.body(x) + self.shortcut(x))


def resnet18():
    def block(inputs, outputs, stride):
        shortcut = conv(inputs, outputs, 1, stride, act=None) if stride > 1 else None
        return Residual(nn.Sequential(conv(inputs, outputs, 3, stride), conv(outputs, outputs, 3, act=None)), shortcut, nn.ReLU())

    layers, inputs = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)], 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [block(inputs, outputs, stride), block(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def mobilenet_v2():
    def block(inputs, outputs, stride, expand):
        wide = inputs * expand
        first = [conv(inputs, wide, 1, act=nn.ReLU6)] if expand > 1 else []
        body = nn.Sequential(*first, conv(wide, wide, 3, stride, wide, nn.ReLU6), conv(wide, outputs, 1, act=None))
        return Residual(body) if stride == 1 and inputs == outputs else body

    layers, inputs = [conv(3, 32, 3, 2, act=nn.ReLU6)], 32
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expand, outputs, blocks, stride in stages:
        for i in range(blocks):
            layers.append(block(inputs, outputs, stride if i == 0 else 1, expand))
            inputs = outputs
    layers.append(conv(320, 1280, 1, act=nn.ReLU6))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000))


class Fire(nn.Module):
    def __init__(self, inputs, squeezed, expanded):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.one = nn.Conv2d(squeezed, expanded, 1)
        self.three = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x):
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.one(x)), torch.relu(self.three(x))], 1)


def squeezenet():
    def pool():
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(), Fire(64, 16, 64), Fire(128, 16, 64), pool(),
        Fire(128, 32, 128), Fire(256, 32, 128), pool(), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256),
        Fire(512, 64, 256), nn.Conv2d(512, 1000, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def decoder():
    return nn.Sequential(
        nn.Linear(2, 7 * 7 * 64), nn.ReLU(), nn.Unflatten(1, (64, 7, 7)),
        nn.ConvTranspose2d(64, 64, 3, 2, 1, 1), nn.ReLU(), nn.ConvTranspose2d(64, 32, 3, 2, 1, 1), nn.ReLU(),
        nn.ConvTranspose2d(32, 1, 3, 1, 1), nn.Sigmoid())


class LastOfLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.out = nn.LSTM(64, 128, batch_first=True), nn.Linear(128, 10)

    def forward(self, x):
        return self.out(self.lstm(x)[0][:, -1])


def encoder():
    layer = nn.TransformerEncoderLayer(256, 8, 1024, batch_first=True, activation="gelu")
    return nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)


IMAGE = (3, 224, 224)
NETWORKS = {"resnet18": (resnet18, IMAGE), "mobilenet_v2": (mobilenet_v2, IMAGE), "squeezenet": (squeezenet, IMAGE),
            "decoder": (decoder, (2,)), "lstm": (LastOfLSTM, (50, 64)), "encoder": (encoder, (64, 256))}


def randomize(net):
    """Statistics and weights as after training: none at its initial value, and no two layers alike."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    for parameter in net.parameters():
        if parameter.dim() == 2:
            nn.init.xavier_uniform_(parameter)


def main(folder):
    torch.manual_seed(1)
    torch.backends.mha.set_fastpath_enabled(False)
    for name, (network, shape) in NETWORKS.items():
        net = network().eval()
        randomize(net)
        torch.onnx.export(net, (torch.randn(1, *shape),), Path(folder) / f"{name}.onnx", dynamo=False, opset_version=17,
                          input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "n"}, "y": {0: "n"}})


warnings.simplefilter("ignore")
main(sys.argv[1])
