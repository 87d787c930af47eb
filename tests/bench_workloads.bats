#!/usr/bin/env bats
# The table of workloads: each line can be run, prints the figures that it is measured by, and each program finds what
# is wrong with the blocks that it uses.
# shellcheck disable=SC2154  # root and build are set there
load support/real
bats_require_minimum_version 1.5.0

programs=$build/bench
export BENCH_QUICK=1

# workloads  their lines, but for the real programs, which bench/run.py starts
workloads() {
    awk -F '\t' 'NR > 1 && $2 != "real"' "$root/bench/workloads.tsv"
}

# figures OUTPUT METRICS  all of them stand in it: a, or 1/a, or a,b,c
figures() {
    local metric
    for metric in ${2//,/ }; do
        case $metric in cpu | wall) continue ;; esac
        grep -Eq "^${metric#1/}: [0-9.]+ " "$1" || { echo "no figure $metric" && return 1; }
    done
}

@test "the table has six columns, unique names and known groups" {
    awk -F '\t' '
        NF != 6 { print "line " NR " has " NF " columns"; bad = 1 }
        NR > 1 && seen[$1]++ { print $1 " is there twice"; bad = 1 }
        NR > 1 && $2 !~ /^(single|threads|latency|growth|real)$/ { print $1 " is of the group " $2; bad = 1 }
        END { exit bad || NR < 50 }' "$root/bench/workloads.tsv"
}

@test "every workload of the table runs and prints its figures" {
    while IFS=$'\t' read -r name group metric command _; do
        [ "$group" != growth ] || command=${command%%,*}
        echo "$name: $command"
        # shellcheck disable=SC2086  # a program and its arguments
        "$programs/"$command >out || return 1
        figures out "$metric"
    done < <(workloads)
}

@test "every program explains itself, and refuses what it does not understand" {
    for program in $(workloads | cut -f4 | cut -d' ' -f1 | sort -u); do
        run -0 "$programs/$program" --help
        [[ ${lines[0]} == "usage: $program "* ]]
        run -2 "$programs/$program"
        run -2 "$programs/$program" nonsense
    done
    run -2 "$programs/growth" remote 1000 101
    [ "$output" = "growth: PERCENT is from 0 to 100" ]
}

@test "blocks that overlap are noticed" {
    echo '#include <stdatomic.h>
        #include <string.h>
        static _Alignas(16) char pool[1 << 30];
        static _Atomic unsigned long taken;
        static void *take(unsigned long bytes) { return pool + atomic_fetch_add(&taken, bytes / 16 * 16) % (1 << 29); }
        void *malloc(unsigned long bytes) { return take(bytes < 512 ? bytes / 2 : bytes + 16); }
        void *calloc(unsigned long count, unsigned long bytes) { return take(count * bytes + 16); }
        void *realloc(void *ptr, unsigned long bytes) { return ptr ? memmove(malloc(bytes), ptr, bytes) : malloc(bytes); }
        void free(void *ptr) { (void)ptr; }' | gcc -O1 -fno-builtin -shared -fPIC -o overlap.so -x c -
    for command in "single lifo 1000 100000" "single fifo 1000 100000" "single pareto 4096 100000" \
        "threads queue 2 100000" "threads exchange 2 100000" "threads server 2 100000" "threads idle 2 100000" \
        "latency mixed 1 100000" "growth heap 100000 10" "trace_replay gcc 1"; do
        # shellcheck disable=SC2086  # a program and its arguments
        LD_PRELOAD=$PWD/overlap.so run "$programs/"$command
        echo "$command: $status: $output"
        # Once in a while what is overwritten first is a pointer of the C library's: SIGSEGV.
        [ "$status" -eq 1 ] || [ "$status" -eq 139 ]
    done
}

# calls COUNT  how many calls of malloc and its kin a program makes, as recorded
calls() {
    rm -f trace
    HAK_TRACE=trace LD_PRELOAD=$programs/trace_record "$programs/single" lifo 100 "$1" >/dev/null
    "$programs/trace_replay" ./trace 1 | sed -n 's/^calls: \(.*\) calls/\1/p'
}

@test "a recorded trace holds every call, and is refused where it is cut off" {
    unset BENCH_QUICK
    local few many
    few=$(calls 10000)
    many=$(calls 30000)
    [ $((many - few)) -eq 40000 ]
    head -c 20000 trace >half
    run -1 "$programs/trace_replay" ./half 1
    [ "$output" = "trace_replay: the trace is cut off" ]
}

@test "real programs run on the floor" {
    LD_PRELOAD=$programs/floor python3 -c 'import json; print(json.loads(json.dumps([[i] * 9 for i in range(9)]))[8])' >out
    [ "$(cat out)" = "[8, 8, 8, 8, 8, 8, 8, 8, 8]" ]
    LD_PRELOAD=$programs/floor "$programs/trace_replay" perl 1
}
