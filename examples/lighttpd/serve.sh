#!/bin/sh
# A page on which the pointer moves over the latent plane of a decoder and the digit there is shown as it goes:
#
#   sh examples/lighttpd/serve.sh [PORT]        and open http://127.0.0.1:8080/
#
# Needs Debian's lighttpd-modules-lua, and Marea: built in these sources, or installed.
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
export DIGITS="$here" DIGITS_PORT="${1:-8080}"
export LUA_PATH="$here/?.lua;$root/lua/?.lua;$root/lua/?/init.lua;;"
export LUA_CPATH="$root/${MAREA_BUILD:-build}/lib/?.so;;"
PATH=$PATH:/usr/sbin exec lighttpd -D -f "$here/lighttpd.conf"
