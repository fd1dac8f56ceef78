#!/bin/sh
# SPDX-License-Identifier: MIT
# `make abi`: compares what libmarea.so offers now with what it offered at REF, a commit or tag; the last tag, if REF is not
# set. Prints abidiff's report on marea.h; fails when something that was there is gone or has another layout.
set -eu
ref=${REF:-$(git describe --tags --abbrev=0 2>/dev/null || true)}
if [ -z "$ref" ]; then
  echo "abi: there is no tag, so no release to compare with. REF=commit compares with a commit."
  exit 0
fi
commit=$(git rev-parse --verify --quiet "$ref^{commit}") || { echo "abi: '$ref' is no commit." >&2; exit 2; }

# The ABI does not depend on how well the kernels are optimised, the time of the build does.
build () { make --no-print-directory -s -j2 -C "$1" BUILD="$2" OPT=-O1 KERNEL_OPT='-O1 -fno-math-errno' "$2/libmarea.so" >/dev/null; }

old=build/abi/$commit
if [ ! -f "$old/build/libmarea.so" ]; then
  rm -rf "$old" && mkdir -p "$old"
  git archive "$commit" | tar -x -C "$old"
  build "$old" build
fi
build . build/abi/now

compare () { # options of abidiff
  abidiff "$@" --header-file1 "$old/core/marea.h" --header-file2 core/marea.h "$old/build/libmarea.so" \
    build/abi/now/libmarea.so
}
echo "abi: libmarea.so now, compared with $ref"
status=0
compare || status=$?
[ $((status & 3)) = 0 ] || { echo "abi: abidiff failed." >&2; exit 2; }
if [ "$status" = 0 ]; then echo "abi: the same"; exit 0; fi
if compare --no-added-syms >/dev/null; then echo "abi: compatible, with additions"; exit 0; fi
echo "abi: changed; programs that were built with $ref must be built anew"
exit 1
