#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Keras 3 on TensorFlow, `keras_vae.py THREADS`: step batch=128 jit=0|1 bf16=0|1 is a training step of the VAE as a
notebook writes it, by train_on_batch, with jit_compile or without, in f32 or by the policy mixed_bfloat16; on as many
processors as threads, which TensorFlow counts when it starts."""
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


models = {}


def model_for(jit, bf16):
    keras.config.set_dtype_policy("mixed_bfloat16" if bf16 else "float32")
    if (jit, bf16) not in models:
        keras.utils.set_random_seed(1)
        models[jit, bf16] = VAE()
        models[jit, bf16].compile(optimizer=keras.optimizers.RMSprop(1e-3), jit_compile=jit)
    return models[jit, bf16]


def answer(kind, a):
    if kind != "step":
        raise ValueError("unknown request " + kind)
    model, x = model_for(a["jit"] == 1, a.get("bf16") == 1), tensorflow.random.uniform((int(a["batch"]), 28, 28, 1))

    def step():
        return float(model.train_on_batch(x, x))
    step()
    assert model.count_params() == 3280901, model.count_params()
    return measure(step, time.process_time if a.get("clock") == "cpu" else time.perf_counter, a["seconds"]), ""


serve(f"Keras {keras.__version__}, TensorFlow {tensorflow.__version__}", answer)
