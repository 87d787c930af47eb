#!/usr/bin/env bats
# The L2.5 pool under an unmodified program: what it logs, that no memory is left, and the programs that measure it.
# shellcheck disable=SC2154  # status, output and stderr are set by run
bats_require_minimum_version 1.5.0

setup() {
    bench=$HAK_BUILD/bench
    cd "$BATS_TEST_TMPDIR" || return
    unset LD_PRELOAD
    export HAKMEM_L25_LOAD=1 HAKMEM_L25_CHECK_MS=20 HAKMEM_L25_CONTENTION=100
}

# churn LIBRARY ARGUMENTS...: log is what was logged, stats the statistics
churn() {
    local library=$1
    shift
    HAKMEM_LOG=1 HAKMEM_STATS=json LD_PRELOAD=$HAK_BUILD/$library.so "$bench/l25_churn" "$@" >out 2>err
    stats=$(tail -n 1 err)
    log=$(sed '$d' err)
}

# expansions FROM TO: what is to be logged for each doubling, with any load over 1
expansions() {
    local shards
    for ((shards = $1; shards < $2; shards *= 2)); do
        echo "[L2.5_POOL] High load detected (avg=N), expanding shards"
        echo "[L2.5_POOL] Expanded shards: $shards → $((2 * shards))"
    done
}

# holds FILTER: of the statistics
holds() {
    jq -e "$1" <<<"$stats" || { echo "$stats" && return 1; }
}

@test "under load the log has two lines for each doubling, up to the limit, and in the end no memory is left" {
    for library in libhakmem libhakmem-checked; do
        for most in 64 256; do
            for milliseconds in 400 4000 40000; do # in the first even on a slow machine
                HAKMEM_L25_SHARDS_MAX=$most churn $library 4 $milliseconds shared
                [ "$(jq .l25_shards <<<"$stats")" -lt "$most" ] || break
            done
            diff <(expansions 64 "$most") <(sed -E 's/avg=([2-9]|[0-9]{2,})\)/avg=N)/' <<<"$log" | sed '/^$/d')
            holds ".l25_shards == $most and .l25_expansions == ($most / 128 | floor)"
            holds '.layers.l25 | .live_blocks == 0 and .live_bytes == 0 and .mapped_bytes == 0 and .served_blocks > 0'
        done
    done
}

@test "below both thresholds, or before the interval is over, nothing happens and nothing is logged" {
    HAKMEM_L25_LOAD=1000000000 churn libhakmem 4 200 own
    [ -z "$log" ]
    holds '.l25_shards == 64 and .l25_expansions == 0 and .layers.l25.mapped_bytes == 0'
    HAKMEM_L25_CHECK_MS=3600000 churn libhakmem 4 200 own
    [ -z "$log" ]
    holds '.l25_shards == 64'
}

@test "without HAKMEM_LOG nothing is written" {
    LD_PRELOAD=$HAK_BUILD/libhakmem.so "$bench/l25_churn" 4 200 own >out 2>err
    [ ! -s err ]
    [ "$(grep -cE '^(operations|throughput): [0-9]+' out)" -eq 2 ]
}

# record NS: a record in which everything takes as long
record() {
    printf 'kind\tns\n' >record
    local kind
    for kind in alloc_rest free_rest alloc_own alloc_moved free_own free_moved miss handover map purge; do
        printf '%s\t%s\n' $kind "$1" >>record
    done
}

# simulated CORES SHARDS NAME: the figure of that name
simulated() {
    HAKMEM_L25_SHARDS_MIN=$2 HAKMEM_L25_SHARDS_MAX=$2 "$bench/sim_shards" record "$1" 1 2 >out
    sed -nE "s/^$3: ([0-9]+).*/\1/p" out
}

# One operation is four times 100 ns, two of them with the lock.
@test "the simulation of a record that is known gives the figures that are known" {
    record 100
    [ "$(simulated 1 64 throughput)" -eq 2500000 ]
    [ "$(simulated 1 64 failed)" -eq 0 ]
    local one_shard
    one_shard=$(simulated 32 1 throughput)
    [ "$one_shard" -gt 4900000 ]
    [ "$one_shard" -lt 5050000 ]
    [ "$(simulated 32 1 failed)" -ge 90 ]
    [ "$(simulated 32 1 stranded)" -eq 0 ]
    [ "$(simulated 32 1024 throughput)" -gt 40000000 ] # of 80,000,000, where no two share a shard
}

@test "in the simulation the pool itself expands, by load and by contention" {
    record 100
    HAKMEM_LOG=1 HAKMEM_L25_CHECK_MS=1 HAKMEM_L25_SHARDS_MAX=256 run --separate-stderr "$bench/sim_shards" record 64 3 1
    [ "$status" -eq 0 ]
    diff <(expansions 64 256) <(sed -E 's/avg=([2-9]|[0-9]{2,})\)/avg=N)/' <<<"$stderr")
    HAKMEM_LOG=1 HAKMEM_L25_CHECK_MS=1 HAKMEM_L25_LOAD=1000000000 HAKMEM_L25_CONTENTION=5 HAKMEM_L25_SHARDS_MIN=1 \
        run --separate-stderr "$bench/sim_shards" record 32 3 1
    [ "$status" -eq 0 ]
    [[ $stderr =~ ^"[L2.5_POOL] High contention detected ("[0-9]+"%), expanding shards"$'\n'"[L2.5_POOL] Expanded shards: 1 → 2" ]]
}

@test "a run can be recorded and its record replayed" {
    [ "$(nproc)" -ge 2 ] || skip "it takes two processors"
    HAKMEM_L25_SHARDS_MIN=1 HAKMEM_L25_SHARDS_MAX=1 "$bench/l25_record" record 50
    [ "$(cut -f1 record | sort -u | wc -l)" -eq 11 ]
    [ "$(simulated 4 64 throughput)" -gt 0 ]
    : >record
    run --separate-stderr "$bench/sim_shards" record 4 1 1
    [ "$status" -eq 1 ]
    [ "$stderr" = "sim_shards: the record is empty" ]
}
