#!/usr/bin/env bats
# The benchmark programs of the thread cache and of superslabs: what they print, and that a wrong byte or a failed run is
# not passed over.

bench=$HAK_BUILD/bench

setup() { cd "$BATS_TEST_TMPDIR" || return 1; }

# prints LINE...: the output has exactly these figures, none of them 0.
prints() {
    diff <(printf '%s\n' "$@") <(sed -E 's/: [1-9][0-9]* /: N /' out)
}

@test "larson and random_mixed print their throughput, linked with hakmem and without" {
    for twin in hakmem system; do
        "$bench/larson_$twin" 0.05 8 128 1024 1 12345 4 >out
        prints "throughput: N ops/s" "threads started: N threads"
        [ "$(sed -n 's/threads started: \([0-9]*\) .*/\1/p' out)" -gt 4 ] # threads hand over to others
        "$bench/random_mixed_$twin" 100000 1000 1 2 >out
        prints "throughput: N ops/s" "operations: N blocks"
    done
    HAKMEM_STATS=1 "$bench/larson_hakmem" 0.05 8 128 16 1 1 1 2>&1 | grep -q "hakmem.*tiny"
    [ -z "$(HAKMEM_STATS=1 "$bench/larson_system" 0.05 8 128 16 1 1 1 2>&1 >out)" ]
}

@test "the others do, with what hakmem tells where it is preloaded" {
    "$bench/tls_cache" 1000 100 1 2 >out
    prints "throughput: N ops/s"
    LD_PRELOAD=$HAK_BUILD/libhakmem.so "$bench/tls_cache" 1000 100 1 2 >out
    prints "throughput: N ops/s" "cached, mean: N bytes" "cached, most: N bytes"
    "$bench/first_request" 10 3 4 >out
    prints "first request, p50: N ns" "first request, p99: N ns" "per thread: N ns"
    HAKMEM_LOG=1 LD_PRELOAD=$HAK_BUILD/libhakmem.so "$bench/bursty" 100 50 1 >out 2>err
    prints "operations: N operations"
    [ "$(grep phase: err | xargs)" = "phase: quiet phase: burst phase: quiet" ]
    grep -qE '^cached: [0-9]+ bytes$' err
    grep -qxF '[TLS_CACHE] class 64: 1024 → 2048 slots (hwm=1024)' err
    HAKMEM_SUPERSLABS_MAX=1 LD_PRELOAD=$HAK_BUILD/libhakmem.so "$bench/expansion" 1024 4 2 >out
    grep -qx 'slabs: 64 slabs' out
    grep -qx 'threads refused: 2 threads' out
    grep -qx 'threads refused with ENOMEM: 2 threads' out
}

@test "wrong arguments are refused with status 2, and --help tells the right ones" {
    for program in larson random_mixed tls_cache first_request bursty expansion; do
        "$bench/$program" --help | grep -q '^usage: '
        run "$bench/$program" 1
        [ "$status" -eq 2 ]
    done
    for seconds in 0 -1 x 1s ''; do
        run "$bench/larson" "$seconds" 8 128 1024 1 1 1
        [ "$status" -eq 2 ]
    done
    run "$bench/larson" 1 128 8 1024 1 1 1
    [ "$status" -eq 2 ]
}

@test "a block that is given out twice ends larson, random_mixed and expansion with status 1" {
    cat >twice.c <<'C'
/* No block is ever used again, but each thousandth is the one before it once more. */
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#define ROOM ((size_t)1 << 31)
static char room[ROOM] __attribute__((aligned(16)));
static atomic_size_t used, count;
void *malloc(size_t size) {
    static _Thread_local char *before __attribute__((tls_model("initial-exec")));
    if (size <= 1024 && before != NULL && ++count % 1000 == 0) return before;
    size_t at = atomic_fetch_add(&used, (size + 31) / 16 * 16);
    if (at + size > ROOM) return NULL;
    if (size <= 1024) before = room + at;
    return room + at;
}
void free(void *ptr) { (void)ptr; }
void *calloc(size_t n, size_t size) { return malloc(n * size); }
void *realloc(void *old, size_t size) { return old == NULL ? malloc(size) : memmove(malloc(size), old, size); }
C
    gcc -shared -fPIC -O1 -fno-builtin twice.c -o twice.so
    while read -r command; do
        # shellcheck disable=SC2086  # a program and its arguments
        LD_PRELOAD=$PWD/twice.so run "$bench"/$command
        [ "$status" -eq 1 ]
        [[ $output == *"is not as it was written"* ]]
    done <<'END'
larson 0.2 16 128 1024 1 1 2
random_mixed 100000 1000 1 2
expansion 64 4 1
END
}

@test "a run that fails, or does nothing, counts as failed" {
    PYTHONPATH=$HAK_ROOT/bench python3 -c '
import stability
assert stability.run_often(["echo", "throughput: 5 ops/s"], 3) == []
assert len(stability.run_often(["false"], 3)) == 3
assert stability.run_often(["sh", "-c", "echo twice >&2; exit 3"], 1) == ["status 3: twice"]
assert stability.run_often(["sh", "-c", "kill -9 $$"], 1) == ["status -9: "]
assert stability.run_often(["echo", "throughput: 0 ops/s"], 1) == ["nothing was done"]' 2>/dev/null
}
