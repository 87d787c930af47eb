#!/usr/bin/env bats
# fuzz/run.sh with targets that are scripts: what it makes of how a target ends. That real findings are minimised and
# saved is seen where defects are planted.

setup() {
    cd "$BATS_TEST_TMPDIR" || return
    mkdir -p fuzz build/fake/fuzz
    cp "$HAK_ROOT"/fuzz/run.sh "$HAK_ROOT"/fuzz/minimise.py fuzz/
    export CONFIG=fake FUZZ_TIME=1
}

# target NAME SCRIPT
target() {
    printf '#!/bin/sh\n%s\n' "$2" >"build/fake/fuzz/$1"
    chmod +x "build/fake/fuzz/$1"
}

@test "a target that ends well is in the table, with what it did" {
    target good 'echo "#12	DONE cov: 34 ft: 1 corp: 5/6b exec/s: 7 rss: 1Mb"'
    run fuzz/run.sh good
    [ "$status" -eq 0 ]
    [[ $output =~ good\ +12\ +7\ +34\ +5\ +0 ]]
}

@test "a target that fails without an input left is a finding, not nothing" {
    target bad 'echo boom; exit 1'
    run fuzz/run.sh bad
    [ "$status" -eq 1 ]
    [[ $output =~ bad\ +0\ +0\ +0\ +0\ +1 ]]
    [[ $output == *"bad: ended with status 1, and left no input: see build/fuzz-logs/bad-0.log"* ]]
    grep -qx boom build/fuzz-logs/bad-0.log
}

@test "a time that is no whole number of seconds is refused" {
    target good 'exit 0'
    for time in 0 -3 1.5 abc; do
        FUZZ_TIME=$time run fuzz/run.sh good
        [ "$status" -eq 2 ]
        [ "$output" = "FUZZ_TIME=$time: not a whole number of seconds" ]
    done
}
