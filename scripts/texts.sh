#!/bin/sh
# SPDX-License-Identifier: MIT
# Gets texts into data/text: from a folder in $MAREA_TEXT, where they may be gzipped, else from their authors' addresses
# (curl). Every file is checked before it is put in place.
#
#   sh scripts/texts.sh text|squad [folder]
#
# text: tinyshakespeare and SCAN's simple split; squad: SQuAD 1.1, of which build/marea, or the program $MAREA, reads
# files that are not byte for byte the published ones.
set -u
kind=${1:-} target=${2:-data/text}
scripts=$(dirname "$0")
marea=${MAREA:-build/marea}

github=https://raw.githubusercontent.com
squad=https://rajpurkar.github.io/SQuAD-explorer/dataset
# NAME SUM ADDRESS, SUM being the SHA-256 of the file; for SQuAD's, FILE:LINES, that of the sorted lines of
# squad_lines.lua too: so files whose questions and answers are the published ones pass, whatever their ids are.
case $kind in
  text) files="tinyshakespeare.txt 86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed $github/karpathy/char-rnn/master/data/tinyshakespeare/input.txt
scan-simple-train.txt 941bb8a088c5f53ceff12fde902dc008933cf0c4203cc672c47b5f79d73262dd $github/brendenlake/SCAN/master/simple_split/tasks_train_simple.txt
scan-simple-test.txt 1fe1c8f5a19d0dc40e41bab94278f45f66f3dc415a978bd29855a23440610fc6 $github/brendenlake/SCAN/master/simple_split/tasks_test_simple.txt" ;;
  squad) files="squad-train-v1.1.json 3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955:ef63f7ed16269ad3e2167874ce3a35a64f4c5fd6259ed4f84791371be65f778e $squad/train-v1.1.json
squad-dev-v1.1.json 95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9:6a2e3c2bd5ad4285f41c7ee78a06d0a5ef45e92a13a1b08d8bea08ced861394b $squad/dev-v1.1.json" ;;
  *) echo "usage: sh scripts/texts.sh text|squad [folder]" >&2; exit 2 ;;
esac

name=none
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work" "$target/$name.part"' EXIT
trap 'exit 130' INT TERM

sum () {
  sha256sum | cut -d ' ' -f 1
}

# is_right FILE SUM: is FILE, which is not packed, the published one?
is_right () {
  [ "$(sum < "$1")" = "${2%:*}" ] && return 0
  case $2 in *:*) ;; *) return 1 ;; esac
  command -v "$marea" >/dev/null || { echo "  $marea, which reads SQuAD's questions, is not there: run make" >&2; return 1; }
  "$marea" "$scripts/squad_lines.lua" "$1" > "$work/lines" < /dev/null && [ "$(LC_ALL=C sort "$work/lines" | sum)" = "${2#*:}" ]
}

# accept FILE NAME SUM FROM: puts FILE in place as NAME, unpacked, if it is the right one; FROM is its name in messages.
accept () {
  [ -f "$1" ] || return 1
  case $1 in
    *.gz) gzip -dc "$1" > "$work/raw" 2>/dev/null || { echo "  $4 is not a whole .gz file; ignored" >&2; return 1; } ;;
    *) cat "$1" > "$work/raw" || return 1 ;;
  esac
  if ! is_right "$work/raw" "$3"; then
    echo "  $4 is not the published $2 (its SHA-256 differs); ignored" >&2
    return 1
  fi
  [ "$1" = "$target/$2" ] && return 0
  cp "$work/raw" "$target/$2.part" && chmod 644 "$target/$2.part" && mv "$target/$2.part" "$target/$2"
}

# from_folder FOLDER NAME SUM
from_folder () {
  accept "$1/$2" "$2" "$3" "$1/$2" || accept "$1/$2.gz" "$2" "$3" "$1/$2.gz"
}

# from_address ADDRESS NAME SUM
from_address () {
  command -v curl >/dev/null || { echo "  there is no curl to ask $1" >&2; return 1; }
  echo "  trying $1"
  curl -fsSL --connect-timeout 10 -o "$work/fetched" "$1" && accept "$work/fetched" "$2" "$3" "$1"
}

mkdir -p "$target" || exit 1
missing=
while read -r name sums address; do
  if from_folder "$target" "$name" "$sums" \
    || { [ -n "${MAREA_TEXT:-}" ] && from_folder "$MAREA_TEXT" "$name" "$sums"; } \
    || from_address "$address" "$name" "$sums"; then
    echo "$target: $name is there and verified"
  else
    missing="$missing $name"
  fi
done << END
$files
END
[ -z "$missing" ] && exit 0
cat >&2 << END

Not found:$missing
Put the files, under these names, plain or gzipped (.gz), into a folder and run
  MAREA_TEXT=that/folder make $kind
END
exit 1
