#!/usr/bin/env bash
# Compiles one test or bench program: ci/compile.sh CC SOURCE OUTPUT FLAGS... -- LIBRARIES...
# A first line `/* build: FLAGS */` in SOURCE adds FLAGS behind the given ones. There, $B stands for build/release, a
# leading CC=NAME replaces the compiler, and `nolibs` drops the given libraries. Examples:
#   /* build: -shared -fPIC */
#   /* build: CC=musl-gcc -static $B/hakmem.o nolibs */
set -eu
cc=$1 source=$2 output=$3
shift 3
flags=()
while [ "$1" != -- ]; do
    flags+=("$1")
    shift
done
shift
libraries=("$@")

wanted=$(sed -n '1s|^/\* build: \(.*\) \*/$|\1|p' "$source")
# shellcheck disable=SC2034  # B is for the expansion of $B in the source's line
B=build/release
read -ra words <<<"${wanted//\$B/$B}"
extra=()
for word in "${words[@]}"; do
    case $word in
    CC=*) cc=${word#CC=} ;;
    nolibs) libraries=() ;;
    *) extra+=("$word") ;;
    esac
done
exec "$cc" "${flags[@]}" -o "$output" "$source" "${extra[@]}" "${libraries[@]}"
