#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the reference numbers of spec/golden_sequences_spec.lua with PyTorch (made with 2.14.1).

    python3 spec/golden/make_sequences.py [folder]

The form of the files is make_golden.py's. Layouts and names are PyTorch's with batch_first; `w.<name>` is a parameter and
`g.<name>` its gradient. What is one bias in Marea is the sum of two in PyTorch, and has the gradient of one of them:
the gradients of the other one, bias_hh, are written as 0, but for the part of GRU's that acts within the reset gate.
"""
import os
import random
import sys

import torch
import torch.nn.functional as F
from make_golden import F64, File, normal


def parameters(module):
    return dict(module.named_parameters())


def exact(module):
    """Values that are exact in float32."""
    module.to(F64)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(p.float().double() if p.dim() > 1 else normal(*p.shape, scale=0.3).float().double())
    return module


def weights_of(module):
    return {"w." + name: p for name, p in parameters(module).items()}


def gradients_of(module, hidden=None):
    result = {"g." + name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in parameters(module).items()}
    for name, g in result.items():
        if hidden and "bias_hh" in name:
            g = g.clone()
            g[: 2 * hidden if isinstance(module, torch.nn.GRU) else None] = 0
            result[name] = g
    return result


def recurrent(kind, n):
    """n cases: layers 1 and 2, one direction and both, with and without lengths, first states and biases."""
    file = File()
    for k in range(n):
        r = random.Random("%s %d" % (kind, k))
        batch, steps, inputs, hidden = r.choice([1, 3, 4]), r.choice([1, 4, 6]), r.choice([1, 3, 5]), r.choice([1, 2, 5])
        layers, both, bias, activation = 1 + k % 2, k // 2 % 2 == 1, k % 5 != 4, r.choice(["tanh", "relu"])
        extra = {"nonlinearity": activation} if kind == "RNN" else {}
        net = exact(getattr(torch.nn, kind)(inputs, hidden, layers, bias=bias, batch_first=True, bidirectional=both, **extra))
        x = normal(batch, steps, inputs).requires_grad_()
        tensors = {"x": x}
        states = layers * (2 if both else 1)
        first = None
        if k % 3:
            first = [normal(states, batch, hidden).requires_grad_() for _ in range(2 if kind == "LSTM" else 1)]
            tensors.update(zip(("h0", "c0"), first))
        given = None if first is None else tuple(first) if kind == "LSTM" else first[0]
        if k // 4 % 2:
            lengths = torch.tensor([r.randint(1, steps) for _ in range(batch)])
            lengths[r.randrange(batch)] = steps
            tensors["lengths"] = lengths
            packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            y, last = net(packed, given)
            y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=steps)
        else:
            y, last = net(x, given)
        last = last if kind == "LSTM" else (last,)
        results = dict(zip(("y", "h", "c"), (y,) + tuple(last)))
        upstream = {name: normal(*t.shape) for name, t in results.items()}
        sum((t * upstream[name]).sum() for name, t in results.items()).backward()
        tensors.update(results)
        tensors.update({"d" + name: t for name, t in upstream.items()})
        tensors["d_x"] = x.grad
        if first is not None:
            tensors.update({"d_" + name: t.grad for name, t in zip(("h0", "c0"), first)})
        tensors.update(weights_of(net))
        tensors.update(gradients_of(net, hidden))
        file.case(kind, tensors, {"width": inputs, "outputs": hidden, "layers": layers, "bidirectional": both, "bias": bias,
                                  "activation": activation})
    return file


def embedding(n):
    file = File()
    for k in range(n):
        r = random.Random(k)
        vocabulary, size, padding = r.randint(2, 9), r.choice([1, 3, 8]), r.choice([None, 0])
        shape = r.choice([(1,), (5,), (2, 3), (2, 3, 2)])
        net = exact(torch.nn.Embedding(vocabulary, size, padding_idx=padding))
        index = torch.randint(0, vocabulary, shape)
        y = net(index)
        dy = normal(*y.shape)
        y.backward(dy)
        tensors = {"index": index, "y": y, "dy": dy, **weights_of(net), **gradients_of(net)}
        file.case("Embedding", tensors, {"vocabulary": vocabulary, "size": size, "padded": padding is not None})
    return file


def attention(n):
    """scaled_dot_product_attention: q (N, heads, Tq, D), k and v (N, groups, Tk, D)."""
    file = File()
    for k in range(n):
        r = random.Random(k)
        batch, heads, queries, keys, width, out = (r.choice([1, 2]), r.choice([1, 2, 4]), r.choice([1, 3, 9]),
                                                   r.choice([1, 4, 11]), r.choice([1, 4, 8]), r.choice([1, 3, 8]))
        groups = heads // 2 if k % 3 == 2 and heads > 1 else heads
        causal = k % 4 == 1
        keys = queries if causal else keys
        q = normal(batch, heads, queries, width).requires_grad_()
        key = normal(batch, groups, keys, width).requires_grad_()
        v = normal(batch, groups, keys, out).requires_grad_()
        tensors, mask = {"q": q, "k": key, "v": v}, None
        if k % 4 == 2:
            mask = normal(*r.choice([(queries, keys), (batch, 1, 1, keys), (batch, heads, queries, keys)]))
            tensors["mask"] = mask
        if k % 4 == 3:
            lengths = torch.tensor([r.randint(1, keys) for _ in range(batch)])
            tensors["lengths"] = lengths
            mask = torch.zeros(batch, 1, 1, keys, dtype=F64)
            for i in range(batch):
                mask[i, :, :, lengths[i]:] = float("-inf")
        scale = 0.7 if k % 5 == 0 else None
        y = F.scaled_dot_product_attention(q, key, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=groups != heads)
        dy = normal(*y.shape)
        y.backward(dy)
        tensors.update({"y": y, "dy": dy, "d_q": q.grad, "d_k": key.grad, "d_v": v.grad})
        file.case("attention", tensors, {"causal": causal, **({"scale": scale} if scale else {})})
    return file


def mask_of(lengths, steps):
    """True where a key is to be left out, as PyTorch's key_padding_mask."""
    return torch.arange(steps)[None, :] >= lengths[:, None]


def multihead(n):
    file = File()
    for k in range(n):
        r = random.Random(k)
        batch, steps, heads = r.choice([1, 2, 3]), r.choice([1, 4, 7]), r.choice([1, 2, 4])
        size, bias, causal, cross = heads * r.choice([1, 2, 4]), k % 5 != 4, k % 3 == 1, k % 3 == 2
        net = exact(torch.nn.MultiheadAttention(size, heads, bias=bias, batch_first=True))
        x = normal(batch, steps, size).requires_grad_()
        tensors = {"x": x}
        memory = x
        if cross:
            memory = normal(batch, r.choice([1, 5]), size).requires_grad_()
            tensors["memory"] = memory
        padding = None
        if k % 2:
            lengths = torch.tensor([r.randint(1, memory.shape[1]) for _ in range(batch)])
            tensors["lengths"], padding = lengths, mask_of(lengths, memory.shape[1])
        mask = torch.triu(torch.ones(steps, steps, dtype=torch.bool), 1) if causal else None
        y, weights = net(x, memory, memory, key_padding_mask=padding, attn_mask=mask, average_attn_weights=False)
        dy = normal(*y.shape)
        y.backward(dy)
        tensors.update({"y": y, "dy": dy, "d_x": x.grad, "weights": weights})
        if cross:
            tensors["d_memory"] = memory.grad
        tensors.update({**weights_of(net), **gradients_of(net)})
        file.case("MultiHeadAttention", tensors, {"size": size, "heads": heads, "bias": bias, "causal": causal})
    return file


def transformer(n):
    """TransformerEncoderLayer and TransformerDecoderLayer."""
    file = File()
    for k in range(n):
        r = random.Random(k)
        batch, steps, heads = r.choice([1, 2, 3]), r.choice([1, 4, 6]), r.choice([1, 2])
        size, inner, first = heads * r.choice([2, 4]), r.choice([3, 8]), k // 2 % 2 == 1
        activation, causal = ("relu", "gelu")[k // 4 % 2], k % 3 == 1
        decoder = k % 2 == 1
        make = torch.nn.TransformerDecoderLayer if decoder else torch.nn.TransformerEncoderLayer
        net = exact(make(size, heads, inner, dropout=0.0, activation=activation, batch_first=True, norm_first=first))
        x = normal(batch, steps, size).requires_grad_()
        tensors = {"x": x}
        mask = torch.triu(torch.ones(steps, steps, dtype=torch.bool), 1) if causal else None
        padding = None
        if k % 5 > 2:
            width = 5 if decoder else steps
            lengths = torch.tensor([r.randint(1, width) for _ in range(batch)])
            tensors["lengths"], padding = lengths, mask_of(lengths, width)
        if decoder:
            memory = normal(batch, 5, size).requires_grad_()
            tensors["memory"] = memory
            y = net(x, memory, tgt_mask=mask, memory_key_padding_mask=padding)
        else:
            y = net(x, src_mask=mask, src_key_padding_mask=padding)
        dy = normal(*y.shape)
        y.backward(dy)
        tensors.update({"y": y, "dy": dy, "d_x": x.grad})
        if decoder:
            tensors["d_memory"] = memory.grad
        tensors.update({**weights_of(net), **gradients_of(net)})
        file.case("TransformerDecoderLayer" if decoder else "TransformerEncoderLayer", tensors,
                  {"size": size, "heads": heads, "inner": inner, "norm_first": first, "activation": activation,
                   "causal": causal})
    return file


def conv1d(n):
    file = File()
    for k in range(n):
        r = random.Random(k)
        groups = r.choice([1, 1, 2])
        inputs, outputs, kernel = groups * r.choice([1, 3, 8]), groups * r.choice([1, 2, 16]), r.choice([1, 2, 3, 5])
        stride, dilation, padding = r.choice([1, 2, 3]), r.choice([1, 2]), r.choice([0, 1, 2])
        batch, steps, bias = r.choice([1, 3]), r.choice([9, 12, 20]), r.random() < 0.7
        if k % 3 == 2:
            name, more = "ConvTranspose1d", {"output_padding": r.randrange(max(stride, dilation))}
            net = torch.nn.ConvTranspose1d(inputs, outputs, kernel, stride, padding, groups=groups, bias=bias,
                                           dilation=dilation, **more)
        else:
            name, more = "Conv1d", {}
            net = torch.nn.Conv1d(inputs, outputs, kernel, stride, padding, dilation, groups, bias)
        exact(net)
        x = normal(batch, inputs, steps).requires_grad_()
        y = net(x)
        dy = normal(*y.shape)
        y.backward(dy)
        file.case(name, {"x": x, "y": y, "dy": dy, "d_x": x.grad, **weights_of(net), **gradients_of(net)},
                  {"width": inputs, "outputs": outputs, "kernel": kernel, "stride": stride, "padding": padding,
                   "dilation": dilation, "groups": groups, "bias": bias, **more})
    return file


def ctc(n):
    """logits (T, N, V), of which log_softmax is taken: PyTorch's gradient to log-probabilities is right only behind it.
    Labels are counted from 0, and 0 is blank."""
    file = File()
    for k in range(n):
        r = random.Random(k)
        steps, batch, classes, most = r.choice([3, 6, 12]), r.choice([1, 2, 4]), r.choice([2, 4, 7]), r.choice([1, 3])
        logits = normal(steps, batch, classes).requires_grad_()
        labels = torch.randint(1, classes, (batch, most))
        input_lengths = torch.tensor([r.randint(2, steps) for _ in range(batch)])
        target_lengths = torch.tensor([r.randint(0, most) for _ in range(batch)])
        reduction, zero = ("mean", "sum", "none")[k % 3], k % 4 < 2
        y = F.ctc_loss(F.log_softmax(logits, 2), labels, input_lengths, target_lengths, reduction=reduction, zero_infinity=zero)
        dy = normal(*y.shape)
        y.backward(dy)
        if not torch.isfinite(y).all():  # the gradient of an infinite loss is NaN in PyTorch
            continue
        file.case("ctc_loss", {"logits": logits, "labels": labels, "input_lengths": input_lengths,
                               "target_lengths": target_lengths, "y": y, "dy": dy, "d_logits": logits.grad},
                  {"reduction": reduction, "zero_infinity": zero})
    return file


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    torch.manual_seed(16)
    torch.set_default_dtype(F64)
    for kind in ("LSTM", "GRU", "RNN"):
        recurrent(kind, 24).write(folder, kind.lower() + ".safetensors")
    embedding(24).write(folder, "embedding.safetensors")
    attention(32).write(folder, "attention.safetensors")
    multihead(24).write(folder, "multihead.safetensors")
    transformer(48).write(folder, "transformer.safetensors")
    conv1d(48).write(folder, "conv1d.safetensors")
    ctc(40).write(folder, "ctc.safetensors")


if __name__ == "__main__":
    main()
