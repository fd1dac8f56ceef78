#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""PyTorch's side of the benchmarks (serve.py); or, as `pytorch.py --train STEPS`, trains with as many images in memory as
MNIST has, for a look at the memory. Kinds: those of bench/ours, which describes them, and check, which decodes one
point with the weights in a folder and answers with the pixels. layout=last stands for channels_last, convs=plain for
stride-1 transposed convolutions that are written as convolutions, bf16=1 for autocast, compile=1 for torch.compile in
its default mode, compile=2 for max-autotune, both warm; a remark behind the times says what it left to the interpreter.

Where PyTorch has a choice, the faster one is taken: symmetric padding (Keras' odd pixel at the end would cost a copy),
flattening in the order that memory has, losses fused.
"""
import os
import signal
import sys
import time

import numpy
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from pytorch_nets import NETS, PARAMETERS, STEPS
from serve import measure, serve

SMALL_CALLS = 1000
COMPILE_SECONDS = 300


class Fold(nn.Module):
    """(N, 12544) -> (N, 64, 14, 14), a view in the memory order of the layout."""

    def __init__(self, last):
        super().__init__()
        self.last = last

    def forward(self, x):
        return x.view(-1, 14, 14, 64).permute(0, 3, 1, 2) if self.last else x.view(-1, 64, 14, 14)


class Unfold(nn.Module):
    """The way back."""

    def __init__(self, last):
        super().__init__()
        self.last = last

    def forward(self, x):
        return (x.permute(0, 2, 3, 1) if self.last else x).reshape(x.shape[0], -1)


def decoder(last, plain, sigmoid):
    kind = nn.Conv2d if plain else nn.ConvTranspose2d
    layers = [nn.Linear(2, 128), nn.ReLU(inplace=True), nn.Linear(128, 12544), nn.ReLU(inplace=True), Fold(last),
              nn.ConvTranspose2d(64, 32, 3, stride=2, padding=1, output_padding=1), nn.ReLU(inplace=True),
              kind(32, 32, 3, padding=1), nn.ReLU(inplace=True), kind(32, 1, 3, padding=1)]
    return nn.Sequential(*layers, *([nn.Sigmoid()] if sigmoid else []))


class VAE(nn.Module):
    """3,280,901 parameters: two convolutions and a strided one, 128 hidden units, latent size 2, and the mirror."""

    def __init__(self, last, plain):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(inplace=True), nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(inplace=True), Unfold(last),
            nn.Linear(12544, 128), nn.ReLU(inplace=True))
        self.mean, self.logvar = nn.Linear(128, 2), nn.Linear(128, 2)
        self.decoder = decoder(last, plain, sigmoid=False)

    def loss(self, x):
        h = self.encoder(x)
        mean, logvar = self.mean(h), self.logvar(h)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        y = self.decoder(z)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum()
        return (F.binary_cross_entropy_with_logits(y, x, reduction="sum") + kl) / len(x)


def settings(a):
    last = a.get("layout") == "last"
    return last, a.get("convs") == "plain", torch.channels_last if last else torch.contiguous_format


def autocast(a):
    return torch.autocast("cpu", torch.bfloat16, enabled=a.get("bf16") == 1)


class Trainer:
    def __init__(self, a):
        last, plain, self.layout = settings(a)
        torch.manual_seed(1)
        self.a, self.model = a, VAE(last, plain).to(memory_format=self.layout)
        self.loss = compiled(self.model.loss, a)
        assert sum(p.numel() for p in self.model.parameters()) == 3280901
        self.optimizer = torch.optim.RMSprop(self.model.parameters(), 1e-3, alpha=0.9, eps=1e-7, foreach=True)

    def step(self, x):
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.a):
            loss = self.loss(x)
        loss.backward()
        self.optimizer.step()
        return loss.item()


def norm(channels, flat):
    kind = nn.BatchNorm1d if flat else nn.BatchNorm2d
    return [kind(channels, eps=1e-3, momentum=0.01), nn.ReLU(inplace=True)]


class Gan:
    """The networks of scripts/gan.lua with latent size 64, and a step of both."""

    def __init__(self, a):
        last, _, self.layout = settings(a)
        torch.manual_seed(1)
        self.generator = nn.Sequential(
            nn.Linear(64, 128), *norm(128, True), nn.Linear(128, 12544), *norm(12544, True), Fold(last),
            nn.ConvTranspose2d(64, 32, 3, stride=2, padding=1, output_padding=1), *norm(32, False),
            nn.ConvTranspose2d(32, 32, 3, padding=1), *norm(32, False),
            nn.ConvTranspose2d(32, 1, 3, padding=1), nn.Sigmoid()).to(memory_format=self.layout)
        layers = []
        for cin, cout in ((1, 64), (64, 128), (128, 256)):
            layers += [nn.Conv2d(cin, cout, 5, stride=2, padding=2), nn.LeakyReLU(0.2, inplace=True), nn.Dropout(0.4)]
        self.discriminator = nn.Sequential(
            *layers, Unfold(last), nn.Linear(4096, 1024), nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(1024, 1)).to(memory_format=self.layout)
        self.autocast = autocast(a)
        self.make, self.judge = compiled(self.generator, a), compiled(self.discriminator, a)
        assert sum(p.numel() for p in self.discriminator.parameters()) == 5222401
        self.optimizers = [torch.optim.Adam(net.parameters(), 2e-4, betas=(0.5, 0.999), fused=True)
                           for net in (self.generator, self.discriminator)]

    def update(self, optimizer, loss):
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    def against(self, y, label):
        return F.binary_cross_entropy_with_logits(y, torch.full_like(y, label))

    def step(self, x):
        of_g, of_d = self.optimizers
        with self.autocast:
            with torch.no_grad():
                fake = self.make(torch.randn(len(x), 64))
            found = (self.against(self.judge(x), 0.9) + self.against(self.judge(fake), 0.0)) / 2
        loss = self.update(of_d, found)
        self.discriminator.requires_grad_(False)
        with self.autocast:
            found = self.against(self.judge(self.make(torch.randn(len(x), 64))), 1.0)
        loss += self.update(of_g, found)
        self.discriminator.requires_grad_(True)
        return loss


models = {}


MODES = {1: "default", 2: "max-autotune"}


def compiled(function, a):
    return torch.compile(function, mode=MODES[a["compile"]]) if a.get("compile") in MODES else function


def clipped_step(net, optimizer, loss, most):
    """A training step with the gradients clipped at a norm; gives the loss."""
    def step():
        optimizer.zero_grad(set_to_none=True)
        found = loss()
        found.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), most)
        optimizer.step()
        return found.item()
    return step


def kept(make, a):
    key = make.__name__, *settings(a), a.get("bf16"), a.get("compile"), a.get("compile") and a["threads"]
    if key not in models:
        models[key] = make(a)
    return models[key]


def step(a):
    trainer = kept(Trainer, a)
    x = torch.rand(int(a["batch"]), 1, 28, 28).to(memory_format=trainer.layout)
    return lambda: trainer.step(x), 1


def gan(a):
    trainer = kept(Gan, a)
    x = torch.rand(int(a["batch"]), 1, 28, 28).to(memory_format=trainer.layout)
    return lambda: trainer.step(x), 1


def train_net(name):
    """Training steps of a network of pytorch_nets.py by Adam."""
    def make(a):
        torch.manual_seed(1)
        net, loss = NETS[name](a, settings(a)[2])
        assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name]
        adam, found = torch.optim.Adam(net.parameters(), 1e-3, fused=True), compiled(loss, a)

        def run():
            for _ in range(STEPS[name]):
                adam.zero_grad(set_to_none=True)
                with autocast(a):
                    loss = found()
                loss.backward()
                adam.step()
            return loss.item()
        return run, STEPS[name]
    return make


def conv(a):
    """One convolution, forward (form=plain by conv2d, without the ReLU; packed as torch.compile calls oneDNN for
    inference, with ReLU and the weights in oneDNN's layout; blocked with images in it, too), or one of its gradients."""
    layout, n, cin, cout, k, groups, form = settings(a)[2], *(int(a[name]) for name in (
        "n", "cin", "cout", "kernel", "groups")), a.get("form", "plain")
    stride, pad = [int(a["stride"])] * 2, [int(a["pad"])] * 2
    x, w = torch.rand(n, cin, int(a["h"]), int(a["w"])), torch.rand(cout, cin // groups, k, k)
    x, w, b = x.to(memory_format=layout), w.to(memory_format=layout), torch.rand(cout)
    if a.get("bf16") == 1:
        x, w, b = x.bfloat16(), w.bfloat16(), b.bfloat16()
    rest = stride, pad, [1, 1], groups
    y = F.conv2d(x, w, b, *rest)
    if a["map"] != "forward":
        mask = [a["map"] == "input", a["map"] == "weight", False]
        return lambda: torch.ops.aten.convolution_backward(y, x, w, None, *rest[:3], False, [0, 0], groups, mask), 1
    if form == "packed":
        w = torch._C._nn.mkldnn_reorder_conv2d_weight(w.to_mkldnn(), pad, stride, [1, 1], groups, list(x.shape))

        def run():
            torch.ops.mkldnn._convolution_pointwise(x, w, b, pad, stride, [1, 1], groups, "relu", [], "")
    else:
        if form == "blocked":
            w = torch._C._nn.mkldnn_reorder_conv2d_weight(w.to_mkldnn(), pad, stride, [1, 1], groups, list(x.shape))
            x, b = x.to_mkldnn(), b.to_mkldnn()

        def run():
            torch.conv2d(x, w, b, *rest)

    def forward():
        with torch.inference_mode():
            run()
    return forward, 1


def make_decoder(a):
    last, plain, layout = settings(a)
    return decoder(last, plain, sigmoid=True).eval().to(memory_format=layout)


def decode(a):
    model, z = kept(make_decoder, a), torch.randn(int(a["batch"]), 2)

    def run():
        with torch.inference_mode(), autocast(a):
            model(z)
    return run, 1


def attention(a):
    """Heads before time, as PyTorch wants them; dy is given, so that backward is that of attention alone."""
    shape = [int(a[name]) for name in ("rows", "heads", "length", "width")]
    leaves = [torch.randn(shape, requires_grad=a["map"] == "step") for _ in range(3)]
    dy, causal = torch.randn(shape), a["causal"] == 1

    if a.get("bf16") == 1:
        dy = dy.bfloat16()

    def forward():
        with torch.inference_mode(), autocast(a):
            F.scaled_dot_product_attention(*leaves, is_causal=causal)

    def with_gradients():
        with autocast(a):
            y = F.scaled_dot_product_attention(*leaves, is_causal=causal)
        torch.autograd.grad(y, leaves, dy)
    return (forward if a["map"] == "forward" else with_gradients), 1


def recurrent(a):
    kind, rows, length, hidden = a["kind"], int(a["rows"]), int(a["length"]), int(a["hidden"])
    net = getattr(torch.nn, kind)(int(a["inputs"]), hidden, batch_first=True)
    called = compiled(net, a)
    x = torch.randn(rows, length, int(a["inputs"]), requires_grad=a["map"] == "step")
    dy, leaves = torch.randn(rows, length, hidden), [*net.parameters(), x]

    def forward():
        with torch.no_grad(), autocast(a):
            called(x)

    def with_gradients():
        with autocast(a):
            y = called(x)[0]
        torch.autograd.grad(y, leaves, dy.to(y.dtype))
    return (forward if a["map"] == "forward" else with_gradients), 1


def embedding(a):
    sparse = a["sparse"] == 1
    table = nn.Embedding(int(a["vocabulary"]), int(a["width"]), sparse=sparse)
    optimizer = torch.optim.SparseAdam(table.parameters()) if sparse else torch.optim.Adam(table.parameters(), fused=True)
    index = torch.randint(int(a["vocabulary"]), (int(a["numbers"]),))

    def run():
        table(index).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return run, 1


class CachedBlock(nn.Module):
    """A layer of a transformer that normalizes first, for one step at a time: keys and values go into a cache that is
    there already, of which attention sees a view."""

    def __init__(self, width, heads, length):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.keys, self.values = (torch.randn(1, heads, length, width // heads) for _ in range(2))

    def forward(self, x, t):
        q, k, v = self.qkv(self.norm1(x)).view(1, 1, 3, self.heads, -1).transpose(1, 3).unbind(2)
        self.keys[:, :, t:t + 1] = k
        self.values[:, :, t:t + 1] = v
        y = F.scaled_dot_product_attention(q, self.keys[:, :, :t + 1], self.values[:, :, :t + 1])
        x = x + self.proj(y.transpose(1, 2).reshape(1, 1, -1))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def writing(a):
    layers, heads, width, vocabulary, first, length = (
        int(a[name]) for name in ("layers", "heads", "width", "vocabulary", "from", "length"))
    embed, positions = nn.Embedding(vocabulary, width), nn.Embedding(first + length, width)
    blocks = nn.ModuleList(CachedBlock(width, heads, first + length) for _ in range(layers))
    norm, out = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
    if a.get("bf16") == 1:  # all of it, which autocast would do for each word
        for part in embed, positions, blocks, norm, out:
            part.bfloat16()
        for block in blocks:
            block.keys, block.values = block.keys.bfloat16(), block.values.bfloat16()

    def run():
        with torch.inference_mode():
            word = torch.zeros(1, 1, dtype=torch.int64)
            for t in range(first, first + length):
                x = embed(word) + positions.weight[t]
                for block in blocks:
                    x = block(x, t)
                word = out(norm(x)).argmax(-1)
    return run, length


class RotaryBlock(nn.Module):
    """A layer of a transformer with the norm first and rotary positions; heads before time."""

    def __init__(self, width, heads, context):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        half = width // heads // 2
        angles = torch.arange(context).outer(10000 ** (-torch.arange(half) / half)).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin() * torch.tensor([-1.0, 1.0]).repeat_interleave(half))

    def turned(self, x):
        return x * self.cos + x.roll(x.shape[-1] // 2, -1) * self.sin

    def forward(self, x):
        n, t, width = x.shape
        q, k, v = (y.transpose(1, 2) for y in self.qkv(self.norm1(x)).view(n, t, 3, self.heads, -1).unbind(2))
        y = F.scaled_dot_product_attention(self.turned(q), self.turned(k), v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(n, t, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Recurrent(nn.Module):
    def __init__(self, width, layers):
        super().__init__()
        self.core = nn.LSTM(width, width, layers, batch_first=True)

    def forward(self, x):
        return self.core(x)[0]


def language(a):
    layers, heads, width, context, batch, vocabulary = (
        int(a[name]) for name in ("layers", "heads", "width", "context", "batch", "vocabulary"))
    if a["model"] == "lstm":
        inner = [Recurrent(width, layers)]
    else:
        inner = [RotaryBlock(width, heads, context) for _ in range(layers)] + [nn.LayerNorm(width)]
    net = nn.Sequential(
        nn.Embedding(vocabulary, width), *inner, nn.Linear(width, vocabulary, bias=a["model"] == "lstm"))
    x, y = torch.randint(vocabulary, (batch, context)), torch.randint(vocabulary, (batch * context,))
    adam = torch.optim.AdamW(net.parameters(), 1e-4, fused=True)
    found = compiled(lambda: F.cross_entropy(net(x).flatten(0, 1), y), a)

    def loss():
        with autocast(a):
            return found()

    def forward():
        with torch.no_grad():
            loss()

    return (forward if a["map"] == "forward" else clipped_step(net, adam, loss, 1.0)), 1


class BothWays(nn.Module):
    """An LSTM in both directions over rows of several lengths, (N, T, inputs) -> (N, T, 2 * size)."""

    def __init__(self, inputs, size, packed):
        super().__init__()
        self.packed = packed
        if packed:
            self.core = nn.LSTM(inputs, size, batch_first=True, bidirectional=True)
        else:
            self.there, self.back = (nn.LSTM(inputs, size, batch_first=True) for _ in range(2))

    def forward(self, x, lengths):
        steps = x.shape[1]
        if self.packed:
            y, _ = self.core(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
            return pad_packed_sequence(y, batch_first=True, total_length=steps)[0]
        at = torch.arange(steps)
        turned = torch.where(at < lengths[:, None], lengths[:, None] - 1 - at, at)[:, :, None]
        y, _ = self.back(x.gather(1, turned.expand(x.shape)))
        return torch.cat((self.there(x)[0], y.gather(1, turned.expand(y.shape))), 2)


class Reader(nn.Module):
    """The network of scripts/qa_reader_model.lua, layer by layer."""
    heads = 4

    def __init__(self, words, letters, shapes, size, packed):
        super().__init__()
        width = 2 * size
        self.words, self.letters = nn.Embedding(words, 100), nn.Embedding(letters, 16)
        self.spelling = nn.Conv1d(16, 64, 5, padding=2)
        self.encoder = BothWays(164 + shapes, size, packed)
        self.query, self.key, self.own, self.seen, self.both, self.look = (nn.Linear(width, width) for _ in range(6))
        self.match, self.mix = nn.Linear(6 + shapes, width), nn.Linear(2 * width, width)
        self.first, self.second = (BothWays(width, size, packed) for _ in range(2))
        self.weigh = nn.Linear(width, 1)
        self.start, self.stop = nn.Linear(width, 2 * width), nn.Linear(3 * width, 2 * width)
        self.dropout = nn.Dropout(0.2)

    def spell(self, b):
        word = b["word"].masked_fill(torch.rand(b["word"].shape) < 0.1, 1)
        letters = self.spelling(self.letters(b["letters"]).transpose(1, 2)).amax(2).relu()
        return torch.cat((self.words(word), letters, b["shape"]), 1)

    def meet(self, b):
        rows, row, p_at, q_at = self.spell(b), b["row"], b["p"], b["q"]
        p = self.dropout(self.encoder(self.dropout(rows[p_at]), b["p_lengths"]))
        q = self.dropout(self.encoder(self.dropout(rows[q_at]), b["q_lengths"]))

        def heads(x):
            return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)
        seen = F.scaled_dot_product_attention(heads(self.query(p).relu()[row]), heads(self.key(q).relu()), heads(q),
                                              attn_mask=inside(b["q_lengths"], q)[:, None, None])
        found = torch.stack([(b[name][p_at][row][:, :, None] == b[name][q_at][:, None]).any(2)
                             for name in ("lower", "stem", "prefix")], 2).float()
        shape = b["shape"][p_at][row]
        seen = seen.transpose(1, 2).flatten(2)
        x = (self.own(p)[row] + self.seen(seen) + self.both(p[row] * seen)
             + self.match(torch.cat((found, found * shape[:, :, :1], shape), 2)))
        return self.dropout(x.relu()), q

    def forward(self, b):
        x, q = self.meet(b)
        lengths = b["p_lengths"][b["row"]]
        one = self.first(x, lengths)
        x, here = self.dropout(one), inside(lengths, x)
        seen = F.scaled_dot_product_attention(*(y[:, None] for y in (self.look(x), x, x)),
                                              attn_mask=here[:, None, None])[:, 0]
        x = x + self.dropout(self.mix(torch.cat((seen, x * seen), 2)).relu())
        m = self.dropout(torch.cat((one, self.second(self.dropout(x), lengths)), 2))

        def scores(u):
            return (m @ u[:, :, None]).squeeze(2).masked_fill(~here, -torch.inf)
        weights = self.weigh(q).squeeze(2).masked_fill(~inside(b["q_lengths"], q), -torch.inf).softmax(1)
        asked = (weights[:, None] @ q).squeeze(1)
        start = scores(self.start(asked))
        begun = (start.softmax(1)[:, None] @ m).squeeze(1)
        return start, scores(self.stop(torch.cat((asked, begun), 1)))


def inside(lengths, x):
    """Which of the steps of x (N, T, C) are words (N, T)."""
    return torch.arange(x.shape[1]) < lengths[:, None]


def reader(a):
    size, words, letters, paragraphs, questions, length, kinds = (
        int(a[name]) for name in ("size", "words", "letters", "paragraphs", "questions", "length", "kinds"))
    b = {"p_lengths": length - torch.arange(paragraphs), "q_lengths": 7 + 5 * torch.arange(questions) % 15,
         "row": torch.arange(questions) * paragraphs // questions, "word": torch.randint(words, (kinds,)),
         "letters": torch.randint(letters, (kinds, 12)), "shape": torch.rand(kinds, 5)}
    b["p"], b["q"] = (torch.randint(kinds, (len(n), int(n.max()))) for n in (b["p_lengths"], b["q_lengths"]))
    for name in "lower", "stem", "prefix":
        b[name] = torch.randint(kinds, (kinds,))
    start, stop = torch.randint(7, (2, questions))
    net = Reader(words, letters, 5, size, a.get("packed") == 1)
    adam = torch.optim.Adam(net.parameters(), 1e-3, fused=True)

    def score():
        first, last = net(b)
        return F.cross_entropy(first, start) + F.cross_entropy(last, stop)
    found = compiled(score, a)

    def loss():
        with autocast(a):
            return found()

    return clipped_step(net, adam, loss, 5.0), 1


def small(a):
    x, y = torch.tensor([1.0, 2, 3, 4]), torch.zeros(4)

    def add():
        for _ in range(SMALL_CALLS):
            x + y

    def add_():
        for _ in range(SMALL_CALLS):
            x.add_(y)

    def relu():
        for _ in range(SMALL_CALLS):
            x.relu()
    return {"add": add, "add_": add_, "relu": relu}[a["op"]], SMALL_CALLS


def chain(a):
    x, b, nodes = torch.ones(4, requires_grad=True), torch.ones(4), int(a["nodes"])

    def run():
        y = x
        for _ in range(nodes // 2):
            y = (y + b).relu()
        y.sum().backward()
        x.grad = None
    return run, nodes


def check(a):
    """Pixels of the point (x, y) with the weights of a folder, to see that the network is the same.

    Keras cuts the last row and column of the first transposed convolution, output_padding the first ones. So this
    network is ours upside down and mirrored: all kernels and the picture are flipped.
    """
    last, plain, layout = settings(a)
    model = make_decoder(a)

    def load(name):
        return torch.from_numpy(numpy.load(f"{a['folder']}/{name}.npy"))

    def kernel(name, transposed):
        w = load(name + ".weight")  # (h, w, out, in)
        return w.flip(0, 1).permute(3, 2, 0, 1) if transposed else w.permute(2, 3, 0, 1)
    with torch.no_grad():
        model[0].weight.copy_(load("dense1.weight").T)
        model[0].bias.copy_(load("dense1.bias"))
        w, b = load("dense2.weight").T.reshape(14, 14, 64, 128), load("dense2.bias").reshape(14, 14, 64)
        order = (0, 1, 2) if last else (2, 0, 1)
        model[2].weight.copy_(w.flip(0, 1).permute(*order, 3).reshape(-1, 128))
        model[2].bias.copy_(b.flip(0, 1).permute(order).reshape(-1))
        for index, name, transposed in (5, "up1", True), (7, "up2", not plain), (9, "up3", not plain):
            model[index].weight.copy_(kernel(name, transposed))
            model[index].bias.copy_(load(name + ".bias"))
        return model(torch.tensor([[a["x"], a["y"]]])).flip(2, 3).flatten().tolist()


KINDS = {"conv": conv, "step": step, "gan": gan, "decoder": decode, "attention": attention, "recurrent": recurrent,
         "embedding": embedding, "writing": writing, "language": language, "reader": reader, "small": small,
         "chain": chain, **{name: train_net(name) for name in NETS}}
warm, broken = {}, {}  # what torch.compile has made, by request; why it did not take all, by kind


def give_up(*_):
    raise TimeoutError(f"not compiled within {COMPILE_SECONDS} s")


def compile_warm(kind, a):
    """What to time, its count, and why a part of it runs as it is; kept for later turns."""
    key = kind, *((name, a[name]) for name in sorted(a) if name not in ("seconds", "clock"))
    if key not in warm:
        from torch._dynamo import config as dynamo, utils
        from torch._inductor import config
        dynamo.recompile_limit = dynamo.accumulated_recompile_limit = 1000
        config.cpp.threads = int(a["threads"])  # otherwise the files of another number of threads would be taken
        utils.counters.clear()
        f, count = KINDS[kind](a)
        signal.signal(signal.SIGALRM, give_up)
        signal.alarm(COMPILE_SECONDS)
        try:
            f()
        finally:
            signal.alarm(0)
        breaks = [" ".join(text.split("\n")[0].split()) for text in utils.counters["graph_break"]]
        if breaks:  # said once, however many settings come to the same place
            broken[kind] = f"graph break: {breaks[0]}"
        warm[key] = f, count, broken.get(kind, "")
    return warm[key]


def answer(kind, a):
    torch.set_num_threads(int(a.get("threads", 1)))
    if kind == "check":
        return check(a), ""
    f, count, remark = compile_warm(kind, a) if a.get("compile") in MODES else (*KINDS[kind](a), "")
    clock = time.thread_time if a.get("clock") == "cpu" else time.perf_counter  # idle threads may spin
    return measure(f, clock, a["seconds"], count), remark


def train(steps):
    trainer, images = Trainer({}), torch.randint(256, (60000, 1, 28, 28), dtype=torch.uint8)
    for _ in range(steps):
        trainer.step(images[torch.randint(len(images), (128,))] / 255)


def main():
    if sys.argv[1:2] == ["--train"]:
        return train(int(sys.argv[2]))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.abspath("build/bench/inductor"))
    serve(f"PyTorch {torch.__version__}", answer)


if __name__ == "__main__":
    main()
