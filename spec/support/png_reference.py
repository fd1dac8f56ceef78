# SPDX-License-Identifier: MIT
"""What PNG files hold, by the format's description and by PIL, for the tests of load_png.

  png_reference.py make FOLDER         writes files of every colour type, depth, interlace, filter, gamma and profile
  png_reference.py values FOLDER...    writes beside each NAME.png what it holds, 8 bits (NAME.8.npy) and 16
                                       (NAME.16.npy), after comparing with PIL; a file that PIL refuses, or that is
                                       not valid, gets none; prints how many files there are
  png_reference.py golden              prints small files with their values as a Lua table

The decoder here shares no code with Marea, libpng or PIL; only zlib is common. In two places PIL's answers are not those
of the format: 16-bit gray comes as numbers of 16 bits, whose upper byte is taken; and tRNS, where PIL compares 8-bit
samples with the file's, of other depths, is left to the decoder, so that of such files colours only are compared.
"""
import io
import itertools
import os
import struct
import sys
import zlib

import numpy as np
from PIL import Image, ImageFile

ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by colour type
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


# ---- the format, written ----

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def paeth(a, b, c):
    p = a + b - c
    pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
    return a if pa <= pb and pa <= pc else b if pb <= pc else c


def predict(kind, a, b, c):
    return (0, a, b, (a + b) // 2, paeth(a, b, c))[kind]


def filtered(kind, row, above, step):
    out = bytearray([kind])
    for i, x in enumerate(row):
        a, c = (row[i - step], above[i - step]) if i >= step else (0, 0)
        out.append((x - predict(kind, a, above[i], c)) & 255)
    return bytes(out)


def packed(samples, depth):
    """Bytes of a row (width, samples)."""
    flat = samples.reshape(-1)
    if depth == 16:
        return flat.astype(">u2").tobytes()
    if depth == 8:
        return flat.astype("u1").tobytes()
    bits = "".join(format(int(v), "0%db" % depth) for v in flat)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8))


def encode(samples, color, depth, interlaced=False, filters=(0, 1, 2, 3, 4), before=(), pieces=1):
    """A file of samples (H, W, C); `before`: chunks between IHDR and IDAT; `pieces`: of IDAT."""
    height, width = samples.shape[:2]
    step = max(1, SAMPLES[color] * depth // 8)
    kinds, data = itertools.cycle(filters), b""
    for x, y, dx, dy in ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = samples[y::dy, x::dx]
        if part.size == 0:
            continue
        above = None
        for row in part:
            line = packed(row, depth)
            data += filtered(next(kinds), line, above or bytes(len(line)), step)
            above = line
    data = zlib.compress(data, 9)
    size = -(-len(data) // pieces)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    body = [chunk(b"IDAT", data[i:i + size]) for i in range(0, len(data), size)]
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(before) + b"".join(body) + chunk(b"IEND", b"")


# ---- the format, read ----

def chunks(data):
    at = 8
    while at < len(data):
        n, kind = struct.unpack(">I4s", data[at:at + 8])
        yield kind, data[at + 8:at + 8 + n]
        if kind == b"IEND":
            return
        at += n + 12


def unpacked(line, count, depth):
    if depth == 16:
        return np.frombuffer(line, ">u2", count).astype(int)
    bits = np.unpackbits(np.frombuffer(line, "u1")).reshape(-1, depth)[:count]
    return bits @ (1 << np.arange(depth)[::-1])


def decode(data):
    """samples (H, W, C) as numbers of the file's depth, colour type, depth, palette, tRNS."""
    found = {}
    for kind, body in chunks(data):
        found[kind] = found.get(kind, b"") + body if kind == b"IDAT" else found.get(kind, body)
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", found[b"IHDR"])
    n, raw, at = SAMPLES[color], zlib.decompress(found[b"IDAT"]), 0
    step = max(1, n * depth // 8)
    samples = np.zeros((height, width, n), int)
    for x, y, dx, dy in ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = samples[y::dy, x::dx]
        if part.size == 0:
            continue
        bytes_of_row = (part.shape[1] * n * depth + 7) // 8
        above = bytearray(bytes_of_row)
        for row in part:
            kind, line = raw[at], bytearray(raw[at + 1:at + 1 + bytes_of_row])
            at += 1 + bytes_of_row
            if kind:
                for i in range(bytes_of_row):
                    a, c = (line[i - step], above[i - step]) if i >= step else (0, 0)
                    line[i] = (line[i] + predict(kind, a, above[i], c)) & 255
            row[:] = unpacked(bytes(line), part.shape[1] * n, depth).reshape(-1, n)
            above = line
    return samples, color, depth, found.get(b"PLTE"), found.get(b"tRNS")


def is_valid(data):
    """The file is whole, and no pixel is beyond the palette, for which the format has no colour."""
    if b"IEND\xaeB`\x82" not in data:
        return False
    samples, color, _, palette, _ = decode(data)
    return color != 3 or samples.max(initial=0) < len(palette) // 3


def values(data):
    """(8 bits, 16 bits, has tRNS): what load_png is to give."""
    samples, color, depth, palette, trns = decode(data)
    if color == 3:
        rows = np.zeros((256, 3), int)
        rows[:len(palette) // 3] = np.frombuffer(palette, "u1").reshape(-1, 3)
        if trns is not None:
            alpha = np.full((256, 1), 255)
            alpha[:len(trns), 0] = np.frombuffer(trns, "u1")
            rows = np.concatenate([rows, alpha], 1)
        eight = rows[samples[..., 0]]
        return eight, eight * 257, trns is not None
    top = (1 << depth) - 1
    if trns is not None:
        key = np.array(struct.unpack(">%dH" % samples.shape[2], trns[:2 * samples.shape[2]])) & top
        alpha = (samples != key).any(-1, keepdims=True) * top
        samples = np.concatenate([samples, alpha], -1)
    sixteen = samples * 65535 // top
    return sixteen >> 8 if depth == 16 else samples * 255 // top, sixteen, trns is not None


def by_pil(data):
    """PIL's pixels (H, W, C), 8 bits, without tRNS; None when it refuses the file."""
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except Exception:
        return None
    kind = image.mode
    if kind.startswith("I"):
        return np.asarray(image)[..., None].astype(int) >> 8
    if kind == "1":
        image = image.convert("L")
    if kind == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if kind == "RGBA" and data[25] == 4:  # gray and alpha of 16 bits
        return np.asarray(image)[..., [0, 3]].astype(int)
    pixels = np.asarray(image).astype(int)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def compare(name, data):
    pil = by_pil(data)
    if pil is None or not is_valid(data):
        return None
    eight, sixteen, keyed = values(data)
    ours = eight[..., :pil.shape[-1]] if keyed and data[25] != 3 else eight
    if ours.shape != pil.shape or (ours != pil).any():
        raise SystemExit("%s: the decoder and PIL differ" % name)
    return eight, sixteen


# ---- the files ----

def profile():
    return chunk(b"iCCP", b"any\0\0" + zlib.compress(bytes(128)))


ABOUT = {  # chunks that must change nothing
    "plain": (),
    "gamma": (chunk(b"gAMA", struct.pack(">I", 100000)),),
    "dark": (chunk(b"gAMA", struct.pack(">I", 250000)), chunk(b"cHRM", struct.pack(">8I", *[31270] * 8))),
    "srgb": (chunk(b"sRGB", b"\1"), chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"pHYs", bytes(8) + b"\1")),
    "icc": (profile(), chunk(b"tEXt", b"Title\0x"), chunk(b"zTXt", b"T\0\0" + zlib.compress(bytes(100000)))),
}


SIZES = ((1, 1), (3, 2), (1, 9), (9, 1), (8, 8), (13, 33), (7, 5))
COLORS = 20  # of a palette, at most


def palette(random, depth, alpha):
    n = min(1 << depth, COLORS)
    parts = [chunk(b"PLTE", random.integers(0, 256, 3 * n, "u1").tobytes())]
    if alpha:
        parts.append(chunk(b"tRNS", random.integers(0, 256, max(1, n // 2), "u1").tobytes()))
    return parts


def kinds():
    for color, depths in DEPTHS.items():
        for depth in depths:
            for interlaced, alpha in itertools.product((False, True), repeat=2):
                if not alpha or color in (0, 2, 3):
                    yield color, depth, interlaced, alpha


def picture(random, shape, color, depth, interlaced, alpha, about, **more):
    top = min(1 << depth, COLORS) if color == 3 else 1 << depth
    samples = random.integers(0, top, shape + (SAMPLES[color],))
    before = list(ABOUT[about])
    if color == 3:
        before += palette(random, depth, alpha)
    elif alpha:
        before.append(chunk(b"tRNS", b"".join(struct.pack(">H", int(v)) for v in samples[0, 0])))
    if about == "srgb":
        before.insert(0, chunk(b"sBIT", bytes([min(depth, 8)] * (3 if color == 3 else SAMPLES[color]))))
    return encode(samples, color, depth, interlaced, before=before, **more)


def make(folder):
    random = np.random.default_rng(14)
    for color, depth, interlaced, alpha in kinds():
        name = "c%d_%02d_%s%s" % (color, depth, "i" if interlaced else "n", "_t" if alpha else "")
        for about in ABOUT:
            for height, width in SIZES if about == "plain" else SIZES[-2:]:
                data = picture(random, (height, width), color, depth, interlaced, alpha, about, pieces=1 + height % 3)
                with open("%s/%s_%s_%dx%d.png" % (folder, name, about, height, width), "wb") as f:
                    f.write(data)
        for kind in range(5):
            data = picture(random, (6, 11), color, depth, interlaced, alpha, "plain", filters=(kind,))
            with open("%s/%s_filter%d.png" % (folder, name, kind), "wb") as f:
                f.write(data)
    for mode, bands in (("1", 1), ("L", 1), ("LA", 2), ("P", 1), ("RGB", 3), ("RGBA", 4), ("I", 1)):
        for height, width in ((1, 1), (17, 23), (64, 50)):  # PIL's own
            pixels = random.integers(0, 65536 if mode == "I" else 256, (height, width, bands))
            if mode == "I":
                image = Image.fromarray(pixels[..., 0].astype("int32"), "I")
            else:
                image = Image.frombytes("L" if bands == 1 else mode, (width, height), pixels.astype("u1").tobytes())
                image = image.convert(mode)
            for optimize in (False, True):
                name = "%s/pil_%s_%dx%d_%d.png" % (folder, mode, height, width, optimize)
                image.save(name, gamma=0.5, optimize=optimize)


def files(folders):
    for folder in folders:
        for name in sorted(os.listdir(folder)):
            if name.endswith(".png"):
                path = os.path.join(folder, name)
                with open(path, "rb") as f:
                    yield path, f.read()


def write_values(folders):
    count = 0
    for path, data in files(folders):
        found = compare(path, data)
        if found is not None:
            np.save(path[:-4] + ".8.npy", found[0].astype("u1"))
            np.save(path[:-4] + ".16.npy", found[1].astype("i8"))
            count += 1
    print(count)


def golden():
    random = np.random.default_rng(15)
    print("-- luacheck: no max line length")
    print("-- Made by spec/support/png_reference.py golden. Each row: name, file, shape, values of 8 and of 16 bits.")
    print("return {")
    for color, depth, interlaced, alpha in kinds():
        data = picture(random, (3, 5), color, depth, interlaced, alpha, "dark")
        eight, sixteen = compare("golden", data)
        name = "colour type %d, %d bits" % (color, depth)
        name += (", interlaced" if interlaced else "") + (", tRNS" if alpha else "")
        print('  {"%s", "%s", {%s},\n    "%s", "%s"},' % (name, data.hex(), ", ".join(map(str, eight.shape)),
              eight.astype("u1").tobytes().hex(), sixteen.astype(">u2").tobytes().hex() if depth == 16 else ""))
    print("}")


if __name__ == "__main__":
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    what, folders = sys.argv[1], sys.argv[2:]
    if what == "make":
        make(folders[0])
    elif what == "values":
        write_values(folders)
    else:
        golden()
