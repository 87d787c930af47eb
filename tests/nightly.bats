#!/usr/bin/env bats
# The nightly campaign, in a tree of its own whose one fuzz target is a toy, and whose schedules and long tests are scripts.
# shellcheck disable=SC2154  # status, output and stderr are set by run
bats_require_minimum_version 1.5.0

root=${HAK_ROOT:-$BATS_TEST_DIRNAME/..}

# The toy covers an edge more for each letter of "abc" that it is given in a row, and crashes at the word in $1.
toy() {
    mkdir -p build/fuzz/fuzz corpus/fuzz_toy
    cat >toy.c <<C
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
volatile int reached;
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    const char *word = "$1";
    for (size_t i = 0; i < bytes; i++) reached += data[i];
    if (bytes > 0 && data[0] == 'a') reached = 1;
    if (bytes > 1 && data[1] == 'b' && reached == 1) reached = 2;
    if (word[0] != 0 && bytes >= strlen(word) && memcmp(data, word, strlen(word)) == 0) abort();
    return 0;
}
C
    clang-14 -g -O1 -fsanitize=fuzzer toy.c -o build/fuzz/fuzz/fuzz_toy
    printf 'a' >corpus/fuzz_toy/seed
}

setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    mkdir -p ci fuzz build/sched/sched
    cp "$root/ci/nightly.sh" ci/
    cp "$root"/fuzz/*.sh "$root"/fuzz/*.py fuzz/
    cat >build/sched/sched/sched <<'SCHED'
#!/bin/sh
echo "kernel_a   PCT, depth 3   200 schedules,   70 steps,   9000 per second"
sleep 0.2
exit 0
SCHED
    chmod +x build/sched/sched/sched
    printf 'exit 0\n' >long-test
    cat >Makefile <<'MAKE'
nightly-legs:
	@echo 'fuzz 2 fuzz fuzz_toy A=1'
	@echo 'explore 1 sched pct A=1'
	@echo 'soak 1 soak long'
nightly-soak:
	@echo long-test
nightly-build nightly-test:
	@true
MAKE
}

night() { MINIMISE_TIME=2 NIGHTLY_JOBS=2 run --separate-stderr ci/nightly.sh "$1"; }

@test "what it is asked must make sense" {
    run ci/nightly.sh --help
    [ "$status" -eq 0 ] && [[ $output == "usage: ci/nightly.sh [HOURS]"* ]]
    for hours in x -1 1h "" 1e3 .; do
        night "$hours"
        [ "$status" -eq 2 ] && [ -z "$output" ]
        [ "$stderr" = "ci/nightly.sh: HOURS is a number such as 8 or 0.5, not '$hours'" ]
    done
    night 0.0001
    [ "$status" -eq 2 ] && [ "$stderr" = "ci/nightly.sh: HOURS is less than a second: 0.0001" ]
    run --separate-stderr ci/nightly.sh 1 2
    [ "$status" -eq 2 ] && [[ $stderr == *"one argument at most"* ]]
    NIGHTLY_JOBS=0 run --separate-stderr ci/nightly.sh 1
    [ "$status" -eq 2 ] && [ "$stderr" = "ci/nightly.sh: NIGHTLY_JOBS is a number from 1, not '0'" ]
}

@test "a campaign that runs already, or a build that fails, is said" {
    mkdir -p build/nightly
    flock build/nightly/lock sleep 30 3>&- &
    sleep 0.5
    night 0.001
    kill $!
    [ "$status" -eq 2 ] && [[ $stderr == *"another nightly campaign is running here"* ]]
    printf 'nightly-build:\n\t@echo no compiler here; false\n' >Makefile
    rm build/nightly/lock
    night 0.001
    [ "$status" -eq 2 ] && [[ $stderr == *"no compiler here"*"the build failed"* ]]
}

@test "nights without a finding keep corpora, history, report and plot; a loss is told" {
    toy ""
    night 0.002
    [ "$status" -eq 0 ]
    [ "$(cut -f 3 build/nightly/history.tsv | tr '\n' ' ')" = "fuzz-fuzz_toy sched-pct soak-long " ]
    awk -F '\t' '$3 == "fuzz-fuzz_toy" && $5 > 1000 && $6 > 0 && $7 > 3 && $9 == 0 { ok = 1 } END { exit !ok }' build/nightly/history.tsv
    awk -F '\t' '$3 == "sched-pct" && $5 >= 200 && $9 == 0 { ok = 1 } END { exit !ok }' build/nightly/history.tsv
    [ -n "$(ls build/nightly/corpus/fuzz_toy)" ]
    grep -q '^Findings: 0\|Findings: 0\. Got worse: 0\.' build/nightly/report.md
    grep -q '<svg' build/nightly/coverage.svg
    # As if the last night had seen more, and been faster.
    awk -F '\t' -v OFS='\t' '$3 == "fuzz-fuzz_toy" { $6 *= 100; $7 *= 2 } { print }' build/nightly/history.tsv >history
    cp history build/nightly/history.tsv
    night 0.001
    [ "$status" -eq 3 ]
    [[ $output == *"fuzz-fuzz_toy: coverage fell from "*"fuzz-fuzz_toy: speed fell from "* ]]
    [ "$(wc -l <build/nightly/history.tsv)" -eq 6 ]
    # Seeds are fresh: they go on where the last night ended.
    [ "$(cat build/nightly/seed-sched-pct)" -gt 100400 ]
}

@test "a crash is minimised, saved and fails the night; a schedule and a long test likewise" {
    toy abc
    cat >build/sched/sched/sched <<'SCHED'
#!/bin/sh
echo "FOUND kernel_b: a check failed"
echo "reproduce: build/sched/sched/sched replay --trace build/nightly/found/kernel_b.sched"
exit 1
SCHED
    sed -i 's/fuzz 2/fuzz 20/; s/soak 1/soak 200/' Makefile # a minute is the least that a long test needs
    sed -i 's/exit 0/exit 7/' long-test
    night 0.02
    [ "$status" -eq 1 ]
    saved=(corpus/fuzz_toy/regress-*)
    [ "$(cat "${saved[0]}")" = abc ]
    [[ $output == *"corpus/fuzz_toy/regress-"*"build/fuzz/fuzz/fuzz_toy corpus/fuzz_toy/regress-"* ]]
    [[ $output == *"FOUND kernel_b: a check failed"*"--seed 100000 --runs 10"*"replay --trace"* ]]
    [[ $output == *"soak: long-test failed"* ]]
    grep -q '^- FOUND kernel_b' build/nightly/report.md
}

# The toys that run in this tree.
toys_here() {
    for pid in $(pgrep -x fuzz_toy); do
        if [ "$(readlink "/proc/$pid/cwd")" = "$PWD" ]; then echo "$pid"; fi
    done
}

@test "a night that is interrupted leaves its report and no process" {
    toy ""
    NIGHTLY_JOBS=2 ci/nightly.sh 0.5 >out 2>&1 3>&- &
    night=$!
    until toys_here >pids && [ -s pids ]; do sleep 0.2; done
    sleep 1
    kill -TERM "$night"
    status=0
    wait "$night" || status=$?
    [ "$status" -eq 130 ]
    grep -q 'Interrupted' build/nightly/report.md
    # They have been told; how long they take to end is theirs. One that was not told goes on for half an hour.
    while [ -n "$(toys_here)" ]; do sleep 0.2; done
}
