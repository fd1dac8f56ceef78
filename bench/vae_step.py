#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The peer of bench/vae_step.lua: a training step of the VAE of scripts/vae.lua in PyTorch.

    OPENBLAS_CORETYPE= python3 bench/vae_step.py --threads 2 --channels-last --steps 10

Prints one JSON line: times of the steps in ms, peak resident memory in MiB, versions. Where PyTorch has a choice, the
faster one is taken: symmetric padding (Keras' odd pixel at the end would cost a copy), losses fused.
"""
import argparse
import json
import resource
import time

import torch
import torch.nn.functional as F
from torch import nn


class VAE(nn.Module):
    """3,280,901 parameters: two convolutions and a strided one, 128 hidden units, latent size 2, and the mirror."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(inplace=True), nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(inplace=True), nn.Flatten(),
            nn.Linear(12544, 128), nn.ReLU(inplace=True))
        self.mean, self.logvar = nn.Linear(128, 2), nn.Linear(128, 2)
        self.decoder = nn.Sequential(
            nn.Linear(2, 128), nn.ReLU(inplace=True), nn.Linear(128, 12544), nn.ReLU(inplace=True),
            nn.Unflatten(1, (64, 14, 14)), nn.ConvTranspose2d(64, 32, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(inplace=True), nn.ConvTranspose2d(32, 32, 3, padding=1), nn.ReLU(inplace=True),
            nn.ConvTranspose2d(32, 1, 3, padding=1))

    def loss(self, x):
        h = self.encoder(x)
        mean, logvar = self.mean(h), self.logvar(h)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        y = self.decoder(z)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum()
        return (F.binary_cross_entropy_with_logits(y, x, reduction="sum") + kl) / len(x)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--channels-last", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    model = VAE().to(memory_format=layout)
    assert sum(p.numel() for p in model.parameters()) == 3280901
    optimizer = torch.optim.RMSprop(model.parameters(), 1e-3, alpha=0.9, eps=1e-7)
    x = torch.rand(args.batch, 1, 28, 28).to(memory_format=layout)
    times = []
    for step in range(args.warmup + args.steps):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss(x)
        loss.backward()
        optimizer.step()
        loss = loss.item()
        if step >= args.warmup:
            times.append(1000 * (time.perf_counter() - start))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"ms": times, "peak_mib": peak, "loss": loss, "version": "PyTorch " + torch.__version__}))


if __name__ == "__main__":
    main()
