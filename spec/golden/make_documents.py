# SPDX-License-Identifier: MIT
"""Writes spec/golden/documents.zip: the files of other frameworks that the examples of docs/files.md read, for
spec/document_examples_spec.lua. Layer i has all its weights 0.25 i, which compresses to nothing. Needs PyTorch, Keras, and the
packages gguf and torchfile.

    python3 spec/golden/make_documents.py spec/golden/documents.zip
"""
import os
import sys
import tempfile
import zipfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import gguf
import keras
import numpy as np
import torch
from make_t7 import Object, Writer

FOLDER = tempfile.mkdtemp()


def place(name):
    return f"{FOLDER}/{name}"


def with_torch():
    net = torch.nn.Sequential(torch.nn.Linear(784, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10))
    with torch.no_grad():
        for i, layer in enumerate((net[0], net[2]), 1):
            layer.weight.fill_(0.25 * i)
            layer.bias.fill_(0.25 * i)
    torch.save({"model": net.state_dict(), "epoch": 3}, place("checkpoint.pt"))
    named = torch.nn.ModuleDict({"fc1": net[0], "fc2": net[2], "aux": torch.nn.ModuleDict({"head": torch.nn.Linear(100, 1)})})
    torch.save({"model": named.state_dict()}, place("model.pth"))


def fill(net):
    for i, layer in enumerate((layer for layer in net.layers if layer.weights), 1):
        layer.set_weights([np.full(w.shape, 0.25 * i, "f4") for w in layer.weights])


def with_keras():
    layers = keras.layers
    net = keras.Sequential([
        keras.Input((28, 28, 1)), layers.Conv2D(4, 3, strides=2, activation="relu"), layers.Flatten(),
        layers.Dense(10, activation="softmax"),
    ])
    fill(net)
    net.save(place("model.keras"))
    keras.utils.clear_session()
    net = keras.Sequential([
        keras.Input((28, 28)), layers.Flatten(), layers.Dense(100, activation="relu"), layers.Dense(10)])
    fill(net)
    net.save_weights(place("net.weights.h5"))


def with_torch7():
    def linear(i, inputs, outputs):
        return Object("nn.Linear", weight=np.full((outputs, inputs), 0.25 * i), bias=np.full(outputs, 0.25 * i))

    writer = Writer()
    writer.value(Object("nn.Sequential", modules=[linear(1, 784, 100), Object("nn.Tanh"), linear(2, 100, 10)]))
    with open(place("model.t7"), "wb") as file:
        file.write(b"".join(writer.out))


def with_gguf():
    writer = gguf.GGUFWriter(place("model.gguf"), "llama")
    writer.add_tensor("token_embd.weight", np.full((32, 8), 0.25, "f4"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


for make in (with_torch, with_keras, with_torch7, with_gguf):
    make()
with zipfile.ZipFile(sys.argv[1], "w") as archive:
    for name in sorted(os.listdir(FOLDER)):
        with open(place(name), "rb") as file:
            archive.writestr(zipfile.ZipInfo(name), file.read(), zipfile.ZIP_DEFLATED, 9)
