# SPDX-License-Identifier: MIT
"""Writes hdf5.lua: small files of h5py, for spec/hdf5_spec.lua. Needs h5py.

    python3 spec/golden/make_hdf5.py > spec/golden/hdf5.lua
"""
import io

import h5py
import numpy as np


def file_of(fill, libver=("v110", "v110")):
    memory = io.BytesIO()
    with h5py.File(memory, "w", libver=libver) as f:
        fill(f)
    return memory.getvalue().hex()


def values(f):
    f.attrs["kind"] = 'a "text",\n größe \\'
    f.attrs["fixed"] = np.bytes_("fixed")
    f.attrs["count"] = 3
    f.create_dataset("scalar", data=np.float32(2.5))
    f.create_dataset("f64", data=np.array([1 / 3]))
    f.create_dataset("f16", data=np.array([0.5, 65504], "f2"))
    f.create_dataset("big endian", data=np.array([1, -2], ">f4"))
    f.create_dataset("i8", data=np.array([-128, 127], "i1"))
    f.create_dataset("u32", data=np.array([4294967295], "u4"))
    f.create_dataset("i64", data=np.array([-(1 << 62)], "i8"))
    f.create_dataset("u8", data=np.array([200, 1], "u1"))
    f.create_dataset("truth", data=np.array([True, False]))
    f.create_dataset("empty", shape=(0, 3), dtype="f4")
    g = f.create_group("a/b")
    g.attrs["names"] = ["kernel:0", "größe"]
    g.attrs["fixed names"] = np.array([b"one", b"three"])
    g.create_dataset("matrix", data=np.arange(6, dtype="f4").reshape(2, 3))
    packed = np.tile(np.arange(40, dtype="f4"), (20, 1))
    g.create_dataset("packed", data=packed, chunks=(7, 16), compression="gzip", shuffle=True, fletcher32=True)


def old(f):
    f.create_group("g").create_dataset("x", data=np.arange(3, dtype="f4"))


def soft(f):
    f["x"] = np.zeros(2, "f4")
    f["y"] = h5py.SoftLink("/x")


def external(f):
    f["x"] = h5py.ExternalLink("/etc/passwd", "/")


def raw(f):
    f.create_dataset("x", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def virtual(f):
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    f.create_virtual_dataset("x", layout)


def cycle(f):
    f.create_group("a")["a"] = f["/"]


def lzf(f):
    f.create_dataset("x", data=np.zeros(100, "f4"), chunks=(100,), compression="lzf")


def unwritten(f):
    f.create_dataset("x", (1 << 40,), "f4")


def bomb(f):
    f.create_dataset("x", (1 << 40,), "f4", chunks=(1 << 20,), compression="gzip")[:1] = 1


def shared(f):
    f["x"] = np.zeros(2000, "i1")
    for i in range(9):
        f[f"y{i}"] = f["x"]


def paths(f):
    """2^15 paths to one group: a file that takes long."""
    group = f
    for _ in range(15):
        group = group.create_group("a")
        group.parent["b"] = group
    for i in range(5):
        group.attrs[str(i)] = np.int8(i)


def strings(f):
    f.create_dataset("x", data=["a", "b"])


def u64(f):
    f.create_dataset("x", data=np.array([1], "u8"))


print("-- luacheck: no max line length\n-- Written by spec/golden/make_hdf5.py with the package h5py.\nreturn {")
for fill in (values, soft, external, raw, virtual, cycle, lzf, unwritten, strings, u64, shared, paths):
    print(f'  {fill.__name__} = "{file_of(fill)}",')
for fill in (old, bomb):
    print(f'  {fill.__name__} = "{file_of(fill, ("earliest", "v110"))}",')
print("}")
