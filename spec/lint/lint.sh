#!/bin/sh
# Rules of the house that a compiler does not check. Prints each breach; exits 1 when there is one.
cd "$(dirname "$0")/../.." || exit 1
breaches=0
breach () {
  echo "lint: $1"
  breaches=$((breaches + 1))
}

# Calls point downward only: who may include what.
for f in $(git ls-files 'bindings/extra/*'); do
  grep -nE '#include "' "$f" >/dev/null && breach "$f: an optional module includes Lua and its library only"
done
for f in $(git ls-files 'core/*.c' 'core/*.h'); do
  grep -nE '#include.*(lua|lauxlib|marea_lua)\.h' "$f" >/dev/null && breach "$f: the core includes Lua"
done
for f in $(git ls-files 'core/kernels/*'); do
  grep -nE '#include "(\.\./)?(core|marea|memory)\.h"' "$f" >/dev/null && breach "$f: a kernel includes the core"
done
for f in $(git ls-files 'core/*.c' 'core/ops/*.c' 'core/io/*.c'); do
  grep -nE 'immintrin|_mm[0-9]*_' "$f" >/dev/null && breach "$f: intrinsics belong in core/kernels/vec_*.h"
done
for f in $(git ls-files 'bindings/*.c' 'bindings/*.h' 'examples/*.c'); do
  grep -nE '#include "(core/)?(core|kernels|memory)[a-z/]*\.h"' "$f" >/dev/null && breach "$f: includes a private header"
  grep -nE '\b(malloc|calloc|realloc|free) *\(' "$f" >/dev/null && case $f in bindings/program/*|bindings/extra/*|bindings/sandbox.c|bindings/sandbox_memory.c) false ;; esac && breach "$f: manages memory by hand"
done

# The core never prints, exits or jumps (but out of errors of libpng and libjpeg), and exports nothing but marea_*.
lib=${MAREA_BUILD:-build}/libmarea.a
if [ -f "$lib" ]; then
  for s in exit _exit abort printf fprintf puts putchar perror longjmp _longjmp setjmp _setjmp rand srand signal sigaction __assert_fail; do
    nm -A -u "$lib" 2>/dev/null | grep -E " U $s(@|\$)" | grep -vqE ':(png|jpeg)\.o:.* U (_setjmp|longjmp)$' && breach "$lib: the core calls $s"
  done
  nm -u "$lib" 2>/dev/null | grep -E ' U lua' && breach "$lib: the core calls Lua"
  nm -g --defined-only "$lib" 2>/dev/null | awk 'NF == 3 && $3 !~ /^marea_/ { print "lint: exported without marea_: " $3; bad = 1 } END { exit bad }' \
    || breaches=$((breaches + 1))
fi
for so in ${MAREA_BUILD:-build}/libmarea.so ${MAREA_BUILD:-build}/lib/marea/*.so; do
  [ -f "$so" ] || continue
  nm -D --defined-only "$so" | awk -v so="$so" '$3 !~ /^(marea|luaopen_marea)(_|$)/ { print "lint: " so " exports " $3; bad = 1 } END { exit bad }' \
    || breaches=$((breaches + 1))
done

# Files of operators and of the bindings call each other in no circle, but for one: a sandbox opens the module in a state of
# its own.
for folder in core/ops bindings; do
  sh spec/lint/circles.sh "${MAREA_BUILD:-build}" $folder luaopen_marea_core || breaches=$((breaches + 1))
done

# Layout. Hand-laid tables (kernels.h, LIST.h, the public header, bodies) are left to their authors.
if command -v clang-format >/dev/null 2>&1; then
  for f in $(git ls-files '*.c' bindings/bind.h bindings/interrupt.h bindings/sandbox.h core/io/io.h 'core/ops/*.h'); do
    case $f in */LIST.h) continue ;; esac
    clang-format --dry-run -Werror "$f" >/dev/null 2>&1 || breach "$f: run clang-format -i on it"
  done
fi

# A dtype that is added must stop the compiler wherever it is not handled (docs/architecture.md, "Dtypes").
for f in $(git ls-files 'core/*.[ch]' 'core/io/*.[ch]' 'core/ops/*.[ch]' 'core/ops/*/*.[ch]' 'bindings/*.[ch]'); do
  awk '/switch \(/ { of_dtype = 0 } /case MAREA_(F32|F64|I64|U8):/ { of_dtype = 1 } /default:/ && of_dtype { bad = 1 }
       END { exit bad }' "$f" || breach "$f: a switch on a dtype has a default:"
  grep -nE 'switch \([^)]*(->|\.)dtype\)' "$f" >/dev/null && breach "$f: switch ((marea_dtype)...), or the compiler asks for no case"
  case $f in core/blas.c|core/ops/reduce_loops.c|core/ops/conv*) continue ;; esac
  grep -nE '[=!]= MAREA_F(32|64)\b' "$f" >/dev/null && breach "$f: f32, or else f64: use the functions and switches of core/dtype.h"
done

# Sizes.
for f in $(git ls-files '*.c' '*.h' '*.inc'); do
  n=$(wc -l < "$f")
  [ "$n" -gt 1000 ] && breach "$f: $n lines; a C file stops at 1,000"
done
for f in $(git ls-files 'scripts/*.lua'); do
  n=$(wc -l < "$f")
  [ "$n" -gt 150 ] && breach "$f: $n lines; a script has at most 150"
done

# Words.
for f in $(git ls-files '*.c' '*.h' '*.inc' '*.lua' '*.sh' Makefile); do
  case $f in spec/lint/lint.sh) continue ;; esac
  grep -nE '\b(TODO|FIXME|XXX|HACK)\b' "$f" >/dev/null && breach "$f: something left undone"
done
for f in $(git ls-files 'lua/*.lua' 'scripts/*.lua' 'examples/*' 'docs/*' README.md); do
  grep -n 'collectgarbage' "$f" >/dev/null && breach "$f: nobody needs collectgarbage"
done

[ "$breaches" -eq 0 ] && echo "lint: clean"
[ "$breaches" -eq 0 ]
