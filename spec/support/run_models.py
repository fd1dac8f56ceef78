# SPDX-License-Identifier: MIT
"""The models of examples/models in ONNX Runtime, with the code of their own packages around them. FOLDER: the packages.

FOLDER speech recording.wav out.npy     the spans, in samples; the probabilities of the windows go to out.npy
FOLDER filetype file ...                kind and probability of each
FOLDER run model.onnx in.npy out.npy    the first result of a model with one input
"""
import sys
import wave
from unittest.mock import MagicMock

import numpy
import onnxruntime

folder, task, *arguments = sys.argv[1:]
onnxruntime.set_default_logger_severity(3)
sys.path.insert(0, folder)


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def speech(path, out):
    sys.modules["torch"] = sys.modules["torchaudio"] = MagicMock()  # the package's __init__ wants it; what is called does not
    from silero_vad.utils_vad import get_speech_timestamps_from_probs
    with wave.open(path) as file:
        samples = numpy.frombuffer(file.readframes(file.getnframes()), "<i2").astype("float32") / 32768
    n = -(-len(samples) // 512)
    padded = numpy.pad(samples, (64, n * 512 - len(samples)))
    net, state, probabilities = session(folder + "/silero_vad/data/silero_vad.onnx"), numpy.zeros((2, 1, 128), "float32"), []
    for at in range(0, n * 512, 512):
        p, state = net.run(None, {"input": padded[None, at:at + 576], "state": state, "sr": numpy.array(16000)})
        probabilities.append(float(p[0, 0]))
    numpy.save(out, numpy.array(probabilities))
    for span in get_speech_timestamps_from_probs(probabilities, audio_length_samples=len(samples)):
        print(span["start"], span["end"])


def filetype(*paths):
    from magika import Magika
    magika = Magika()
    for path in paths:
        result = magika.identify_path(path)
        print(result.output.label, result.score)


def run(model, given, out):
    net = session(model)
    numpy.save(out, net.run(None, {net.get_inputs()[0].name: numpy.load(given)})[0])


{"speech": speech, "filetype": filetype, "run": run}[task](*arguments)
