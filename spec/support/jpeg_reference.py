# SPDX-License-Identifier: MIT
"""JPEG files of many kinds, and what PIL reads from them, for spec/jpeg_spec.lua.

  jpeg_reference.py make FOLDER    writes NAME.jpg and NAME.npy, what load_jpeg has to give, and prints how many
  jpeg_reference.py again FOLDER   rewrites FOLDER/ours.png as FOLDER/pil.jpg, with quality 90 and 35 as pil35.jpg
  jpeg_reference.py wide FOLDER    FOLDER/wide.png, a gray PNG of 16 bits, as FOLDER/wide.npy
  jpeg_reference.py golden         prints spec/golden/jpeg.lua
"""
import io
import sys

import numpy as np
from PIL import Image, ImageOps

MODES = {"L": 1, "RGB": 3, "CMYK": 4}


def picture(random, height, width, mode):
    """A smooth picture with some noise: what a decoder does with it is not rounded away."""
    channels = MODES[mode]
    y, x = np.mgrid[0:height, 0:width]
    planes = [128 + 100 * np.sin(x / (3 + c) + y / (5 - c)) + random.normal(0, 12, (height, width)) for c in range(channels)]
    samples = np.clip(np.stack(planes, -1), 0, 255).astype("u1")
    return Image.fromarray(samples[..., 0] if channels == 1 else samples, mode)


def encoded(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def exif(orientation, big=False):
    data = Image.Exif()
    data[0x0112] = orientation
    data[0x010F] = "maker"
    raw = data.tobytes()
    if not big:
        return raw
    return (b"Exif\0\0MM\0*" + (8).to_bytes(4, "big") + (1).to_bytes(2, "big") + bytes([1, 0x12, 0, 3, 0, 0, 0, 1])
            + orientation.to_bytes(2, "big") + bytes(6))


def kinds(random, sizes):
    for height, width in sizes:
        for mode in MODES:
            image = picture(random, height, width, mode)
            for quality in (30, 90, 100):
                yield encoded(image, quality=quality)
            yield encoded(image, quality=80, progressive=True, optimize=True)
            for subsampling in (0, 1, 2):
                yield encoded(image, quality=80, subsampling=subsampling)
        image = picture(random, height, width, "RGB")
        for orientation in range(0, 10):
            yield encoded(image, quality=95, exif=exif(orientation))
            yield encoded(image, quality=95, exif=exif(orientation, big=True), progressive=orientation % 2 == 0)


def decoded(data):
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    samples = np.asarray(image.convert("RGB") if image.mode == "CMYK" else image)
    return samples if samples.ndim == 3 else samples[..., None]


def main():
    what, folder = sys.argv[1], sys.argv[-1]
    random = np.random.default_rng(18)
    if what == "make":
        files = list(kinds(random, ((1, 1), (7, 30), (33, 16), (90, 121))))
        for i, data in enumerate(files):
            with open("%s/%d.jpg" % (folder, i), "wb") as f:
                f.write(data)
            np.save("%s/%d.npy" % (folder, i), decoded(data))
        for side in (10, 45, 46, 91):  # at a half, a quarter: what libjpeg gives PIL
            image = picture(random, 180, 240, "RGB")
            with open("%s/scaled%d.jpg" % (folder, side), "wb") as f:
                f.write(encoded(image, quality=90))
            draft = Image.open("%s/scaled%d.jpg" % (folder, side))
            divisor = max(d for d in (1, 2, 4, 8) if 180 // d >= side)
            draft.draft("RGB", (240 // divisor, 180 // divisor))
            assert draft.size[0] == 240 // divisor, (draft.size, divisor)
            np.save("%s/scaled%d.npy" % (folder, side), np.asarray(draft))
        print(len(files))
    elif what == "again":
        image = Image.open(folder + "/ours.png")
        for name, quality in ("pil", 90), ("pil35", 35):
            image.save("%s/%s.jpg" % (folder, name), quality=quality)
    elif what == "wide":
        np.save(folder + "/wide.npy", np.asarray(Image.open(folder + "/wide.png")).astype("i8"))
    else:
        print("-- luacheck: no max line length")
        print("-- Made by spec/support/jpeg_reference.py golden. Each row: a file.")
        print("return {")
        for data in (encoded(picture(random, 9, 8, "L"), quality=50), encoded(picture(random, 9, 17, "RGB"), quality=60),
                     encoded(picture(random, 8, 8, "CMYK"), quality=50),
                     encoded(picture(random, 12, 9, "RGB"), quality=50, progressive=True, exif=exif(6, big=True))):
            print('  "%s",' % data.hex())
        print("}")


main()
