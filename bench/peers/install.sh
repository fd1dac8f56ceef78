#!/bin/sh
# SPDX-License-Identifier: MIT
# install.sh FOLDER: puts the peers of bench/peers/versions.txt into FOLDER/venv, one by one, from wherever pip is set up
# to look, and says which are there. What cannot be had is named and left out; Debian's PyTorch stands in where it is
# installed. $PYTHON: which Python to make it of.
folder=${1:?expected a folder}
list=$(dirname "$0")/versions.txt
python=$folder/venv/bin/python

[ -x "$python" ] || "${PYTHON:-python3}" -m venv "$folder/venv" || {
  echo "no virtual environment (Debian's package python3-venv): Debian's packages only" >&2
  rm -rf "$folder/venv"
  exit 0
}
"$python" -m pip --version >/dev/null 2>&1 || { echo "no pip in $folder/venv: Debian's packages only" >&2; exit 0; }

while read -r peer; do
  if "$python" -m pip install --quiet --disable-pip-version-check "$peer" 2>"$folder/pip.log"; then
    echo "$peer"
  else
    echo "$peer: not to be had here: $(grep ERROR "$folder/pip.log" | tail -n 1)" >&2
  fi
done <"$list"
