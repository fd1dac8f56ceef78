# SPDX-License-Identifier: MIT
"""Sequences in JAX for jax_nets.py: kind -> function of the request that makes what to time. attention, recurrent
and language are those of bench/ours; an LSTM or GRU goes over its steps by lax.scan, with the products of the inputs in
one before."""
import jax
import jax.numpy as jnp
from jax import lax

GATES = {"LSTM": 4, "GRU": 3}


def rounded(tree):
    return jax.tree.map(lambda p: p.astype(jnp.bfloat16) if p.dtype == jnp.float32 else p, tree)


def lstm_cell(u, carry, given):
    h, c = carry
    i, f, g, o = jnp.split((given + h @ u).astype(jnp.float32), 4, 1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = (jax.nn.sigmoid(o) * jnp.tanh(c)).astype(h.dtype)
    return (h, c), h


def gru_cell(u, bias, carry, given):
    h, _ = carry
    (xr, xz, xn), (hr, hz, hn) = jnp.split(given, 3, 1), jnp.split(h @ u + bias, 3, 1)
    r, z = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
    h = (1 - z) * jnp.tanh(xn + r * hn) + z * h
    return (h, carry[1]), h


def layer(kind, p, x):
    """(N, T, inputs) -> (N, T, hidden)"""
    w, u, b, c = p
    given, h = (x @ w + b).swapaxes(0, 1), jnp.zeros((len(x), u.shape[0]), x.dtype)
    cell = (lambda *a: lstm_cell(u, *a)) if kind == "LSTM" else (lambda *a: gru_cell(u, c, *a))
    _, y = lax.scan(cell, (h, jnp.zeros(h.shape)), given)
    return y.swapaxes(0, 1)


def layer_parameters(key, kind, inputs, hidden):
    one, two = jax.random.split(key)
    return (0.05 * jax.random.normal(one, (inputs, GATES[kind] * hidden)),
            0.05 * jax.random.normal(two, (hidden, GATES[kind] * hidden)), *jnp.zeros((2, GATES[kind] * hidden)))


def recurrent(a):
    rows, length, inputs, hidden = (int(a[name]) for name in ("rows", "length", "inputs", "hidden"))
    key = jax.random.key(1)
    p, x = layer_parameters(key, a["kind"], inputs, hidden), jax.random.normal(key, (rows, length, inputs))
    dy = jax.random.normal(key, (rows, length, hidden))

    def forward(p, x):
        return layer(a["kind"], *(rounded((p, x)) if a.get("bf16") == 1 else (p, x)))
    if a["map"] == "forward":
        f = jax.jit(forward)
    else:
        f = jax.jit(jax.grad(lambda p, x: jnp.sum(forward(p, x).astype(jnp.float32) * dy), (0, 1)))
    return lambda: jax.block_until_ready(f(p, x)), 1


def normed(p, x):
    y = x.astype(jnp.float32)
    y = (y - y.mean(-1, keepdims=True)) * lax.rsqrt(y.var(-1, keepdims=True) + 1e-5)
    return (y * p[0] + p[1]).astype(x.dtype)


def dense(p, x):
    return x @ p[0] + p[1]


def block_parameters(key, width):
    keys = jax.random.split(key, 4)

    def new(i, cin, cout):
        return 0.02 * jax.random.normal(keys[i], (cin, cout)), jnp.zeros(cout)

    def norm():
        return jnp.ones(width), jnp.zeros(width)
    return {"norm1": norm(), "norm2": norm(), "qkv": new(0, width, 3 * width), "proj": new(1, width, width),
            "up": new(2, width, 4 * width), "down": new(3, 4 * width, width)}


def block(p, x, heads):
    """A layer of a transformer with the norm first and rotary positions."""
    n, t, width = x.shape
    half = width // heads // 2
    angles = jnp.tile(jnp.outer(jnp.arange(t), 10000 ** (-jnp.arange(half) / half)), 2)[:, None]
    cos, sin = jnp.cos(angles).astype(x.dtype), (jnp.sin(angles) * jnp.repeat(jnp.array([-1., 1.]), half)).astype(x.dtype)
    q, k, v = (y.reshape(n, t, heads, -1) for y in jnp.split(dense(p["qkv"], normed(p["norm1"], x)), 3, 2))
    q, k = (y * cos + jnp.roll(y, half, -1) * sin for y in (q, k))
    x = x + dense(p["proj"], jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(n, t, width))
    return x + dense(p["down"], jax.nn.gelu(dense(p["up"], normed(p["norm2"], x)), approximate=False))


def language(a):
    layers, heads, width, context, batch, vocabulary = (
        int(a[name]) for name in ("layers", "heads", "width", "context", "batch", "vocabulary"))
    keys = jax.random.split(jax.random.key(1), layers + 2)
    lstm = a["model"] == "lstm"
    params = {"embed": 0.02 * jax.random.normal(keys[0], (vocabulary, width)), "norm": (jnp.ones(width), jnp.zeros(width)),
              "out": 0.02 * jax.random.normal(keys[1], (width, vocabulary)),
              "layers": [layer_parameters(k, "LSTM", width, width) if lstm else block_parameters(k, width)
                         for k in keys[2:]]}
    x, y = jax.random.randint(keys[0], (2, batch, context), 0, vocabulary)

    def loss(params):
        p = rounded(params) if a.get("bf16") == 1 else params
        h = p["embed"][x]
        for q in p["layers"]:
            h = layer("LSTM", q, h) if lstm else block(q, h, heads)
        logits = ((h if lstm else normed(p["norm"], h)) @ p["out"]).astype(jnp.float32)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[..., None], 2))

    def step(state):
        params, means, squares, count = state
        found, grads = jax.value_and_grad(loss)(params)
        norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(grads)))
        grads = jax.tree.map(lambda g: g * jnp.minimum(1, 1 / (norm + 1e-6)), grads)
        means = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, means, grads)
        squares = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, squares, grads)
        size, root = 1e-4 / (1 - 0.9 ** (count + 1)), jnp.sqrt(1 - 0.999 ** (count + 1))
        params = jax.tree.map(lambda p, m, s: p * (1 - 1e-6) - size * m / (jnp.sqrt(s) / root + 1e-8), params, means,
                              squares)
        return (params, means, squares, count + 1), found
    if a["map"] == "forward":
        f = jax.jit(loss)
        return lambda: float(f(params)), 1
    zeros = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
    state, f = (params, *zeros, jnp.float32(0)), jax.jit(step, donate_argnums=0)

    def run():
        nonlocal state
        state, found = f(state)
        return float(found)
    return run, 1


def attention(a):
    shape = [int(a[name]) for name in ("rows", "length", "heads", "width")]
    *given, dy = jax.random.normal(jax.random.key(1), (4, *shape))

    def forward(*given):
        q, k, v = rounded(given) if a.get("bf16") == 1 else given
        return jax.nn.dot_product_attention(q, k, v, is_causal=a["causal"] == 1)
    if a["map"] == "forward":
        f = jax.jit(forward)
    else:
        f = jax.jit(jax.grad(lambda *given: jnp.sum(forward(*given).astype(jnp.float32) * dy), (0, 1, 2)))
    return lambda: jax.block_until_ready(f(*given)), 1


KINDS = {"attention": attention, "recurrent": recurrent, "language": language}
