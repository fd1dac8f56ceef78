#!/bin/sh
# Do files of a folder call each other in a circle? Prints each circle that it finds; exits 1 when there is one. A file calls
# another one when its object needs a function that the other one defines, by nm. Data do not count: operators reach each
# other's descriptors through marea_apply.
# Usage: circles.sh BUILD FOLDER [FUNCTION]         calls of this function do not count
cd "$(dirname "$0")/../.." || exit 1
for source in $(git ls-files "$2/*.c"); do
  object=$1/obj/${source%.c}.o
  [ -f "$object" ] && nm "$object" | sed "s|^|$source |"
done | awk -v except="${3:-}" '
  NF == 4 && $3 == "T" { home[$4] = $1 }
  NF == 3 && $2 == "U" && $3 != except { needs[++n] = $1; what[n] = $3 }

  # Depth first; path[] are the files between the start and this one.
  function visit (file, depth,   i, callees, list, to, circle, k) {
    state[file] = "open"
    path[depth] = file
    callees = split(calls[file], list, " ")
    for (i = 1; i <= callees; i++) {
      to = list[i]
      if (state[to] == "") visit(to, depth + 1)
      else if (state[to] == "open") {
        circle = to
        for (k = depth; path[k] != to; k--) circle = path[k] " (" why[path[k], k == depth ? to : path[k + 1]] ") -> " circle
        print "lint: circle: " to " (" why[to, k == depth ? to : path[k + 1]] ") -> " circle
        bad = 1
      }
    }
    state[file] = "done"
  }

  END {
    for (i = 1; i <= n; i++) {
      to = home[what[i]]
      if (to == "" || to == needs[i] || (needs[i], to) in why) continue
      why[needs[i], to] = what[i]
      calls[needs[i]] = calls[needs[i]] " " to
      files[needs[i]]
    }
    for (file in files) if (state[file] == "") visit(file, 1)
    exit bad
  }'
