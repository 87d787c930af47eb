#!/usr/bin/env bats
# The schedule exploration finds planted defects, each by the right name, and nothing where there is nothing.

setup() {
    cd "$HAK_ROOT" || exit 1
    found=$BATS_TEST_TMPDIR/found
}

planted() { timeout 100 build/sched/sched/sched-planted "$@" --found "$found"; }
planted_tsan() { TSAN_OPTIONS=halt_on_error=1 timeout 100 build/schedtsan/sched/sched-planted "$@" --found "$found"; }

# finds KERNEL MESSAGE HOW...
finds() {
    local kernel=$1 message=$2
    shift 2
    run planted "$@" "$kernel"
    echo "$output"
    [ "$status" -eq 1 ]
    [[ $output == *"FOUND $kernel: $message"* ]]
    for _ in {1..20}; do
        run planted replay "$found/$kernel.sched"
        [ "$status" -eq 1 ]
        [[ $output == *"FOUND $kernel: $message"* ]]
    done
    run planted replay --backend threads --trace "$found/$kernel.sched"
    echo "$output"
    [ "$status" -eq 1 ]
    [[ $output == *"FOUND $kernel: $message"*"t0"* ]]
}

@test "a lost update" {
    finds bad_counter "not true: hak_load_rlx(&counter) == 2" exhaustive --bound 1
    finds bad_counter "not true: hak_load_rlx(&counter) == 2" random
    finds bad_counter "not true: hak_load_rlx(&counter) == 2" pct --depth 2
}

@test "an ABA defect, of depth 3" {
    local message="not true: hak_xchg_acqrel(&owner_of[(uint32_t)old - 1], 1) == 0"
    finds bad_stack "$message" exhaustive
    finds bad_stack "$message" pct --depth 3 --runs 20000
    finds bad_stack "$message" random --runs 20000
}

@test "a deadlock" {
    finds bad_locks "deadlock: every thread waits" exhaustive
}

@test "an endless wait" {
    finds bad_flag "endless loop: too many steps" random
}

@test "nothing where there is nothing" {
    local kernel
    for kernel in good_counter good_stack good_locks good_order; do
        planted exhaustive --bound 4 "$kernel"
    done
    for kernel in good_counter good_stack good_locks good_flag good_order; do
        planted random "$kernel"
        planted pct --depth 4 "$kernel"
        planted_tsan random --runs 100 "$kernel"
    done
}

@test "ThreadSanitizer sees a race through the scheduler's hand-over" {
    planted random bad_order
    run planted_tsan random --runs 100 bad_order
    echo "$output"
    [ "$status" -eq 66 ]
    [[ $output == *"WARNING: ThreadSanitizer: data race"*payload* ]]
    [[ $output == *"FOUND bad_order: see the sanitizer's report"* ]]
}

@test "usage errors are clear" {
    run planted
    [ "$status" -ne 0 ]
    [[ $output == *"no command"* ]]
    run planted random nonesuch
    [ "$status" -eq 2 ]
    [[ $output == *"no kernel is called nonesuch"* ]]
    run planted pct --depth 0
    [[ $output == *"0 is not a number from 1 to 16"* ]]
    echo nonsense >"$BATS_TEST_TMPDIR/x"
    run planted replay "$BATS_TEST_TMPDIR/x"
    [ "$status" -eq 2 ]
    [[ $output == *"not a schedule of version 1"* ]]
}
