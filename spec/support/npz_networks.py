# SPDX-License-Identifier: MIT
"""Networks in NumPy alone: for each an archive of its weights, an input x and what it makes of it, y.

    python3 npz_networks.py FOLDER
"""
import sys

import numpy as np

folder = sys.argv[1]
random = np.random.default_rng(1)


def normal(*shape):
    return random.standard_normal(shape).astype("f4") * 0.5


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def save(name, write, y, x, **weights):
    write(f"{folder}/{name}.npz", x=x, y=y.astype("f4"), **weights)


x, w1, b1, w2, b2 = normal(4, 5), normal(5, 8), normal(8), normal(8, 3), normal(3)
save("dense", np.savez, softmax(np.maximum(x @ w1 + b1, 0) @ w2 + b2), x, w1=w1, b1=b1, w2=w2, b2=b2)

x, w, b = normal(2, 9, 3), normal(3, 3, 4), normal(4)
windows = np.lib.stride_tricks.sliding_window_view(x, 3, axis=1)  # (2, 7, 3, 3): places, channels, taps
save("conv", np.savez_compressed, np.tanh(np.einsum("nlck,kco->nlo", windows, w) + b), x, w=w, b=b)

x, w_x, w_h, b, h = normal(2, 6, 3), normal(3, 4), normal(4, 4), normal(4), np.zeros((2, 4), "f4")
steps = []
for t in range(6):
    h = np.tanh(x[:, t] @ w_x + h @ w_h + b)
    steps.append(h)
save("recurrent", np.savez, np.stack(steps, 1), x, w_x=w_x, w_h=w_h, b=b)

x, q, k, v = normal(2, 5, 6), normal(6, 6), normal(6, 6), normal(6, 6)
scores = (x @ q) @ (x @ k).transpose(0, 2, 1) / np.sqrt(6)
save("attention", np.savez_compressed, softmax(scores) @ (x @ v), x, q=q, k=k, v=v)

x, gamma, beta, w = normal(4, 6), normal(6), normal(6), np.asfortranarray(normal(6, 2))
normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gamma + beta
save("normed", np.savez, 1 / (1 + np.exp(-(normed @ w))), x, gamma=gamma, beta=beta, w=w)
