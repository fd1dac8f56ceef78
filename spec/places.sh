#!/bin/sh
# SPDX-License-Identifier: MIT
# `make test-places`: clones the committed tree to three places where strangers put it, builds and runs the whole suite in
# each, and prints a table: a folder named marea; a path with spaces and umlauts; a user whose home cannot be written to.
# Root runs the last one as the user nobody. PLACES="spaces" for some of: named spaces home.
set -u
source=$(pwd)
top=$(mktemp -d) || exit 1
trap 'chmod -R u+w "$top"; rm -rf "$top"' EXIT
trap 'exit 130' INT TERM
chmod 755 "$top"
bad=0
table=

# place NAME FOLDER [COMMAND...]: runs the suite in a clone; what runs it stands in front
place () {
  name=$1 folder=$2
  shift 2
  case " ${PLACES:-named spaces home} " in *" $name "*) ;; *) return ;; esac
  log=$top/$name.log
  mkdir -p "$(dirname "$folder")" && git clone -q "$source" "$folder" || exit 1
  if [ "$(id -u)" = 0 ] && [ "$name" = home ]; then chown -R nobody "$folder"; fi
  echo "== $folder"
  begun=$(date +%s)
  (cd "$folder" && env -u XDG_CACHE_HOME -u XDG_STATE_HOME -u XDG_CONFIG_HOME "$@" make --no-print-directory test) \
    > "$log" 2>&1
  result=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" || echo "did not end")
  case $result in *" passed, 0 failed") ;; *) bad=1 && grep -vE '^  [A-Z]+ ' "$log" | tail -200 ;; esac
  table="$table$(printf '%-8s %-60s %5d s  %s' "$name" "$folder" $(($(date +%s) - begun)) "$result")
"
  rm -rf "$folder"
}

place named "$top/marea"
place spaces "$top/Über uns/mein marea"

home=$top/home
mkdir "$home" && chmod 555 "$home"
as=
[ "$(id -u)" = 0 ] && as="setpriv --reuid=nobody --regid=nogroup --clear-groups"
# shellcheck disable=SC2086
place home "$top/nobody/marea" $as env HOME="$home"

printf '%s' "$table"
exit $bad
