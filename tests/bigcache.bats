#!/usr/bin/env bats
# BigCache under programs: the lines of its growth, its limits in the counters; and the programs that measure it.
# Decay is put off, so that nothing depends on the time that a program takes.

setup() {
    cd "$BATS_TEST_TMPDIR" || return
    bench=$HAK_BUILD/bench
    export HAKMEM_BIGCACHE_DECAY_MS=3600000 HAKMEM_PURGE_DELAY_MS=3600000
}

# on_hakmem COMMAND...: its statistics are left in ./stats, its log in ./log.
on_hakmem() {
    rm -f stats
    HAKMEM_LOG=1 HAKMEM_STATS_FILE=$PWD/stats LD_PRELOAD=$HAK_BUILD/libhakmem.so "$@" 2>stderr
    grep '^\[BIGCACHE\]' stderr >log || true
}

# growths LAST: what is logged while the table grows from 256 buckets to LAST, at three quarters each time
growths() {
    local from
    for ((from = 256; from < $1; from *= 2)); do
        echo "[BIGCACHE] Resized: $from → $((2 * from)) buckets ($((from * 3 / 4)) entries)"
    done
}

@test "a program whose cache grows says so, exactly, in one write each time" {
    cat >writes.py <<'PY'
import socket, subprocess, sys
# On such a socket each write is a message.
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
child = subprocess.Popen(sys.argv[1:], stderr=theirs)
theirs.close()
while message := ours.recv(4096):
    print(ascii(message.decode()))
sys.exit(child.wait())
PY
    /usr/bin/python3 writes.py env HAKMEM_LOG=1 LD_PRELOAD="$HAK_BUILD/libhakmem.so" \
        /usr/bin/python3 -c 'blocks = [bytearray(1 << 20 | i) for i in range(1, 401)]; del blocks' >messages
    cat messages
    diff <(grep BIGCACHE messages) - <<'LINES'
'[BIGCACHE] Resized: 256 \u2192 512 buckets (192 entries)\n'
'[BIGCACHE] Resized: 512 \u2192 1024 buckets (384 entries)\n'
LINES
}

@test "without HAKMEM_LOG it says nothing" {
    LD_PRELOAD=$HAK_BUILD/libhakmem.so "$bench/bigcache_growth" 400 2>stderr
    [ ! -s stderr ]
}

@test "the table grows from 256 to 65,536 buckets in one run, and no further" {
    HAKMEM_BIGCACHE_MAPPED=256G HAKMEM_BIGCACHE_RESIDENT=256G on_hakmem "$bench/bigcache_growth" 60000
    diff log <(growths 65536)
    jq -e '.big_buckets == 65536 and .big_resizes == 8 and .big_evictions == 0 and .big_misses == 60000' stats
}

@test "under Memcheck, which finds no mistake, the table grows as it does without" {
    HAKMEM_QUARANTINE=0 HAKMEM_LOG=1 LD_PRELOAD=$HAK_ROOT/build/valgrind/libhakmem-valgrind.so valgrind --leak-check=full \
        --errors-for-leak-kinds=definite --error-exitcode=99 --soname-synonyms=somalloc=nouserintercepts \
        "$bench/bigcache_growth" 400 2>stderr || { cat stderr && return 1; }
    diff <(grep BIGCACHE stderr) <(growths 1024)
    grep "ERROR SUMMARY: 0 errors" stderr
}

@test "the budgets hold: over that of what is mapped the rest is evicted, over that of what is dirty the rest is purged" {
    HAKMEM_BIGCACHE_MAPPED=100M HAKMEM_BIGCACHE_RESIDENT=256G on_hakmem "$bench/bigcache_growth" 1000
    jq -e '.layers.big.cached_bytes / 1048576 | . > 97 and . <= 100' stats
    jq -e '.big_evictions > 900 and .big_evictions < 952' stats
    jq -e '.layers.big | .cached_bytes == .served_bytes - .purged_bytes' stats
    HAKMEM_BIGCACHE_MAPPED=256G HAKMEM_BIGCACHE_RESIDENT=10M on_hakmem "$bench/bigcache_growth" 1000
    jq -e '.layers.big | (.served_bytes - .purged_bytes) / 1048576 | . > 7 and . <= 10' stats
    jq -e '.big_evictions == 0 and .layers.big.cached_bytes == .layers.big.served_bytes' stats
}

@test "the table that is kept at 256 buckets with 8 entries in a chain evicts the rest" {
    HAKMEM_BIGCACHE_MAPPED=256G HAKMEM_BIGCACHE_BUCKETS_MAX=256 HAKMEM_BIGCACHE_CHAIN_MAX=8 \
        on_hakmem "$bench/bigcache_growth" 3000
    [ ! -s log ]
    jq -e '.big_buckets == 256 and .big_resizes == 0' stats
    jq -e '.big_evictions >= 3000 - 256 * 8 and .big_evictions < 3000' stats
}

# rate COMMAND...: requests over 1 MiB that the cache served, in percent
rate() {
    on_hakmem "$@" >/dev/null
    jq '100 * .big_hits / (.big_hits + .big_misses) | floor' stats
}

@test "bursts of more blocks than its chains have room for miss in the fixed table only" {
    for workload in uniform pareto; do
        dynamic=$(HAKMEM_RETAIN_PERCENT=0 rate "$bench/bigcache_load" "$workload" 20 384)
        fixed=$(HAKMEM_BIGCACHE_BUCKETS_MAX=256 HAKMEM_BIGCACHE_CHAIN_MAX=8 HAKMEM_RETAIN_PERCENT=0 \
            rate "$bench/bigcache_load" "$workload" 20 384)
        echo "$workload: $fixed $dynamic"
        [ "$dynamic" -ge $((fixed + 10)) ]
    done
}

# ---- the programs that measure it ------------------------------------------------------------------------------------

# record FILE COMMAND...
record() {
    local file=$1
    shift
    HAK_RECORD=$PWD/$file LD_PRELOAD=$bench/bigcache_record "$@"
}

# operations FILE: the lines of a recording without the time
operations() { grep -v '^#' "$1" | cut -d ' ' -f 2-; }

@test "the recorder writes each operation on blocks over 1 MiB, with its call site" {
    cat >program.c <<'C'
#include <malloc.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#define MIB (1 << 20)
static void *blocks[4];
__attribute__((noipa)) static void one_site(int i) { blocks[i] = malloc(MIB + 1 + i); }
int main(void) {
    one_site(0);
    one_site(1);
    blocks[2] = malloc(MIB);
    blocks[2] = realloc(blocks[2], 2 * MIB);
    blocks[2] = realloc(blocks[2], 3 * MIB);
    free(blocks[1]);
    blocks[1] = calloc(2, MIB);
    blocks[2] = realloc(blocks[2], 1000);
    blocks[3] = memalign(4096, 2 * MIB);
    free(blocks[0]);
    if (fork() == 0) return malloc(2 * MIB) == NULL;
    wait(NULL);
    if (posix_memalign(&blocks[0], 64, 2 * MIB) != 0) return 1;
    free(blocks[2]);
    return 0;
}
C
    gcc -O1 -fno-builtin program.c -o program
    record trace ./program
    [ "$(head -n 1 trace)" = "# ./program" ]
    diff <(operations trace) - <<'LINES'
+ 0 1048577 0
+ 1 1048578 0
+ 2 2097152 1
= 2 3145728 2
- 1
+ 1 2097152 3
- 2
+ 2 2097152 4
- 0
+ 0 2097152 5
LINES
    grep -v '^#' trace | cut -d ' ' -f 1 | sort -nc
}

@test "a replay does what was recorded, from as many call sites; the loads have those that they say" {
    record uniform "$bench/bigcache_load" uniform 2 20
    record pareto "$bench/bigcache_load" pareto 2 100
    [ "$(operations uniform | awk '$1 == "+" { print $4 }' | sort -u | wc -l)" -eq 1 ]
    [ "$(operations pareto | awk '$1 == "+" { print $4 }' | sort -u | wc -l)" -eq 4 ]
    operations uniform | awk '$1 == "+" && ($3 <= 1048576 || $3 > 4 * 1048576) { exit 1 }'
    for recorded in uniform pareto; do
        record again "$bench/bigcache_load" trace "$recorded" >out
        diff <(operations "$recorded") <(operations again)
        grep -qx "operations: $(operations "$recorded" | wc -l)" out
    done
}

@test "what is no recording is refused" {
    printf '0 + 0 2000000 0\n1 + 1\n' >half
    echo '0 + 70000 2000000 0' >beyond
    for wrong in half beyond "$HAK_ROOT/README.md" none; do
        run "$bench/bigcache_load" trace "$wrong"
        echo "$output"
        [ "$status" -eq 1 ]
        [[ $output == *"recording"* ]]
    done
}

@test "the recording that is shipped is of a program with many blocks" {
    on_hakmem "$bench/bigcache_load" trace "$HAK_ROOT/bench/traces/imagemagick.trace" >out
    recorded=$(operations "$HAK_ROOT/bench/traces/imagemagick.trace")
    grep -qx "operations: $(wc -l <<<"$recorded")" out
    [ "$(jq '.big_hits + .big_misses' stats)" -eq "$(grep -c '^+' <<<"$recorded")" ]
    [ "$(grep -c '^+' <<<"$recorded")" -gt 256 ]
}
