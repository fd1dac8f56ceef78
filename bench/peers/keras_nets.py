#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Keras 3 on TensorFlow, `keras_nets.py THREADS`, with jit=0|1 for jit_compile, in f32 or with bf16=1 by the policy
mixed_bfloat16; on as many processors as threads, which TensorFlow counts when it starts. step batch=128 is a training
step of the VAE as a notebook writes it, by train_on_batch. mlp, dqn, classifier, counting, gan and recurrent
are those of bench/ours, each step of them one tf.function."""
import math
import os
import sys
import time

os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:int(sys.argv[1])])
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras  # noqa: E402
import tensorflow  # noqa: E402
from keras import layers, ops  # noqa: E402

from serve import measure, serve  # noqa: E402


class VAE(keras.Model):
    def __init__(self):
        super().__init__()

        def conv(kind, channels, strides=1, activation="relu"):
            return kind(channels, 3, strides=strides, padding="same", activation=activation)
        self.encoder = keras.Sequential([
            keras.Input((28, 28, 1)), conv(layers.Conv2D, 32), conv(layers.Conv2D, 32), conv(layers.Conv2D, 64, 2),
            layers.Flatten(), layers.Dense(128, activation="relu")])
        self.mean, self.logvar = layers.Dense(2), layers.Dense(2)
        self.decoder = keras.Sequential([
            keras.Input((2,)), layers.Dense(128, activation="relu"), layers.Dense(12544, activation="relu"),
            layers.Reshape((14, 14, 64)), conv(layers.Conv2DTranspose, 32, 2), conv(layers.Conv2DTranspose, 32),
            conv(layers.Conv2DTranspose, 1, activation=None)])
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, x):
        h = self.encoder(x)
        mean, logvar = self.mean(h), self.logvar(h)
        z = mean + ops.exp(0.5 * logvar) * keras.random.normal(ops.shape(mean), dtype=mean.dtype,
                                                                     seed=self.seeds)
        return self.decoder(z), mean, logvar

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        logits, mean, logvar = (ops.cast(y, "float32") for y in y_pred)
        kl = 0.5 * ops.sum(ops.square(mean) + ops.exp(logvar) - 1 - logvar)
        found = ops.sum(ops.binary_crossentropy(x, logits, from_logits=True))
        return (found + kl) / ops.cast(ops.shape(x)[0], "float32")


def conv(channels, strides=1, kernel=3, **options):
    return layers.Conv2D(channels, kernel, strides=strides, padding="same", **options)


def mlp(a):
    n = int(a["batch"])
    net = keras.Sequential([keras.Input((784,)), layers.Dense(256, "relu"), layers.Dense(256, "relu"), layers.Dense(10)])
    x, y = random((n, 784)), numbers(n, 10)
    return net, lambda: cross_entropy(y, net(x, training=True))


def dqn(a):
    n = int(a["batch"])
    net = keras.Sequential([keras.Input((4,)), layers.Dense(64, "relu"), layers.Dense(2)])
    x, action, target = random((n, 4)), numbers(n, 2), random((n, 1))

    def loss():
        found = ops.take_along_axis(ops.cast(net(x, training=True), "float32"), action[:, None], 1)
        return ops.mean(keras.losses.huber(target, found))
    return net, loss


def classifier(a):
    n = int(a["batch"])
    net = keras.Sequential([
        keras.Input((28, 28, 1)), conv(32, activation="relu"), conv(32, activation="relu"), layers.MaxPooling2D(),
        conv(64, activation="relu"), conv(64, activation="relu"), layers.MaxPooling2D(), layers.Dropout(0.25),
        layers.Flatten(), layers.Dense(128, "relu"), layers.Dropout(0.5), layers.Dense(10)])
    x, y = random((n, 28, 28, 1)), numbers(n, 10)
    return net, lambda: cross_entropy(y, net(x, training=True))


def counting(a):
    def normed(x, channels, dilation=1):
        x = conv(channels, dilation_rate=dilation, use_bias=False)(x)
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    side = int(a["side"])
    shape, begin = (int(a["batch"]), side, side, 1), keras.Input((side, side, 1))
    fine = normed(normed(begin, 16), 16)
    middle = normed(layers.MaxPooling2D()(fine), 32)
    coarse = normed(normed(layers.MaxPooling2D()(middle), 64), 64, 2)
    up = normed(layers.Concatenate()([middle, layers.Conv2DTranspose(32, 2, 2)(coarse)]), 32)
    up = normed(layers.Concatenate()([fine, layers.Conv2DTranspose(16, 2, 2)(up)]), 16)
    net, x, wanted, peak = keras.Model(begin, conv(1, kernel=1)(up)), random(shape), random(shape), 18 * math.pi

    def loss():
        difference = ops.cast(net(x, training=True), "float32") - wanted
        missed, surplus = ops.sum(ops.square(difference), (1, 2, 3)) / (peak / 2), ops.sum(difference, (1, 2, 3)) / peak
        return ops.mean(missed + 0.01 * ops.square(surplus))
    return net, loss


NETS = {f.__name__: f for f in (mlp, dqn, classifier, counting)}
STEPS = {"mlp": 20, "dqn": 200, "classifier": 1, "counting": 1}  # of a call
PARAMETERS = {"mlp": 269322, "dqn": 450, "classifier": 467818, "counting": 96177}


def random(shape):
    return tensorflow.random.uniform(shape)


def numbers(n, below):
    return tensorflow.random.uniform((n,), 0, below, tensorflow.int32)


def cross_entropy(y, logits):
    return ops.mean(ops.sparse_categorical_crossentropy(y, ops.cast(logits, "float32"), from_logits=True))


def update(net, optimizer, tape, loss):
    optimizer.apply(tape.gradient(loss, net.trainable_weights), net.trainable_weights)
    return loss


def net_step(kind, a):
    """steps of a net by Adam, and their number."""
    net, loss = NETS[kind](a)
    assert sum(math.prod(w.shape) for w in net.trainable_weights) == PARAMETERS[kind], net.count_params()
    adam = keras.optimizers.Adam(1e-3)
    adam.build(net.trainable_weights)

    @tensorflow.function(jit_compile=a["jit"] == 1)
    def step():
        with tensorflow.GradientTape() as tape:
            found = loss()
        return update(net, adam, tape, found)

    def run():
        for _ in range(STEPS[kind]):
            found = step()
        return float(found)
    return run, STEPS[kind]


def gan_step(kind, a):
    """Both networks of scripts/gan.lua learn."""
    def normed(*made):
        return [layer for first in made for layer in (first, layers.BatchNormalization(), layers.ReLU())]
    n = int(a["batch"])
    generator = keras.Sequential([
        keras.Input((64,)), *normed(layers.Dense(128), layers.Dense(12544)), layers.Reshape((14, 14, 64)),
        *normed(*(layers.Conv2DTranspose(32, 3, strides, "same") for strides in (2, 1))),
        layers.Conv2DTranspose(1, 3, padding="same", activation="sigmoid")])
    judge = keras.Sequential([keras.Input((28, 28, 1)), *(
        layer for channels in (64, 128, 256)
        for layer in (conv(channels, 2, 5), layers.LeakyReLU(negative_slope=0.2), layers.Dropout(0.4))),
        layers.Flatten(), layers.Dense(1024), layers.LeakyReLU(negative_slope=0.2), layers.Dense(1)])
    assert judge.count_params() == 5222401
    x, adams = random((n, 28, 28, 1)), [keras.optimizers.Adam(2e-4, 0.5) for _ in range(2)]
    for net, adam in zip((generator, judge), adams):
        adam.build(net.trainable_weights)

    def against(y, label):
        y = ops.cast(y, "float32")
        return ops.mean(ops.binary_crossentropy(ops.full_like(y, label), y, from_logits=True))

    @tensorflow.function(jit_compile=a["jit"] == 1)
    def step():
        fake = generator(tensorflow.random.normal((n, 64)), training=True)
        with tensorflow.GradientTape() as tape:
            found = (against(judge(x, training=True), 0.9) + against(judge(fake, training=True), 0.0)) / 2
        update(judge, adams[1], tape, found)
        with tensorflow.GradientTape() as tape:
            y = judge(generator(tensorflow.random.normal((n, 64)), training=True), training=True)
            found = against(y, 1.0)
        return update(generator, adams[0], tape, found)
    return lambda: float(step()), 1


def vae_step(kind, a):
    model, x = VAE(), random((int(a["batch"]), 28, 28, 1))
    model.compile(optimizer=keras.optimizers.RMSprop(1e-3), jit_compile=a["jit"] == 1)

    def step():
        return float(model.train_on_batch(x, x))
    step()
    assert model.count_params() == 3280901, model.count_params()
    return step, 1


def recurrent(kind, a):
    rows, length, inputs, hidden = (int(a[name]) for name in ("rows", "length", "inputs", "hidden"))
    net = {"LSTM": layers.LSTM, "GRU": layers.GRU}[a["kind"]](hidden, return_sequences=True)
    x, dy = random((rows, length, inputs)), random((rows, length, hidden))
    net.build(x.shape)

    @tensorflow.function(jit_compile=a["jit"] == 1)
    def forward():
        return net(x)

    @tensorflow.function(jit_compile=a["jit"] == 1)
    def with_gradients():
        with tensorflow.GradientTape() as tape:
            tape.watch(x)
            y = net(x)
        return tape.gradient(y, [*net.trainable_weights, x], ops.cast(dy, y.dtype))
    f = forward if a["map"] == "forward" else with_gradients
    return lambda: [y.numpy() for y in tensorflow.nest.flatten(f())[:1]], 1


KINDS = {"step": vae_step, "recurrent": recurrent, "gan": gan_step, **{name: net_step for name in NETS}}
made = {}  # by request


def answer(kind, a):
    if kind not in KINDS:
        raise ValueError("unknown request " + kind)
    key = kind, *((name, a[name]) for name in sorted(a) if name not in ("seconds", "clock"))
    if key not in made:
        keras.config.set_dtype_policy("mixed_bfloat16" if a.get("bf16") == 1 else "float32")
        keras.utils.set_random_seed(1)
        made[key] = KINDS[kind](kind, a)
    f, count = made[key]
    return measure(f, time.process_time if a.get("clock") == "cpu" else time.perf_counter, a["seconds"], count), ""


serve(f"Keras {keras.__version__}, TensorFlow {tensorflow.__version__}", answer)
