#!/bin/sh
# SPDX-License-Identifier: MIT
# `make abi`: compares what libmarea.so offers now with what it offered at REF, a commit or tag; the last tag, if REF is not
# set. Prints abidiff's report on the types and functions of marea.h; fails when something that was there is gone or has
# another layout. Functions that are new and fields at the end of marea_config, which states its size, are compatible.
#   abi.sh compare OLD-HEADER OLD-LIBRARY HEADER LIBRARY does so with two libraries that are there.
set -eu

# verdict NAME FOLDER OLD-HEADER OLD-LIBRARY HEADER LIBRARY
verdict () {
  name=$1 folder=$2
  rm -rf "$folder/old" "$folder/new" && mkdir -p "$folder/old" "$folder/new"
  cp "$3" "$folder/old/marea.h" && cp "$5" "$folder/new/marea.h"
  printf '[suppress_type]\n  type_kind = struct\n  name = marea_config\n  has_data_member_inserted_at = end\n' \
    > "$folder/additions"
  old=$4 new=$6
  compare () { abidiff "$@" --headers-dir1 "$folder/old" --headers-dir2 "$folder/new" "$old" "$new"; }
  status=0
  compare > "$folder/report" || status=$?
  cat "$folder/report"
  [ $((status & 3)) = 0 ] || { echo "abi: abidiff failed" >&2; exit 2; }
  if [ "$status" = 0 ]; then echo "abi: the same as $name"; exit 0; fi
  # abidiff takes a field that has grown for one at the end.
  if ! grep -q 'data member change' "$folder/report" && compare --no-added-syms --suppressions "$folder/additions" \
    >/dev/null; then
    echo "abi: compatible with $name, with additions"
    exit 0
  fi
  echo "abi: changed; programs that were built with $name must be built anew"
  exit 1
}

if [ "${1:-}" = compare ]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  verdict "$3" "$folder" "$2" "$3" "$4" "$5"
fi

ref=${REF:-$(git describe --tags --abbrev=0 2>/dev/null || true)}
if [ -z "$ref" ]; then
  echo "abi: there is no tag, so no release to compare with. REF=commit compares with a commit."
  exit 0
fi
commit=$(git rev-parse --verify --quiet "$ref^{commit}") || { echo "abi: '$ref' is no commit" >&2; exit 2; }

# The ABI does not depend on how well the kernels are optimised, the time of the build does.
build () { make --no-print-directory -s -j2 -C "$1" BUILD="$2" OPT=-O1 KERNEL_OPT='-O1 -fno-math-errno' "$2/libmarea.so" >/dev/null; }

tree=build/abi/$commit
if [ ! -f "$tree/build/libmarea.so" ]; then
  rm -rf "$tree" && mkdir -p "$tree"
  git archive "$commit" | tar -x -C "$tree"
  build "$tree" build
fi
build . build/abi/now
verdict "$ref" build/abi "$tree/core/marea.h" "$tree/build/libmarea.so" core/marea.h build/abi/now/libmarea.so
