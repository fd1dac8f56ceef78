#!/bin/sh
# SPDX-License-Identifier: MIT
# runner.sh: a small network becomes programs of its own (make runner), for this processor and for AArch64, which qemu
# runs. Both give the numbers of `marea run` within 1e-5 and are at most 4 MB. The libraries for AArch64 are Debian's,
# unpacked into build/runner/arm64.
set -eu
here=build/runner
mkdir -p $here
build/marea spec/support/runner.lua write $here

for target in x86 aarch64; do
  run=
  if [ $target = aarch64 ]; then
    root=$here/arm64
    if [ ! -e $root/usr/include/aarch64-linux-gnu/jconfig.h ]; then
      mkdir -p $root/lists/partial $root/cache/archives/partial
      options="-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::lists=$PWD/$root/lists -o Dir::Cache=$PWD/$root/cache"
      apt-get $options update -qq
      (cd $root && apt-get $options download -qq libprotobuf-c-dev zlib1g-dev libjpeg62-turbo-dev 2>/dev/null && for p in *.deb; do dpkg -x "$p" .; done)
      rm -rf $root/lists $root/cache $root/*.deb
    fi
    run="qemu-aarch64"
    $MAKE --no-print-directory runner MODEL=$here/model.onnx RUNNER=$here/$target \
      CC="aarch64-linux-gnu-gcc -I$root/usr/include/aarch64-linux-gnu" \
      RUNNER_BUILD=build/no-blas-aarch64 RUNNER_LIBS="-L$root/usr/lib/aarch64-linux-gnu -lprotobuf-c -lz -lm -pthread"
  else
    $MAKE --no-print-directory runner MODEL=$here/model.onnx RUNNER=$here/$target
  fi
  $run $here/$target $here/x.npy $here/$target.npy
  build/marea spec/support/runner.lua compare $here $target
  size=$(stat -c %s $here/$target)
  echo "$target: $size bytes"
  [ "$size" -le 4000000 ]
done
