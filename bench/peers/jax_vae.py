#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""JAX, `jax_vae.py THREADS`: step batch=128 is a training step of the VAE with RMSprop, one function through jax.jit whose
parameters are donated; on as many processors as threads, which XLA counts when it starts."""
import os
import sys
import time

os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:int(sys.argv[1])])
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax import lax  # noqa: E402

from serve import measure, serve  # noqa: E402

IMAGES = ("NHWC", "HWIO", "NHWC")


def parameters(key):
    """Weight and bias of each layer; 3,280,901 numbers."""
    shapes = {"conv1": (3, 3, 1, 32), "conv2": (3, 3, 32, 32), "conv3": (3, 3, 32, 64), "dense": (12544, 128),
              "mean": (128, 2), "logvar": (128, 2), "dense1": (2, 128), "dense2": (128, 12544),
              "up1": (3, 3, 64, 32), "up2": (3, 3, 32, 32), "up3": (3, 3, 32, 1)}
    keys = jax.random.split(key, len(shapes))
    made = {name: (jax.nn.initializers.glorot_uniform()(k, shape), jnp.zeros(shape[-1]))
            for k, (name, shape) in zip(keys, shapes.items())}
    assert sum(p.size for p in jax.tree.leaves(made)) == 3280901
    return made


def loss(params, x, key):
    def conv(name, x, stride=1):
        w, b = params[name]
        return lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=IMAGES) + b

    def up(name, x, stride=1):
        w, b = params[name]
        return lax.conv_transpose(x, w, (stride, stride), "SAME", dimension_numbers=IMAGES) + b

    def dense(name, x):
        w, b = params[name]
        return x @ w + b
    relu = jax.nn.relu
    h = relu(conv("conv3", relu(conv("conv2", relu(conv("conv1", x)))), 2))
    h = relu(dense("dense", h.reshape(len(x), -1)))
    mean, logvar = dense("mean", h), dense("logvar", h)
    z = mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape)
    y = relu(dense("dense2", relu(dense("dense1", z)))).reshape(-1, 14, 14, 64)
    y = up("up3", relu(up("up2", relu(up("up1", y, 2)))))
    kl = 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(logvar) - 1 - logvar)
    return (jnp.sum(jax.nn.softplus(y) - x * y) + kl) / len(x)


def step(state, x):
    params, squares, key = state
    key, draw = jax.random.split(key)
    found, grads = jax.value_and_grad(loss)(params, x, draw)
    squares = jax.tree.map(lambda s, g: 0.9 * s + 0.1 * g * g, squares, grads)
    params = jax.tree.map(lambda p, g, s: p - 1e-3 * g / (jnp.sqrt(s) + 1e-7), params, grads, squares)
    return (params, squares, key), found


compiled = jax.jit(step, donate_argnums=0)


def answer(kind, a):
    if kind != "step":
        raise ValueError("unknown request " + kind)
    key = jax.random.key(1)
    params = parameters(key)
    state, x = (params, jax.tree.map(jnp.zeros_like, params), key), jax.random.uniform(key, (int(a["batch"]), 28, 28, 1))

    def run():
        nonlocal state
        state, found = compiled(state, x)
        return float(found)
    return measure(run, time.process_time if a.get("clock") == "cpu" else time.perf_counter, a["seconds"]), ""


serve(f"JAX {jax.__version__}", answer)
