#!/usr/bin/env bats
# What real programs see of the adaptive thread cache and of the limit of superslabs: the lines on stderr, and ENOMEM.

setup() {
    lib=$HAK_BUILD/libhakmem.so
    dir=$(mktemp -d)
    export PYTHONMALLOC=malloc
}

teardown() {
    rm -rf "$dir"
}

# python OPTION... : a program that holds 100,000 blocks of one size, says how many it got, and frees them.
python() {
    env "$@" LD_PRELOAD="$lib" /usr/bin/python3 -c '
blocks = [None] * 100000
got = 0
try:
    for got in range(100000):
        blocks[got] = bytes(31)
    got = 100000
except MemoryError:
    pass
blocks = None
print(got)' >"$dir/out" 2>"$dir/err"
}

@test "HAKMEM_LOG=1 tells of each step of a bin, each beginning where the last one ended, and of nothing else" {
    python HAKMEM_LOG=1
    [ "$(cat "$dir/out")" -eq 100000 ]
    [ "$(grep -cvE '^\[TLS_CACHE\] class [0-9]+: [0-9]+ → [0-9]+ slots \(hwm=[0-9]+\)$' "$dir/err")" -eq 0 ]
    for slots in 16 32 64 128 256 512 1024; do
        grep -qxF "[TLS_CACHE] class 64: $slots → $((2 * slots)) slots (hwm=$slots)" "$dir/err"
        grep -qxF "[TLS_CACHE] class 64: $((2 * slots)) → $slots slots (hwm=0)" "$dir/err"
    done
    awk '{ if ($3 in now ? $4 != now[$3] : $4 > 16) bad = 1
           if ($6 != 2 * $4 && $6 != int($4 / 2) && $6 != int(262144 / $3)) bad = 1
           if ($6 * $3 > 262144) bad = 1
           now[$3] = $6 }
         END { exit bad }' "$dir/err"
}

@test "a bin stops at HAKMEM_TLS_SLOTS_MAX, and one whose limits are equal never changes" {
    python HAKMEM_LOG=1 HAKMEM_TLS_SLOTS_MAX=64
    grep -qxF '[TLS_CACHE] class 64: 32 → 64 slots (hwm=32)' "$dir/err"
    [ "$(awk '$6 > 64' "$dir/err" | wc -l)" -eq 0 ]
    python HAKMEM_LOG=1 HAKMEM_TLS_SLOTS_MIN=64 HAKMEM_TLS_SLOTS_MAX=64 HAKMEM_TLS_BYTES=1G
    [ ! -s "$dir/err" ]
}

@test "without HAKMEM_LOG nothing is said" {
    python HAKMEM_LOG=0
    [ ! -s "$dir/err" ]
}

@test "a program has more than 32 slabs of a size; with HAKMEM_SUPERSLABS_MAX=1 it is refused, and lives on" {
    python HAKMEM_SUPERSLABS_MAX=0
    [ "$(cat "$dir/out")" -eq 100000 ]
    python HAKMEM_SUPERSLABS_MAX=1
    [ "$(cat "$dir/out")" -gt 20000 ]
    [ "$(cat "$dir/out")" -lt 32768 ] # 32 slabs of 64 KiB, blocks of 64 bytes; the interpreter has some of its own
    [ ! -s "$dir/err" ]
}
