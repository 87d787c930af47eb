#!/usr/bin/env bats
# What a process says of itself at its end, as other programs read it.

setup() {
    lib=$HAK_BUILD/libhakmem.so
    dir=$(mktemp -d)
    export PYTHONMALLOC=malloc
}

teardown() {
    rm -rf "$dir"
}

# A program that allocates in each layer, keeps some of it, and writes nothing.
program='blocks = [bytes(n) for n in (100, 20000, 200000, 3000000) for i in range(10)]'

@test "HAKMEM_STATS=json prints one JSON object with every layer on stderr" {
    HAKMEM_STATS=json LD_PRELOAD=$lib /usr/bin/python3 -c "$program" 2>"$dir/err"
    [ "$(wc -l <"$dir/err")" -eq 1 ]
    jq -e '.version == 1 and .program == "python3" and (.pid | type == "number")' "$dir/err"
    jq -e '.layers | keys == ["big", "l25", "mid", "tiny"]' "$dir/err"
    jq -e '[.layers[] | .served_blocks > 0 and .served_bytes >= .served_blocks] | all' "$dir/err"
    jq -e '[.layers[][], (del(.layers, .program) | .[])] | all(type == "number" and . >= 0)' "$dir/err"
    jq -e '.layers.l25.served_bytes >= 2000000 and .layers.big.served_blocks >= 10' "$dir/err"
}

@test "the JSON has the fields of struct hak_stats, in its order" {
    HAKMEM_STATS=json LD_PRELOAD=$lib /usr/bin/python3 -c "$program" 2>"$dir/err"
    fields() { # STRUCT TYPE: the names of its fields of that type
        sed -n "/^struct $1 {/,/^}/p" "$HAK_ROOT/include/hakmem.h" | sed -nE "s/^ *$2 ([a-z0-9_]+);.*/\1/p"
    }
    diff <(fields hak_layer_stats uint64_t) <(jq -r '.layers.tiny | keys_unsorted[]' "$dir/err")
    diff <(echo version; echo pid; echo program; echo layers; fields hak_stats uint64_t) \
        <(jq -r 'keys_unsorted[]' "$dir/err")
}

@test "HAKMEM_STATS=1 prints text, each line with the head" {
    HAKMEM_STATS=1 LD_PRELOAD=$lib /usr/bin/python3 -c "$program" 2>"$dir/err"
    grep -qE '^hakmem\[[0-9]+ python3\]: tiny( +[0-9]+){7}$' "$dir/err"
    grep -qE '^hakmem\[[0-9]+ python3\]: big( +[0-9]+){7}$' "$dir/err"
    [ "$(grep -cvE '^hakmem\[[0-9]+ python3\]: ' "$dir/err")" -eq 0 ]
}

@test "without the option nothing is printed" {
    LD_PRELOAD=$lib /usr/bin/python3 -c "$program" 2>"$dir/err"
    [ ! -s "$dir/err" ]
}

@test "HAKMEM_STATS_FILE gets one line per process of a tree, each of them whole" {
    HAKMEM_STATS_FILE=$dir/lines LD_PRELOAD=$lib /usr/bin/python3 -c '
import subprocess, sys
children = [subprocess.Popen([sys.executable, "-c", "x = bytes(3000000)"]) for i in range(20)]
sys.exit(max(child.wait() for child in children))' 2>"$dir/err"
    [ ! -s "$dir/err" ]
    [ "$(wc -l <"$dir/lines")" -eq 21 ]
    [ "$(jq -s 'map(.pid) | unique | length' "$dir/lines")" -eq 21 ]
    [ "$(jq -s 'map(select(.layers.big.served_blocks >= 1)) | length' "$dir/lines")" -ge 20 ]
}

@test "a file that statistics cannot be appended to is told once, also by a program that closes stderr at its end" {
    for program in "sort /dev/null" "perl -e 1"; do
        for start in 0 1; do
            # shellcheck disable=SC2086  # a program and its arguments
            HAKMEM_STATS_START=$start HAKMEM_STATS_FILE=/dev LD_PRELOAD=$lib $program 2>"$dir/err"
            grep -qxE 'hakmem\[[0-9]+ [a-z]+\]: HAKMEM_STATS_FILE: cannot append to /dev' "$dir/err"
            [ "$(wc -l <"$dir/err")" -eq 1 ]
        done
    done
}

@test "HAKMEM_STATS_FILE may be a pipe" {
    mkfifo "$dir/pipe"
    timeout 20 cat "$dir/pipe" >"$dir/lines" 3>&- &
    timeout 20 env HAKMEM_STATS_FILE="$dir/pipe" LD_PRELOAD="$lib" sort /dev/null
    wait $!
    [ "$(jq -r .program "$dir/lines")" = sort ]
}

@test "HAKMEM_STATS_START=1 adds a line for each start, by exec and by fork" {
    HAKMEM_STATS_START=1 HAKMEM_STATS_FILE=$dir/lines LD_PRELOAD=$lib /usr/bin/python3 -c '
import os
if os.fork() == 0: os._exit(0)
os.wait()'
    [ "$(jq -c '[.version, .program, .start]' "$dir/lines" | xargs)" = "[1,python3,exec] [1,python3,fork] [1,python3,null]" ]
    [ "$(jq -s '.[0].pid == .[2].pid and .[0].pid != .[1].pid' "$dir/lines")" = true ]
    HAKMEM_STATS_START=1 LD_PRELOAD=$lib /usr/bin/python3 -c '' 2>"$dir/err"
    [ ! -s "$dir/err" ]
}

@test "a hakmem behind another malloc leaves no statistics" {
    gcc "$HAK_ROOT/tests/support/life_linked.c" "$HAK_BUILD/hakmem.o" -pthread -o "$dir/linked"
    gcc -no-pie "$HAK_ROOT/tests/support/life_linked.c" -pthread -o "$dir/fixed"
    HAKMEM_STATS_START=1 HAKMEM_STATS_FILE=$dir/lines LD_PRELOAD=$lib "$dir/linked"
    [ "$(jq -r '.start // "end"' "$dir/lines" | xargs)" = "exec fork end" ]
    # A program at a fixed address may put a place of its own for malloc: it is on hakmem all the same.
    rm "$dir/lines"
    HAKMEM_STATS_START=1 HAKMEM_STATS_FILE=$dir/lines LD_PRELOAD=$lib "$dir/fixed" || true
    [ "$(jq -r '.start // "end"' "$dir/lines" | xargs)" = "exec fork end" ]
    # Nor does one that nobody calls; one that is used by its own names does.
    cat >"$dir/late.c" <<'C'
#include <dlfcn.h>
#include <stddef.h>
int main(int argc, char **argv) {
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    void *(*allocate)(size_t) = dlsym(library, "hak_malloc");
    return argc > 2 && !allocate(100);
}
C
    gcc "$dir/late.c" -o "$dir/late" -ldl
    HAKMEM_STATS=json "$dir/late" "$lib" 2>"$dir/err"
    [ ! -s "$dir/err" ]
    HAKMEM_STATS=json "$dir/late" "$lib" used 2>"$dir/err"
    jq -e '.layers.tiny.served_blocks > 0' "$dir/err"
}

@test "a program that has closed its standard error still prints there, and leaves its line in the file" {
    HAKMEM_STATS=json HAKMEM_STATS_FILE=$dir/lines LD_PRELOAD=$lib /usr/bin/python3 -c '
import os
os.close(2)' 2>"$dir/err"
    [ "$(jq -r .program "$dir/err")" = python3 ]
    [ "$(jq -r .program "$dir/lines")" = python3 ]
}

@test "a program that may have few files open still prints there" {
    for files in 101 100 64 8; do # from 101 up there is room out of the way of its own
        (ulimit -n $files && HAKMEM_STATS=json LD_PRELOAD=$lib /bin/true) 2>"$dir/err"
        [ "$(jq -r .program "$dir/err")" = true ]
    done
}

@test "HAKMEM_HELP=1 prints a line per option of the table" {
    HAKMEM_HELP=1 LD_PRELOAD=$lib /usr/bin/python3 -c "" 2>"$dir/err"
    # Without those that only other builds have.
    options=$(gcc -E -P -DHAK_QUARANTINE=0 -x c "$HAK_ROOT/src/base/options.def" | grep -c '^HAK_OPTION(')
    [ "$(wc -l <"$dir/err")" -eq $((options + 1)) ]
    [ "$(grep -cE '^hakmem\[[0-9]+ python3\]: HAKMEM_[A-Z0-9_]+ +(bool|number|text) ' "$dir/err")" -eq "$options" ]
}

@test "an unknown option is answered with the nearest one if one is near, a bad value with the value used" {
    HAKMEM_STAT=1 HAKMEM_PREWARM=99 HAKMEM_NONSENSE=1 HAKMEM_TLS_SLOTS_MAX=4 LD_PRELOAD=$lib /usr/bin/python3 -c "" 2>"$dir/err"
    [ "$(wc -l <"$dir/err")" -eq 3 ]
    grep -qE '^hakmem\[[0-9]+ [^]]+\]: HAKMEM_NONSENSE is not an option and ignored; HAKMEM_HELP=1 lists those that are$' "$dir/err"
    grep -qE '^hakmem\[[0-9]+ [^]]+\]: HAKMEM_STAT is not an option and ignored; the nearest one is HAKMEM_STATS$' "$dir/err"
    grep -qE '^hakmem\[[0-9]+ [^]]+\]: HAKMEM_PREWARM="99" is out of range 0\.\.16; used: 16$' "$dir/err"
}
