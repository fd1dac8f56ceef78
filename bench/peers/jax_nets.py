#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""JAX, `jax_nets.py THREADS`: step batch=128 is a training step of the VAE with RMSprop; mlp, dqn, classifier and counting
are those of bench/ours, with Adam; jax_sequences.py has more. A step is one function through jax.jit whose parameters are donated, with bf16=1 on
parameters and inputs rounded to bf16, master weights, norms, losses and the optimizer in f32; on as many processors as
threads, which XLA counts when it starts."""
import functools
import os
import sys
import time

os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:int(sys.argv[1])])
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax import lax  # noqa: E402

from jax_sequences import KINDS, rounded  # noqa: E402
from serve import measure, serve  # noqa: E402

IMAGES = ("NHWC", "HWIO", "NHWC")
PEAK = 18 * jnp.pi  # of scripts/count.lua's densities
relu = jax.nn.relu


def new(key, shapes):
    """Weight and bias of each layer."""
    keys = jax.random.split(key, len(shapes))
    return {name: (jax.nn.initializers.glorot_uniform()(k, shape), jnp.zeros(shape[-1]))
            for k, (name, shape) in zip(keys, shapes.items())}


def conv(p, x, stride=1, dilation=1):
    w, b = p
    return lax.conv_general_dilated(x, w, (stride, stride), "SAME", rhs_dilation=(dilation, dilation),
                                    dimension_numbers=IMAGES) + b


def up(p, x, stride=1):
    w, b = p
    return lax.conv_transpose(x, w, (stride, stride), "SAME", dimension_numbers=IMAGES) + b


def dense(p, x):
    w, b = p
    return x @ w + b


def pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def dropout(key, x, share):
    return jnp.where(jax.random.bernoulli(key, 1 - share, x.shape), x / (1 - share), 0)


def vae_parameters(key):
    """3,280,901 numbers."""
    return new(key, {"conv1": (3, 3, 1, 32), "conv2": (3, 3, 32, 32), "conv3": (3, 3, 32, 64), "dense": (12544, 128),
                     "mean": (128, 2), "logvar": (128, 2), "dense1": (2, 128), "dense2": (128, 12544),
                     "up1": (3, 3, 64, 32), "up2": (3, 3, 32, 32), "up3": (3, 3, 32, 1)})


def vae_inputs(a, key):
    return (jax.random.uniform(key, (int(a["batch"]), 28, 28, 1)),)


def vae_loss(p, key, x):
    h = relu(conv(p["conv3"], relu(conv(p["conv2"], relu(conv(p["conv1"], x)))), 2))
    h = relu(dense(p["dense"], h.reshape(len(x), -1)))
    mean, logvar = (dense(p[name], h).astype(jnp.float32) for name in ("mean", "logvar"))
    z = (mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape)).astype(x.dtype)
    y = relu(dense(p["dense2"], relu(dense(p["dense1"], z)))).reshape(-1, 14, 14, 64)
    y = up(p["up3"], relu(up(p["up2"], relu(up(p["up1"], y, 2))))).astype(jnp.float32)
    kl = 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(logvar) - 1 - logvar)
    return (jnp.sum(jax.nn.softplus(y) - x * y) + kl) / len(x)


def cross_entropy(logits, y):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits.astype(jnp.float32)), y[:, None], 1))


def mlp_parameters(key):
    return new(key, {"first": (784, 256), "second": (256, 256), "third": (256, 10)})


def mlp_inputs(a, key):
    n = int(a["batch"])
    return jax.random.uniform(key, (n, 784)), jax.random.randint(key, (n,), 0, 10)


def mlp_loss(p, key, x, y):
    return cross_entropy(dense(p["third"], relu(dense(p["second"], relu(dense(p["first"], x))))), y)


def dqn_parameters(key):
    return new(key, {"first": (4, 64), "second": (64, 2)})


def dqn_inputs(a, key):
    n = int(a["batch"])
    return jax.random.normal(key, (n, 4)), jax.random.randint(key, (n, 1), 0, 2), jax.random.normal(key, (n, 1))


def dqn_loss(p, key, x, action, target):
    found = jnp.take_along_axis(dense(p["second"], relu(dense(p["first"], x))).astype(jnp.float32), action, 1)
    miss = jnp.abs(found - target)
    return jnp.mean(jnp.where(miss < 1, 0.5 * miss * miss, miss - 0.5))


def classifier_parameters(key):
    return new(key, {"conv1": (3, 3, 1, 32), "conv2": (3, 3, 32, 32), "conv3": (3, 3, 32, 64), "conv4": (3, 3, 64, 64),
                     "dense": (3136, 128), "output": (128, 10)})


def classifier_inputs(a, key):
    return *vae_inputs(a, key), jax.random.randint(key, (int(a["batch"]),), 0, 10)


def classifier_loss(p, key, x, y):
    one, two = jax.random.split(key)
    h = pool(relu(conv(p["conv2"], relu(conv(p["conv1"], x)))))
    h = pool(relu(conv(p["conv4"], relu(conv(p["conv3"], h)))))
    h = relu(dense(p["dense"], dropout(one, h, 0.25).reshape(len(x), -1)))
    return cross_entropy(dense(p["output"], dropout(two, h, 0.5)), y)


NORMED = {"fine1": (3, 3, 1, 16), "fine2": (3, 3, 16, 16), "middle": (3, 3, 16, 32), "coarse1": (3, 3, 32, 64),
          "coarse2": (3, 3, 64, 64), "merge1": (3, 3, 64, 32), "merge2": (3, 3, 32, 16)}


def counting_parameters(key):
    """Of each layer with a norm the weight; a bias is in the norm, whose factors stand beside."""
    made = new(key, {**NORMED, "up1": (2, 2, 64, 32), "up2": (2, 2, 32, 16), "head": (1, 1, 16, 1)})
    return {**made, **{name + " norm": jnp.ones(shape[-1]) for name, shape in NORMED.items()}}


def counting_inputs(a, key):
    shape = int(a["batch"]), int(a["side"]), int(a["side"]), 1
    return jax.random.uniform(key, shape), jax.random.uniform(key, shape)


def counting_loss(p, key, x, wanted):
    def normed(name, x, dilation=1):
        weight, bias = p[name]
        y = conv((weight, 0), x, 1, dilation).astype(jnp.float32)
        y = (y - y.mean((0, 1, 2))) * lax.rsqrt(y.var((0, 1, 2)) + 1e-3)
        return relu(y * p[name + " norm"] + bias).astype(x.dtype)
    fine = normed("fine2", normed("fine1", x))
    middle = normed("middle", pool(fine))
    coarse = normed("coarse2", normed("coarse1", pool(middle)), 2)
    y = normed("merge1", jnp.concatenate((middle, up(p["up1"], coarse, 2)), 3))
    y = normed("merge2", jnp.concatenate((fine, up(p["up2"], y, 2)), 3))
    difference = conv(p["head"], y).astype(jnp.float32) - wanted
    missed, surplus = jnp.sum(difference ** 2, (1, 2, 3)) / (PEAK / 2), jnp.sum(difference, (1, 2, 3)) / PEAK
    return jnp.mean(missed + 0.01 * surplus ** 2)


def rmsprop(params, squares, grads, count):
    squares = jax.tree.map(lambda s, g: 0.9 * s + 0.1 * g * g, squares, grads)
    return jax.tree.map(lambda p, g, s: p - 1e-3 * g / (jnp.sqrt(s) + 1e-7), params, grads, squares), squares


def adam(params, moments, grads, count):
    means, squares = moments
    means = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, means, grads)
    squares = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, squares, grads)
    size, root = 1e-3 / (1 - 0.9 ** count), jnp.sqrt(1 - 0.999 ** count)
    return jax.tree.map(lambda p, m, s: p - size * m / (jnp.sqrt(s) / root + 1e-8), params, means,
                        squares), (means, squares)


# What makes the parameters and the inputs, the loss, the optimizer, the number of parameters and of steps in a call.
NETS = {"step": (vae_parameters, vae_inputs, vae_loss, rmsprop, 3280901, 1),
        "mlp": (mlp_parameters, mlp_inputs, mlp_loss, adam, 269322, 20),
        "dqn": (dqn_parameters, dqn_inputs, dqn_loss, adam, 450, 200),
        "classifier": (classifier_parameters, classifier_inputs, classifier_loss, adam, 467818, 1),
        "counting": (counting_parameters, counting_inputs, counting_loss, adam, 96177, 1)}
made = {}  # by request


def make(kind, a):
    new_parameters, inputs, loss, optimizer, size, steps = NETS[kind]
    key = jax.random.key(1)
    params, (x, *rest) = new_parameters(key), inputs(a, key)
    assert sum(p.size for p in jax.tree.leaves(params)) == size
    bf16 = a.get("bf16") == 1

    def of(params, key):
        return loss(rounded(params), key, rounded(x), *rest) if bf16 else loss(params, key, x, *rest)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state):
        params, moments, key, count = state
        key, draw = jax.random.split(key)
        found, grads = jax.value_and_grad(of)(params, draw)
        params, moments = optimizer(params, moments, grads, count + 1)
        return (params, moments, key, count + 1), found

    def zeros():
        return jax.tree.map(jnp.zeros_like, params)
    state = params, zeros() if optimizer is rmsprop else (zeros(), zeros()), key, jnp.float32(0)

    def run():
        nonlocal state
        for _ in range(steps):
            state, found = step(state)
        return float(found)
    return run, steps


def answer(kind, a):
    if kind not in NETS and kind not in KINDS:
        raise ValueError("unknown request " + kind)
    key = kind, *((name, a[name]) for name in sorted(a) if name not in ("seconds", "clock"))
    if key not in made:
        made[key] = KINDS[kind](a) if kind in KINDS else make(kind, a)
    f, count = made[key]
    return measure(f, time.process_time if a.get("clock") == "cpu" else time.perf_counter, a["seconds"], count), ""


serve(f"JAX {jax.__version__}", answer)
