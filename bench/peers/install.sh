#!/bin/sh
# SPDX-License-Identifier: MIT
# install.sh FOLDER: puts the peers of bench/peers/versions.txt, and what they run with, into FOLDER/venv, one by one,
# from wherever pip is set up to look, and says which are there. What cannot be had is named and left out; Debian's
# PyTorch stands in where it is installed. PyTorch comes without the gigabytes of CUDA that its wheel asks for
# (torch_alone.py). $PYTHON: which Python to make it of.
folder=${1:?expected a folder}
here=$(dirname "$0")
python=$folder/venv/bin/python

[ -x "$python" ] || "${PYTHON:-python3}" -m venv "$folder/venv" || {
  echo "no virtual environment (Debian's package python3-venv): Debian's packages only" >&2
  rm -rf "$folder/venv"
  exit 0
}
"$python" -m pip --version >/dev/null 2>&1 || { echo "no pip in $folder/venv: Debian's packages only" >&2; exit 0; }

install () {
  case $1 in
    torch==*)
      "$python" -m pip install --quiet --disable-pip-version-check --no-deps "$1" && "$python" "$here/torch_alone.py"
      ;;
    *) "$python" -m pip install --quiet --disable-pip-version-check "$1" ;;
  esac
}

while read -r peer; do
  if install "$peer" 2>"$folder/pip.log"; then
    echo "$peer"
  else
    echo "$peer: not to be had here: $(grep -i error "$folder/pip.log" | tail -n 1)" >&2
  fi
done <"$here/versions.txt"
