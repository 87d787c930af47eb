#!/usr/bin/env bash
# What the release libraries export and need, against tests/exports.txt: tools/lint/symbols.sh BUILD_DIRECTORY
set -u
build=$1
bad=0
complain() {
    echo "$*"
    bad=1
}
same_as_list() { # NAME: the list on stdin equals the golden list
    diff <(LC_ALL=C sort tests/exports.txt) <(LC_ALL=C sort) || complain "$1: exports differ from tests/exports.txt (<: missing, >: too many)"
}

same_as_list hakmem.o < <(nm --defined-only --extern-only --format=posix "$build/hakmem.o" | awk '{ print $1 }')
[ "$(ar t "$build/libhakmem.a")" = hakmem.o ] || complain "libhakmem.a: holds other members than hakmem.o"

for library in libhakmem.so libhakmem-checked.so; do
    file=$build/$library
    same_as_list "$library" < <(nm -D --defined-only --format=posix "$file" | awk '{ print $1 }')

    needed=$(readelf -dW "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | xargs)
    [[ $needed =~ ^libc\.so\.6(\ ld-linux-[a-z0-9-]+\.so\.[0-9])?$ ]] || complain "$library: needs $needed; only the C library is wanted"

    # Initial-exec thread-local storage of at most 64 bytes: dlopen must find room for it.
    tls=$(readelf -lW "$file" | awk '$1 == "TLS" { print $6 }')
    [ $((${tls:-0})) -le 64 ] || complain "$library: $((tls)) bytes of thread-local storage, the limit is 64"

    # It never falls back to another allocator, nor calls what allocates. C++ names are weak, for operator new only.
    wanted=$(nm -D --undefined-only --format=posix "$file" | awk '{ sub(/@.*/, "", $1); print $1 }')
    for name in malloc calloc realloc free aligned_alloc memalign posix_memalign __libc_malloc __libc_free \
        __libc_memalign strdup strndup asprintf vasprintf getline fopen fdopen opendir qsort setenv putenv \
        atexit __cxa_atexit __tls_get_addr backtrace; do
        grep -qx "$name" <<<"$wanted" && complain "$library: calls $name, which may allocate"
    done
    strong=$(nm -D --undefined-only --format=posix "$file" | awk '$2 == "U" && $1 ~ /^(_Z|__cxa_|__gxx_|_Unwind_)/ { print $1 }' | xargs)
    [ -z "$strong" ] || complain "$library: needs a C++ runtime for $strong"
done

# Only who looks for a C++ runtime, to throw bad_alloc with it, may ask the dynamic linker.
for object in "$build"/obj/src/*/*.o; do
    [ "${object##*/}" = cxx_runtime.o ] && continue
    nm -u "$object" | grep -E ' (dlsym|dlopen|dladdr)$' && complain "$object: asks the dynamic linker, which may allocate"
done
exit $bad
