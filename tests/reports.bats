#!/usr/bin/env bats
# What the memory tools say of a user's program on hakmem: the exact kind of each mistake, and nothing of a correct one.
# Under AddressSanitizer the program is built with build/asan/libhakmem-asan.a, under Valgrind a preload library is used.

setup() {
    A=$HAK_ROOT/build/asan/libhakmem-asan.a
    V=$HAK_ROOT/build/valgrind/libhakmem-valgrind.so
    USER_C=$HAK_ROOT/tests/support/report_user.c
    cd "$BATS_TEST_TMPDIR" || return
    export ASAN_OPTIONS=external_symbolizer_path=/usr/bin/llvm-symbolizer-14
    unset HAKMEM_QUARANTINE LD_PRELOAD
}

# asan_program COMPILER: ./user, with hakmem under the standard names
asan_program() {
    "$1" -std=gnu11 -g -O0 -fsanitize=address -fno-builtin -I"$HAK_ROOT/include" -include "$HAK_ROOT/sanitizer/override.h" \
        "$USER_C" "$A" -o user -pthread
}

valgrind_program() {
    gcc -std=gnu11 -g -O0 -fno-builtin "$USER_C" -o user -pthread
}

# memcheck LIBRARY COMMAND...
memcheck() {
    local library=$1
    shift
    LD_PRELOAD=$library timeout 120 valgrind --leak-check=full --error-exitcode=99 \
        --soname-synonyms=somalloc=nouserintercepts "$@"
}

# has WORDS...: the output has a line with each of them, in this order.
has() {
    local words rest=$output
    for words; do
        echo "wanted: $words"
        [[ $rest == *"$words"* ]] || { echo "$output" && return 1; }
        rest=${rest#*"$words"}
    done
}

# ---- AddressSanitizer ------------------------------------------------------------------------------------------------

asan_kinds() {
    local bytes
    asan_program "$1"
    for bytes in 24 32 100000; do
        run ./user overflow "$bytes"
        [ "$status" -eq 1 ]
        has "ERROR: AddressSanitizer: heap-buffer-overflow on address" "WRITE of size 1" "in overflow" \
            "is 0 bytes after a block of $bytes bytes at" "allocated here:" "#0 " "in hak_malloc" "#1 " "in make_block" \
            "#2 " "in overflow"

        run ./user use_after_free "$bytes"
        [ "$status" -eq 1 ]
        has "ERROR: AddressSanitizer: heap-use-after-free on address" "READ of size 1" "in use_after_free" \
            "is $((bytes / 2)) bytes inside a freed block of $bytes bytes at" \
            "freed here:" "#0 " "in hak_free" "#1 " "in drop_block" "#2 " "in use_after_free" \
            "previously allocated here:" "#0 " "in hak_malloc" "#1 " "in make_block" "#2 " "in use_after_free"
    done
    run ./user double_free 24
    [ "$status" -eq 134 ]
    has " user]: free(0x" "): double free" "found here:" "#0 " "in hak_free" "in double_free" \
        "is 0 bytes inside a freed block of 24 bytes at" "freed here:" "in drop_block" "previously allocated here:" \
        "in make_block"
}

@test "asan, a program built with clang 14: exact kinds, with both stacks" { asan_kinds clang-14; }

@test "asan, a program built with clang 19: exact kinds, with both stacks" { asan_kinds clang-19; }

@test "asan, a program built with gcc: exact kinds, with both stacks" { asan_kinds gcc; }

@test "asan: a correct program is not reported" {
    asan_program clang-14
    for bytes in 24 5000 100000 3000000; do
        run ./user correct "$bytes"
        echo "$output"
        [ "$status" -eq 0 ]
        [ "$output" = "" ]
    done
}

@test "asan: without the quarantine a use long after the free is not found" {
    asan_program clang-14
    HAKMEM_QUARANTINE=0 run ./user use_after_free 24
    [ "$status" -eq 0 ]
    HAKMEM_QUARANTINE=16 run ./user use_after_free 24
    [ "$status" -eq 0 ]
    HAKMEM_QUARANTINE=1M run ./user use_after_free 24
    [ "$status" -eq 1 ]
}

@test "asan: hak_purge empties the quarantine" {
    cat >purge.c <<'C'
#include "hakmem.h"
static struct hak_stats now(void) {
    struct hak_stats stats = {.version = HAK_STATS_VERSION, .size = sizeof stats};
    return hak_stats_get(&stats) == 0 ? stats : (struct hak_stats){0};
}
int main(void) {
    void *blocks[3] = {hak_malloc(24), hak_malloc(100000), hak_malloc(3000000)};
    for (int i = 0; i < 3; i++) hak_free(blocks[i]);
    struct hak_stats held = now();
    hak_purge();
    struct hak_stats after = now();
    for (int i = 0; i < HAK_LAYER_COUNT; i++)
        if (after.layer[i].live_blocks != 0 || (i != HAK_LAYER_MID) != (held.layer[i].live_blocks == 1)) return i + 1;
    return 0;
}
C
    clang-14 -fsanitize=address -I"$HAK_ROOT/include" purge.c "$A" -o purge -pthread
    ./purge
}

@test "asan: what only a block of hakmem points to is not a leak, what nothing points to is" {
    cat >leaks.c <<'C'
#include "hakmem.h"
#include <stdlib.h>
static void **volatile kept;
int main(int argc, char **argv) {
    static const size_t sizes[] = {24, 100000, 3000000};
    for (int i = 0; i < 3; i++) {
        kept = hak_malloc(sizes[i]);
        kept[1] = malloc(1000);
        void **next = hak_malloc(sizes[i]);
        next[0] = kept;
        kept = next;
        if (argc > 1) ((void **)next[0])[1] = NULL;
    }
    return argv == NULL;
}
C
    clang-14 -g -fsanitize=address -fno-builtin -I"$HAK_ROOT/include" leaks.c "$A" -o leaks -pthread
    run ./leaks
    echo "$output"
    [ "$status" -eq 0 ]
    run ./leaks lose
    [ "$status" -ne 0 ]
    has "LeakSanitizer: detected memory leaks" "SUMMARY: AddressSanitizer: 3000 byte(s) leaked in 3 allocation(s)"
}

# ---- Valgrind --------------------------------------------------------------------------------------------------------

@test "memcheck: exact kinds, with stacks and sizes" {
    valgrind_program
    for bytes in 1000 100000; do
        run memcheck "$V" ./user overflow "$bytes"
        [ "$status" -eq 99 ]
        grouped=$(sed ':again; s/\([0-9]\)\([0-9]\{3\}\)\($\|,\)/\1,\2\3/; t again' <<<"$bytes")
        has "Invalid write of size 1" "by 0x" "main" "is 0 bytes after a block of size $grouped alloc'd" "make_block"

        run memcheck "$V" ./user use_after_free "$bytes"
        [ "$status" -eq 99 ]
        has "Invalid read of size 1" "bytes inside a block of size $grouped free'd" "drop_block" "Block was alloc'd at" \
            "make_block"

        run memcheck "$V" ./user uninitialised "$bytes"
        [ "$status" -eq 99 ]
        has "Conditional jump or move depends on uninitialised value(s)" "uninitialised"

        run memcheck "$V" ./user leak "$bytes"
        [ "$status" -eq 99 ]
        has "$grouped bytes in 1 blocks are definitely lost" "make_block" "LEAK SUMMARY" \
            "definitely lost: $grouped bytes in 1 blocks"
    done
    run memcheck "$V" ./user double_free 24
    has " user]: free(0x" "): double free" "Process terminating with default action of signal 6 (SIGABRT)"
    run memcheck "$V" ./user ring 24
    [ "$status" -eq 99 ]
    has "72 (24 direct, 48 indirect) bytes in 1 blocks are definitely lost"
    run memcheck "$V" ./user reachable 24
    [ "$status" -eq 0 ]
    has "definitely lost: 0 bytes in 0 blocks" "ERROR SUMMARY: 0 errors"
    run memcheck "$V" ./user correct 24
    [ "$status" -eq 0 ]
    has "ERROR SUMMARY: 0 errors"
}

@test "memcheck: the leaks of perl are those that it has on Valgrind's own malloc" {
    export PERL_HASH_SEED=0
    summary() { sed -n 's/^==[0-9]*== *\(definitely lost: .*\|indirectly lost: .*\)/\1/p'; }
    own=$(valgrind --leak-check=full /usr/bin/perl -e 'print 1' 2>&1 | summary)
    on_hakmem=$(memcheck "$V" /usr/bin/perl -e 'print 1' 2>&1 | summary)
    echo "$own"
    echo "$on_hakmem"
    [[ $own == *"definitely lost: "[1-9]* ]]
    [ "$own" = "$on_hakmem" ]
}

@test "memcheck: the release library runs as it is, and serves the program" {
    HAKMEM_STATS_FILE=$PWD/stats run memcheck "$HAK_BUILD/libhakmem.so" /usr/bin/python3 -c 'print(sum(range(1000)))'
    echo "$output"
    [ "$status" -eq 0 ]
    has 499500 "total heap usage: 0 allocs, 0 frees" "ERROR SUMMARY: 0 errors"
    grep '"program":"python3"' stats | grep -q '"served_blocks":[1-9][0-9][0-9]'
}

@test "memcheck: without the option Valgrind's malloc takes the place of hakmem's" {
    valgrind_program
    HAKMEM_STATS_FILE=$PWD/stats LD_PRELOAD=$V run valgrind --leak-check=full ./user leak 24
    has "definitely lost: 24 bytes in 1 blocks"
    run grep '"program":"user"' stats
    [[ $output == *'"served_blocks":0'* ]]
}

# ---- ThreadSanitizer and MemorySanitizer: tests/api_misuse.c; here what all configurations have in common -----------

@test "the suppression files exist and are empty" {
    for tool in asan lsan tsan ubsan valgrind; do
        [ -f "$HAK_ROOT/sanitizer/$tool.supp" ]
        [ ! -s "$HAK_ROOT/sanitizer/$tool.supp" ]
    done
    [ "$(find "$HAK_ROOT/sanitizer" -name '*.supp' | wc -l)" -eq 5 ]
}

@test "each configuration says what it proves and what not" {
    for file in "$HAK_ROOT"/sanitizer/*.mk; do
        echo "$file"
        grep -q '^# Proves' "$file"
        grep -Eq '^# (.*[Dd]oes not prove: |Proves nothing )' "$file"
    done
}
