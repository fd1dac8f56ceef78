# SPDX-License-Identifier: MIT
"""Writes spec/golden/keras.zip: small networks of Keras 3 and 2 in the three kinds of file, and for each an .npz file of
inputs and results, for spec/keras_spec.lua. Needs Keras 3 on TensorFlow, and tf_keras, which is Keras 2.

    python3 spec/golden/make_keras.py spec/golden/keras.zip
"""
import os
import sys
import tempfile
import zipfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tf_keras

FOLDER = tempfile.mkdtemp()
random = np.random.default_rng(1)


def normal(*shape):
    return random.standard_normal(shape).astype("f4")


def whole(below, *shape):
    return random.integers(0, below, shape).astype("i4")


def randomized(net):
    """Moves every weight off the value that it begins with: a bias of zeros would hide a mistake. Not what was adapted."""
    for w in net.weights:
        if w.name.split(":")[0] in ("mean", "variance"):
            continue
        value = 0.3 * random.standard_normal(w.shape)
        variance = "variance" in w.name
        if w.dtype in ("float32", "float64"):
            w.assign(np.abs(value) + 0.5 if variance else value + (1 if "gamma" in w.name else 0))
    return net


def save(name, net, inputs, kinds):
    randomized(net)
    given = inputs[0] if len(inputs) == 1 else inputs
    result = net(given, training=False)
    results = result if isinstance(result, (list, tuple)) else [result]
    for kind in kinds:
        path = f"{FOLDER}/{name}.{kind}"
        net.save_weights(path) if kind == "weights.h5" else net.save(path)
    arrays = {f"x{i + 1}": x for i, x in enumerate(inputs)}
    arrays |= {f"y{i + 1}": np.array(y) for i, y in enumerate(results)}
    np.savez(f"{FOLDER}/{name}.npz", **arrays)


def mlp(k):
    l = k.layers
    return k.Sequential([
        k.Input((5,)), l.Dense(8, activation="relu"), l.Dropout(0.5), l.Dense(6, activation="elu", use_bias=False),
        l.LeakyReLU(), l.Dense(4), l.Activation("tanh"), l.Dense(3, activation="softmax"),
    ]), [normal(4, 5)]


def cnn(k):
    l = k.layers
    return k.Sequential([
        k.Input((13, 12, 3)), l.Conv2D(4, 3, strides=2, padding="same", use_bias=False), l.BatchNormalization(),
        l.ReLU(max_value=6), l.DepthwiseConv2D(3, padding="same", depth_multiplier=2, activation="swish"),
        l.SeparableConv2D(6, 3, activation="sigmoid"), l.MaxPooling2D(2, strides=1, padding="same"),
        l.AveragePooling2D((2, 1), padding="same"), l.Conv2D(6, 2, groups=2, dilation_rate=2, padding="same"),
        l.PReLU(shared_axes=[1, 2]), l.Flatten(), l.Dense(3, activation="gelu"),
    ]), [normal(2, 13, 12, 3)]


def unet(k):
    l = k.layers
    x = k.Input((8, 8, 2))
    a = l.Conv2D(4, 3, padding="same", activation="relu")(l.Rescaling(0.5, -0.1)(x))
    b = l.Conv2D(6, 3, strides=2)(l.ZeroPadding2D(((0, 1), (0, 1)))(a))
    c = l.UpSampling2D(2, interpolation="bilinear")(b)
    c = l.Conv2DTranspose(4, 3, padding="same")(c)
    d = l.Concatenate()([a, c])
    e = l.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu")(b)
    f = l.Conv2DTranspose(3, 3, strides=2)(b)
    f = l.Cropping2D(((0, 1), (1, 0)))(f)
    y = l.Add()([l.Conv2D(4, 1)(d), e, a])
    y = l.Multiply()([y, l.Conv2D(4, 1, activation="hard_sigmoid")(f)])
    return k.Model(x, [l.UpSampling2D(2)(y), l.GlobalAveragePooling2D()(y), l.GlobalMaxPooling2D()(y)]), [
        normal(2, 8, 8, 2)]


def text(k):
    l = k.layers
    x = k.Input((7,), dtype="int32")
    y = l.Embedding(11, 5, mask_zero=True)(x)
    y = l.Bidirectional(l.LSTM(4, return_sequences=True))(y)
    y = l.Bidirectional(l.GRU(3, return_sequences=True), merge_mode="sum")(y)
    y = l.TimeDistributed(l.Dense(4, activation="relu"))(y)
    y = l.GRU(3, reset_after=False)(y)
    x1 = whole(10, 3, 7) + 1
    x1[1, 4:] = 0
    x1[2, 1:] = 0
    return k.Model(x, l.Dense(2)(y)), [x1]


def series(k):
    l = k.layers
    x = k.Input((12, 3))
    y = l.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="relu")(x)
    y = l.MaxPooling1D(2)(l.ZeroPadding1D(1)(y))
    y = l.SpatialDropout1D(0.1)(l.Conv1D(4, 3, padding="same")(y))
    y = l.AveragePooling1D(2, padding="same")(l.Cropping1D(1)(y))
    y = l.SimpleRNN(5, return_sequences=True)(l.UpSampling1D(2)(y))
    y = l.LSTM(4, go_backwards=True, recurrent_activation="hard_sigmoid" if k is tf_keras else "sigmoid")(y)
    y = l.LSTM(3, return_sequences=True)(l.RepeatVector(3)(y))
    y = l.Permute((2, 1))(l.Reshape((-1, 3))(y))
    return k.Model(x, [l.GlobalAveragePooling1D()(y), l.GlobalMaxPooling1D()(y)]), [normal(2, 12, 3)]


def padded(k):
    """Sequential, so that masks are not in the configuration; steps left out in front and in between, and all of them."""
    l = k.layers
    x = np.array([[0, 0, 3, 1, 4], [2, 0, 0, 5, 0], [1, 2, 3, 4, 5], [0, 0, 0, 0, 0]], "i4")
    return k.Sequential([
        k.Input((5,), dtype="int32"), l.Embedding(6, 3, mask_zero=True), l.LSTM(4, return_sequences=True),
        l.Bidirectional(l.GRU(3, return_sequences=True), merge_mode="ave"), l.LayerNormalization(),
        l.SimpleRNN(3, activation="relu", return_sequences=True), l.GlobalAveragePooling1D(),
    ]), [x[:3]]


def masked(k):
    l = k.layers
    x = normal(2, 6, 3)
    x[0, 2] = x[1, 4:] = 7
    return k.Sequential([
        k.Input((6, 3)), l.Masking(7.0), l.Bidirectional(l.LSTM(2, return_sequences=True), merge_mode="mul"),
        l.LSTM(3, return_sequences=True, go_backwards=True), l.Dropout(0.1), l.LSTM(2),
    ]), [x]


def translator(k):
    """States that go from one recurrent layer to another, and attention that leaves words out."""
    l = k.layers
    a, b = k.Input((5,), dtype="int32"), k.Input((4, 3))
    words = l.Embedding(6, 4, mask_zero=k is keras)(a)
    y, *states = l.Bidirectional(l.LSTM(3, return_sequences=True, return_state=True))(words)
    h = l.Concatenate()([states[0], states[2]])
    c = l.Concatenate()([states[1], states[3]])
    z, _, last = l.LSTM(6, return_sequences=True, return_state=True)(b, initial_state=[h, c])
    z = l.MultiHeadAttention(2, 3)(z, value=y)
    z, last2 = l.GRU(6, return_sequences=True, return_state=True)(z, initial_state=last)
    x = np.array([[1, 2, 3, 0, 0], [4, 5, 1, 2, 0]], "i4")
    return k.Model([a, b], [z, last2]), [x, normal(2, 4, 3)]


def frames(k):
    """Layers on each step of a sequence, and models that come without an input layer."""
    l = k.layers
    x = k.Input((3, 6, 6, 2))
    inner = k.Sequential([l.Conv2D(3, 3, name="inner_conv"), l.BatchNormalization(), l.Flatten()], name="per_frame")
    y = l.TimeDistributed(l.Conv2D(2, 1, activation="relu"))(x)
    y = l.TimeDistributed(inner)(y)
    tail = k.Sequential([l.Dense(3), l.Dense(2, activation="relu")], name="tail")
    return k.Model(x, tail(l.TimeDistributed(l.Dense(4))(y))), [normal(2, 3, 6, 6, 2)]


def attention(k):
    l = k.layers
    x = k.Input((6, 8))
    y = l.MultiHeadAttention(2, 3)(x, x)
    y = l.LayerNormalization(epsilon=1e-6)(l.Add()([x, y]))
    z = l.Dense(16, activation="gelu")(y)
    y = l.LayerNormalization()(y + l.Dense(8)(z))
    m = k.Input((4, 5))
    y = l.MultiHeadAttention(2, 4, value_dim=3)(y, m, m, use_causal_mask=True)
    y = l.Dot(axes=(2, 2), normalize=True)([y, x])
    return k.Model([x, m], l.Softmax(axis=1)(y)), [normal(2, 6, 8), normal(2, 4, 5)]


def nested(k):
    l = k.layers
    inner = k.Sequential([k.Input((4,)), l.Dense(5, activation="relu"), l.Dense(3)], name="tower")
    p, q = k.Input((4,), name="left"), k.Input((4,), name="right")
    shared = l.Dense(4, activation="softplus", name="shared")
    head = k.Model(z := k.Input((3,)), [l.Dense(2)(z), l.Dense(1)(z)], name="head")
    a, b = inner(shared(p)), inner(shared(q))
    u = l.Maximum()([l.Subtract()([a, b]), l.Average()([a, b]), l.Minimum()([a, b])])
    first, second = head(u)
    return k.Model([p, q], [first, second]), [normal(3, 4), normal(3, 4)]


def norms(k):
    l = k.layers
    x = k.Input((4, 4, 6))
    layers = [l.GroupNormalization(3), l.UnitNormalization(), l.LayerNormalization(axis=[1, 2, 3])]
    if k is keras:
        layers.append(l.RMSNormalization())
    y = x
    for layer in layers:
        y = layer(y)
    y = l.BatchNormalization(scale=False)(l.GaussianNoise(0.1)(l.BatchNormalization(center=False, epsilon=1e-2)(y)))
    n = l.Normalization(mean=[0.1] * 6, variance=[0.5] * 6)(y)
    learned = l.Normalization()
    learned.adapt(normal(50, 6) * 2 + 1)
    return k.Model(x, l.Normalization(mean=0.3, variance=2.0, invert=True)(learned(n))), [normal(2, 4, 4, 6)]


def steps(k):
    """Masks that go through merging layers, attention, models and pools."""
    l = k.layers
    a, b = k.Input((5,), dtype="int32"), k.Input((5,), dtype="int32")
    p, q = l.Embedding(6, 4, mask_zero=True)(a), l.Embedding(6, 4, mask_zero=True)(b)
    r, s = (l.Embedding(6, 4, mask_zero=True)(x) for x in (a, b))  # Keras 3 takes the masks of what it attends to away
    inner = k.Sequential([k.Input((5, 4)), l.Dense(3), l.LSTM(2, return_sequences=True)], name="inner")
    x = np.array([[1, 2, 3, 0, 0], [4, 5, 1, 2, 0], [0, 1, 0, 2, 2], [0, 0, 0, 0, 3]], "i4")
    results = [
        l.GlobalAveragePooling1D(keepdims=True)(p), l.GRU(2)(l.Rescaling(2.0)(inner(p))),
        l.MultiHeadAttention(2, 3)(l.MultiHeadAttention(2, 4, use_bias=False)(r, s), s, use_causal_mask=True),
        l.LSTM(2)(l.Multiply()([p, q])), l.Maximum()([p, q]), l.Multiply()([p, q]),
        l.Bidirectional(l.LSTM(2, return_sequences=True))(p),
    ]
    if k is not keras:  # Keras 3 writes these masks as operators
        results += [l.LSTM(2)(l.Add()([p, q])), l.LSTM(2)(l.Add()([p, l.Embedding(6, 4)(b)])),
                    l.LSTM(2)(l.Concatenate()([p, q])), l.LSTM(2)(l.Concatenate(axis=1)([p, q]))]
    return k.Model([a, b], results), [x, np.roll(x, 1, 0)]


def shapes(k):
    """Tensors of different ranks, constants, and statistics along other axes than the last."""
    l = k.layers
    a, b = k.Input((4, 4)), k.Input((4,))
    learned = l.Normalization(axis=1)
    learned.adapt(normal(30, 4, 4))
    results = [
        l.Add()([a, b]), l.Multiply()([b, a]), l.Average()([a, b]), l.Rescaling([1.0, 2, 3, 4], [0.1, 0.2, 0.3, 0.4])(a),
        learned(a), l.Normalization(axis=1, mean=[1.0, 2, 3, 4], variance=[1.0, 2, 3, 4])(a),
        l.Normalization(axis=None, mean=1.0, variance=2.0)(a),
        l.Normalization(axis=(1, 2), mean=np.arange(16.0).reshape(4, 4), variance=np.arange(1, 17.0).reshape(4, 4))(a),
    ]
    if k is keras:
        results += [a * np.array([1, 2, 3, 4], "f4"), k.ops.subtract(np.array([[1], [2], [3], [4]], "f4"), a), a + b]
    return k.Model([a, b], results), [normal(4, 4, 4), normal(4, 4)]


def backbone(k):
    """Models in models, whose layers have names like those that Keras gives to parts of recurrent ones."""
    l = k.layers
    inner = k.Sequential([
        k.Input((6, 6, 3)), l.DepthwiseConv2D(3, padding="same", name="depthwise_cell"), l.BatchNormalization(),
        l.SeparableConv2D(4, 3, name="forward_1"), l.GlobalAveragePooling2D(),
    ], name="encoder_cell")
    x = k.Input((6, 6, 3))
    y = l.Dropout(0.2, noise_shape=(None, 1))(inner(x))
    return k.Model(x, l.Dense(2, name="forward_layer")(y)), [normal(2, 6, 6, 3)]


def refused():
    l = keras.layers
    inner = keras.Sequential([keras.Input((4, 3)), l.LSTM(2, activation="relu", name="relu_lstm")], name="inner")
    keras.Sequential([
        keras.Input((4, 4, 3)), l.Conv2D(3, 1, data_format="channels_first", name="first"),
        l.Lambda(lambda x: x[:, 0], name="code", output_shape=(4, 3)), inner,
    ]).save(f"{FOLDER}/refused.keras")
    x = keras.Input((4, 4, 3))
    y = keras.Input((4, 3))
    first = {"data_format": "channels_first"}
    keras.Model([x, y], [
        l.GlobalAveragePooling2D(**first, name="mean")(x), l.GlobalMaxPooling1D(**first, name="max")(y),
        l.ZeroPadding2D(**first, name="pad")(x), l.Cropping2D(**first, name="crop")(x), l.Flatten(**first, name="flat")(x),
        l.SpatialDropout2D(0.1, **first, name="drop")(x),
        l.Bidirectional(l.LSTM(2), merge_mode=None, name="apart")(y),
        l.Bidirectional(l.LSTM(2), backward_layer=l.LSTM(2, activation="relu", go_backwards=True), name="unlike")(y),
        l.Bidirectional(l.LSTM(2), backward_layer=l.GRU(2, go_backwards=True), name="other")(y),
    ]).save(f"{FOLDER}/refused2.keras")
    x = tf_keras.Input((4,))
    tf_keras.Model(x, tf_keras.layers.Dropout(0.5, name="random")(x, training=True)).save(f"{FOLDER}/refused_2.h5")


networks = (mlp, cnn, unet, text, series, attention, nested, norms, padded, masked, translator, frames, steps,
            shapes, backbone)
for make in networks:
    keras.utils.clear_session()
    save(make.__name__, *make(keras), ("keras", "h5", "weights.h5"))
for make in networks:
    if make is not attention:  # it adds tensors by +, which Keras 2 writes as a function of TensorFlow
        tf_keras.backend.clear_session()
        save(make.__name__ + "_2", *make(tf_keras), ("keras", "h5"))
refused()
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
    for name in sorted(os.listdir(FOLDER)):
        archive.writestr(zipfile.ZipInfo(name), open(f"{FOLDER}/{name}", "rb").read(), zipfile.ZIP_DEFLATED)
