# SPDX-License-Identifier: MIT
"""Networks of the benchmarks of which a training step by Adam is measured, for PyTorch: name -> (net, loss), where loss()
is that of a batch of random numbers. layout: the memory format of images."""
import torch
import torch.nn.functional as F
from torch import nn

PEAK = 2 * torch.pi * 3 ** 2  # of scripts/count.lua's densities


def mlp(a, layout):
    """784-256-256-10, 269,322 parameters."""
    net = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    x, y = torch.rand(int(a["batch"]), 784), torch.randint(10, (int(a["batch"]),))
    return net, lambda: F.cross_entropy(net(x), y)


def dqn(a, layout):
    """4-64-2, 450 parameters; the values of the actions that were taken against their targets."""
    net, batch = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2)), int(a["batch"])
    x, action, target = torch.randn(batch, 4), torch.randint(2, (batch, 1)), torch.randn(batch, 1)
    return net, lambda: F.huber_loss(net(x).gather(1, action), target)


def classifier(a, layout):
    """scripts/classifier.lua's network, 467,818 parameters."""
    def conv(cin, cout):
        return nn.Conv2d(cin, cout, 3, padding=1), nn.ReLU(inplace=True)
    net = nn.Sequential(*conv(1, 32), *conv(32, 32), nn.MaxPool2d(2), *conv(32, 64), *conv(64, 64), nn.MaxPool2d(2),
                        nn.Dropout(0.25), nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(inplace=True), nn.Dropout(0.5),
                        nn.Linear(128, 10)).to(memory_format=layout)
    x = torch.rand(int(a["batch"]), 1, 28, 28).to(memory_format=layout)
    y = torch.randint(10, (len(x),))
    return net, lambda: F.cross_entropy(net(x), y)


def normed(cin, cout, dilation=1):
    return nn.Sequential(nn.Conv2d(cin, cout, 3, padding=dilation, dilation=dilation, bias=False),
                         nn.BatchNorm2d(cout, momentum=0.1), nn.ReLU(inplace=True))


class Density(nn.Module):
    """scripts/count_model.lua's U-Net, 96,177 parameters."""

    def __init__(self, width):
        super().__init__()
        self.fine = nn.Sequential(normed(1, width), normed(width, width))
        self.middle = nn.Sequential(nn.MaxPool2d(2), normed(width, 2 * width))
        self.coarse = nn.Sequential(nn.MaxPool2d(2), normed(2 * width, 4 * width), normed(4 * width, 4 * width, 2))
        self.up1 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.merge1 = normed(4 * width, 2 * width)
        self.up2 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.merge2, self.head = normed(2 * width, width), nn.Conv2d(width, 1, 1)

    def forward(self, x):
        fine = self.fine(x)
        middle = self.middle(fine)
        up = self.merge1(torch.cat((middle, self.up1(self.coarse(middle))), 1))
        return self.head(self.merge2(torch.cat((fine, self.up2(up)), 1)))


def counting(a, layout):
    net, shape = Density(16).to(memory_format=layout), (int(a["batch"]), 1, int(a["side"]), int(a["side"]))
    x, wanted = (torch.rand(shape).to(memory_format=layout) for _ in range(2))

    def loss():
        difference = net(x).float() - wanted
        missed, surplus = difference.square().sum((1, 2, 3)) / (PEAK / 2), difference.sum((1, 2, 3)) / PEAK
        return (missed + 0.01 * surplus.square()).mean()
    return net, loss


NETS = {f.__name__: f for f in (mlp, dqn, classifier, counting)}
STEPS = {"mlp": 20, "dqn": 200, "classifier": 1, "counting": 1}  # of a call
PARAMETERS = {"mlp": 269322, "dqn": 450, "classifier": 467818, "counting": 96177}
