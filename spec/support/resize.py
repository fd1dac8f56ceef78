# SPDX-License-Identifier: MIT
"""What PIL makes of pictures: for line i of a file, "NAME HEIGHT WIDTH crop|stretch CHANNELS", the array i.npy.

    python3 resize.py CASES
"""
import sys

import numpy
from PIL import Image

for i, line in enumerate(open(sys.argv[1]), 1):
    name, height, width, fit, channels = line.split()
    height, width = int(height), int(width)
    with Image.open(name) as file:
        picture = file.convert("L" if channels == "1" else "RGB")
    box = None
    if fit == "crop":
        h, w = min(picture.height, picture.width * height / width), min(picture.width, picture.height * width / height)
        left, top = (picture.width - w) / 2, (picture.height - h) / 2
        box = (left, top, left + w, top + h)
    result = numpy.asarray(picture.resize((width, height), Image.BILINEAR, box=box))
    numpy.save(f"{i}.npy", result.reshape(height, width, int(channels)))
