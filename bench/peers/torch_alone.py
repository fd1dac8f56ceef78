#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Completes a PyTorch that pip has installed without its requirements, for use on processors alone: installs those that
are not CUDA's, and where the wheel was built with CUDA makes libraries of the names that it is linked with, whose
functions answer that there is no graphics card: 300 KB for 4 GB. Fails when PyTorch cannot be imported afterwards."""
import glob
import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig

CUDAS = re.compile(r"cuda|nvidia|triton")  # requirements
LIBRARIES = re.compile(r"lib(cu(?!da\.)|nv|nccl)")  # the driver's own, libcuda, is opened where it is
FUNCTIONS = re.compile(r"(__cuda|cublas|cuda|cudnn|cufft|cuFile|cupti|curand|cusolver|cusparse|nccl|nvrtc|nvshmem)\w*")
NO_DEVICE = 100  # cudaErrorNoDevice
COMPILER = os.environ.get("CC", "cc").split()


def lines(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def compile_library(folder, name, source, *options):
    subprocess.run([*COMPILER, "-shared", "-fPIC", "-w", "-fno-builtin", "-o", f"{folder}/{name}", f"-Wl,-soname,{name}",
                    "-x", "c", "-", *options], check=True, input=source, text=True)


def stand_in(folder):
    """One library has all functions; those with CUDA's names hold nothing and need that one, because the loader checks
    the versions of symbols in the library they are expected in, but takes any from another."""
    files = sorted(glob.glob(folder + "/*.so"))
    needed = {name for line in lines("readelf", "-d", *files) if "NEEDED" in line
              for name in re.findall(r"\[(.*)\]", line) if LIBRARIES.match(name)}
    missing = sorted(name for name in needed if not os.path.exists(f"{folder}/{name}"))
    if not missing:
        return
    functions = sorted({found[0] for line in lines("nm", "-D", "--undefined-only", *files)
                        if line.strip() and (found := FUNCTIONS.match(line.split()[-1].split("@")[0]))})
    compile_library(folder, "libabsent.so", "\n".join(f"long {name}(void) {{ return {NO_DEVICE}; }}" for name in functions))
    for name in missing:
        compile_library(folder, name, "", "-Wl,--no-as-needed", "-L" + folder, "-labsent", "-Wl,-rpath,$ORIGIN")


def main():
    wanted = [r for r in importlib.metadata.requires("torch") if "extra ==" not in r and not CUDAS.match(r)]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted], check=True)
    stand_in(os.path.join(sysconfig.get_path("platlib"), "torch", "lib"))
    subprocess.run([sys.executable, "-W", "ignore", "-c", "import torch"], check=True)


main()
