#!/usr/bin/env bash
# Runs targets under AFL++, one after the other: fuzz/afl.sh TARGET... (make fuzz-afl). Two instances each, in persistent
# mode: a main one without a sanitizer, with CMPLOG for targets whose input is no sequence of operations, and a secondary
# one with ASan. While they run there is one status line; at the end a table, and for each finding the command that
# reproduces it. Findings are minimised and saved as corpus/TARGET/regress-WHAT. Fails if there are any.
#   FUZZ_TIME  seconds per target
# The queues stay in build/afl-out, and are taken up again by the next run.
set -eu
shopt -s nullglob
cd "$(dirname "$0")/.."
: "${FUZZ_TIME:=60}" "${MINIMISE_TIME:=20}"
out=build/afl-out
table=$out/table
findings=$out/findings
mkdir -p "$out"
: >"$table"
: >"$findings"
# No screen, no demands on the machine's settings, no processor of its own: the machine may have only two.
export AFL_NO_UI=1 AFL_SKIP_CPUFREQ=1 AFL_NO_AFFINITY=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 AFL_AUTORESUME=1
asan=abort_on_error=1:symbolize=0:detect_leaks=0

# figure INSTANCE NAME: of its fuzzer_stats; 0 if it has none yet.
figure() {
    local value
    value=$(sed -n "s/^$2 *: *\([0-9]*\).*/\1/p" "$1/fuzzer_stats" 2>/dev/null || true)
    echo "${value:-0}"
}

sum() { echo $(($(figure "$1/main" "$2") + $(figure "$1/asan" "$2"))); }

status() {
    local target=$1 left=$2 at=$out/$1
    printf '\r%-16s %10d executions %7d/s  coverage %6d  corpus %5d  findings %d  %4d s left ' "$target" \
        "$(sum "$at" execs_done)" "$(sum "$at" execs_per_sec)" "$(figure "$at/main" edges_found)" \
        "$(figure "$at/main" corpus_count)" "$(sum "$at" saved_crashes)" "$left" >&2
}

is_ops() { grep -q '^/\* fuzz: .*\bmutate\b' "fuzz/$1.c"; }

# save TARGET CRASH
save() {
    local target=$1 command=(env ASAN_OPTIONS=detect_leaks=0 "build/asan/fuzz/$1") saved
    saved=$(MINIMISE_TIME=$MINIMISE_TIME fuzz/minimise.py "$2" /dev/null "corpus/$target" "${command[@]}")
    if [ -n "$saved" ]; then printf '%s:\n    %s %s\n' "$saved" "${command[*]}" "$saved" >>"$findings"; fi
}

fuzz_one() {
    local target=$1 at=$out/$1 seeds=corpus/$1 main=() mutator=() end left crash found=0 pids
    rm -rf "$at"/*/crashes
    if is_ops "$target"; then
        mutator=(AFL_CUSTOM_MUTATOR_LIBRARY="$PWD/build/afl/fuzz/mutate.so" AFL_CUSTOM_MUTATOR_ONLY=1)
    else
        main=(-c "build/aflcmplog/fuzz/$target")
    fi
    env "${mutator[@]}" afl-fuzz -m none -t 10000+ -V "$FUZZ_TIME" -i "$seeds" -o "$at" -M main "${main[@]}" \
        -- "build/afl/fuzz/$target" >"$out/$target-main.log" 2>&1 </dev/null &
    pids=$!
    env "${mutator[@]}" ASAN_OPTIONS=$asan afl-fuzz -m none -t 10000+ -V "$FUZZ_TIME" -i "$seeds" -o "$at" -S asan \
        -- "build/aflasan/fuzz/$target" >"$out/$target-asan.log" 2>&1 </dev/null &
    pids="$pids $!"
    end=$(($(date +%s) + FUZZ_TIME))
    while left=$((end - $(date +%s))) && [ "$left" -gt 0 ]; do
        if [ -t 2 ]; then status "$target" "$left"; fi
        sleep 1
    done
    # shellcheck disable=SC2086  # two numbers
    wait $pids || { echo "fuzz/afl.sh: AFL++ failed for $target: see $out/$target-main.log and -asan.log" >&2; exit 2; }
    if [ -t 2 ]; then printf '\r%110s\r' '' >&2; fi
    for crash in "$at"/*/crashes/id:* "$at"/*/hangs/id:*; do
        found=$((found + 1))
        if [ "$found" -le 5 ]; then save "$target" "$crash"; fi
    done
    printf '%s %d %d %d %d %d %s\n' "$target" "$(sum "$at" execs_done)" "$(sum "$at" execs_per_sec)" \
        "$(figure "$at/main" edges_found)" "$(figure "$at/main" corpus_count)" "$found" "$(figure "$at/main" stability)" >>"$table"
}

for target in "$@"; do fuzz_one "$target"; done

printf '%-18s %12s %8s %10s %8s %10s %10s\n' target executions per-s coverage corpus findings stability
awk '{ printf "%-18s %12d %8d %10d %8d %10d %8d %%\n", $1, $2, $3, $4, $5, $6, $7 }' "$table"
if [ -s "$findings" ]; then
    echo
    cat "$findings"
    exit 1
fi
