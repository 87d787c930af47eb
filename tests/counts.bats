#!/usr/bin/env bats
# Instructions of a call of malloc, free, realloc or malloc_usable_size, its share of the slow paths included, as callgrind
# counts them: no later change may lose unseen what these paths have gained. What a hit takes is read from the machine code:
# make lint.

# per_call FUNCTION MODE SIZE: instructions, in tenths
per_call() {
    local collected
    collected=$(LD_PRELOAD=$HAK_BUILD/libhakmem.so valgrind --tool=callgrind --callgrind-out-file=/dev/null \
        --toggle-collect="$1" "$HAK_BUILD/bench/counts" "$2" 10000 "$3" 10 2>&1 | sed -n 's/.*Collected : //p')
    [ "${collected:-0}" -gt 1000000 ] # 10 at least: else the calls were not seen
    echo $((collected / 10000))
}

# at_most TENTHS FUNCTION MODE SIZE
at_most() {
    local tenths
    tenths=$(per_call "${@:2}")
    echo "# $2, $3, $4 bytes: $((tenths / 10)).$((tenths % 10)) instructions, at most $(($1 / 10))" >&3
    [ "$tenths" -le "$1" ]
}

@test "malloc with its refills takes 25 instructions at most" {
    at_most 250 malloc local 64
    at_most 250 malloc local 16
}

@test "malloc that collects what others freed takes no more" {
    at_most 250 malloc remote 64
}

@test "free with its flushes takes 46 instructions at most" {
    at_most 460 free local 64
    at_most 460 free local 16
}

@test "free of another thread's block takes 60 instructions at most, with its delivery" {
    at_most 600 free remote 64
    at_most 600 free remote 16
}

@test "free of another thread's block by a thread that allocates takes 26 instructions at most" {
    at_most 260 free exchange 64
}

@test "malloc_usable_size takes 34 instructions at most" {
    at_most 340 malloc_usable_size ask 64
    at_most 340 malloc_usable_size ask 24000
}

@test "realloc takes 40 instructions at most where the block stays, 170 where it moves, with the copy" {
    at_most 400 realloc stay 64
    at_most 1700 realloc move 64
}

@test "a thread that takes one block and ends takes 6,700 instructions at most, the C library's share included" {
    local threads few many
    for threads in 1000 2000; do
        few=${many:-0}
        many=$(LD_PRELOAD=$HAK_BUILD/libhakmem.so valgrind --tool=callgrind --callgrind-out-file=/dev/null \
            "$HAK_BUILD/bench/threads" start $threads 2>&1 | sed -n 's/.*Collected : //p')
    done
    echo "# $(((many - few) / 1000)) instructions" >&3
    [ $((many - few)) -gt 1000000 ] && [ $((many - few)) -le 6700000 ]
}
