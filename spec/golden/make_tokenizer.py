# SPDX-License-Identifier: MIT
"""Writes tokenizer.json and tokenizer_ids.json beside this file: a byte-pair tokenizer that Hugging Face's library trains,
and the numbers that it gives to texts of many languages. Needs tokenizers 0.20 or later from PyPI:

    python3 spec/golden/make_tokenizer.py
"""
import json
import os
import random

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
TEXTS = [
    "The quick brown fox doesn't jump over the lazy dogs; they're asleep, I'll bet.",
    "Grüße aus Köln: süß, größer, Straße! Ça va déjà, naïve façade, œuvre.",
    "Быстрая коричневая лиса прыгает через ленивую собаку.",
    "日本語のテキストと中文文本，한국어 텍스트도 있습니다。",
    "नमस्ते दुनिया १२३ مرحبا بالعالم ٤٥٦ שלום עולם",
    "x = 3.14159; y=-2e10  # comment\n\tif (a<b) { return `c`; }\r\n",
    "  leading, trailing  \n\n  and\u00a0no-break\u3000wide  ",
    "emoji 😀👩‍👩‍👧 e\u0301 ½Ⅷ² _under_score_ 2024-01-31",
    "<|endoftext|>a<|endoftext|> <tool>b</tool>",
    "", " ", "'s 'S 're've'll'd'm't", "\x00\x7f\x1b[0m",
]


def chance(seed):
    r = random.Random(seed)
    ranges = [(32, 126), (32, 126), (160, 591), (0x400, 0x4FF), (0x4E00, 0x4EFF), (0x1F600, 0x1F64F), (9, 13)]
    return "".join(chr(r.randint(*r.choice(ranges))) for _ in range(30))


t = Tokenizer(models.BPE())
t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
t.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=["<|endoftext|>"], show_progress=False,
                              initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
t.train_from_iterator(TEXTS, trainer)
t.add_tokens([AddedToken("<tool>", normalized=False)])
t.save(os.path.join(HERE, "tokenizer.json"), pretty=False)
texts = TEXTS + [chance(seed) for seed in range(40)]
with open(os.path.join(HERE, "tokenizer_ids.json"), "w", encoding="utf-8") as f:
    json.dump([{"text": x, "ids": t.encode(x).ids} for x in texts], f, separators=(",", ":"))
    f.write("\n")
