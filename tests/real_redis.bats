#!/usr/bin/env bats
# redis-server under redis-benchmark's requests, a data set of its own, BGSAVE and DEBUG RELOAD: the digest of all
# data is the same on hakmem and on the C library. Debian's redis-server is linked with libjemalloc under the plain
# names, so that the test also has to show that jemalloc stays idle.
# shellcheck disable=SC2154  # root, build, hakrun, limit and long are set there
load support/real

requests=$((10000 * long))

teardown() {
    local directory pid
    for directory in hakmem libc; do
        read -r pid <"$directory/pid" && [[ $(readlink -f "/proc/$pid/exe") == *redis* ]] && kill -9 "$pid"
    done 2>/dev/null
    return 0
}

# Keys of every type and encoding, in the protocol that redis-cli --pipe takes as it is.
data() {
    awk -v keys=$((4000 * long)) '
        function command(text,   words, n, i) {
            n = split(text, words, " ")
            printf "*%d\r\n", n
            for (i = 1; i <= n; i++)
                printf "$%d\r\n%s\r\n", length(words[i]), words[i]
        }
        function repeat(word, n,   s) { while (n-- > 0) s = s word; return s }
        BEGIN {
            for (k = 1; k <= keys; k++) {
                x = (k * 7919) % 10007
                command("SET str:" k " " repeat("v" x, 1 + x % 40))
                command("HSET hash:" k % 200 " f" x " " repeat("h", x % 90 + 1))
                command("RPUSH list:" k % 50 " " repeat("l", x % 200 + 1))
                command("ZADD zset:" k % 30 " " x " m" x)
                command("SADD set:" k % 40 " " x)
                command("APPEND grow:" k % 5 " " repeat("g", 500))
                if (k % 4 == 0) command("DEL str:" k - 2)
            }
            for (k = 1; k <= 8; k++) command("SET big:" k " " repeat(repeat("b" k, 1000), 200 * k))
            command("XADD stream 1-1 field value")
            command("SET script x")
        }' >data
}

cli() {
    redis-cli -s redis.sock "$@"
}

info() {
    cli info "$1" | tr -d '\r' | sed -n "s/^$2://p"
}

until_info() {
    local i
    for ((i = 0; i < limit * 10; i++)); do
        [ "$(info "$1" "$2" 2>/dev/null)" = "$3" ] && return 0
        sleep 0.1
    done
    return 1
}

# load_server  what is done with a server, in its directory; all answers that have to be equal go to ./answers
load_server() {
    until_info server redis_mode standalone
    info server process_id >pid
    timeout --foreground "$limit" redis-benchmark -s redis.sock -n "$requests" -c 20 --csv >benchmark.csv
    timeout --foreground "$limit" redis-cli -s redis.sock --pipe <../data | tail -n 1
    cli eval 'local s = 0; for i = 1, 20000 do s = s + #tostring(i) .. "" end; return s' 0
    cli debug digest
    cli bgsave >/dev/null
    until_info persistence rdb_bgsave_in_progress 0
    info persistence rdb_last_bgsave_status
    cli debug reload
    cli debug digest
    cli dbsize
    cut -d, -f1 benchmark.csv
    info commandstats cmdstat_set | cut -d, -f1
    info errorstats '.*'
    redis-check-rdb dump.rdb | grep -c 'RDB looks OK'
}

# serve COMMAND...  runs the load against the server that COMMAND starts
serve() {
    "$@" redis-server --port 0 --unixsocket redis.sock --save '' --dir . --enable-debug-command yes >log 2>&1 3>&- &
    load_server >answers
    # Here, so that the caller can look at what ran.
    cp "/proc/$(cat pid)/maps" maps
    info memory used_memory_peak >used
    info memory allocator_allocated >jemalloc
    cli shutdown nosave
    wait $!
}

# served_by_hakmem FLAGS...  runs the load on hakmem and checks it against the C library's side
served_by_hakmem() {
    (cd hakmem && serve "$hakrun" "$@" --stats=json --output ../stats.json)
    diff libc/answers hakmem/answers
    grep -q libhakmem hakmem/maps
    if grep -q libjemalloc hakmem/maps; then
        [ $(($(cat hakmem/jemalloc) * 20)) -lt "$(cat hakmem/used)" ]
    fi
    served redis-server "$(cat hakmem/used)"
}

@test "redis-server holds the same data on hakmem, and on its checked library, through load, BGSAVE and DEBUG RELOAD" {
    data
    (cd libc && serve env)
    cat libc/answers
    # Every SET arrived: those of the benchmark, and those of the data set; the reload kept the digest.
    grep -qx "calls=$((requests + $(grep -ac '^SET' data)))" libc/answers
    [ "$(grep '^[0-9a-f]\{40\}$' libc/answers | uniq -c | tr -s ' ' | cut -d' ' -f2)" = 2 ]
    [ "$(grep -c libhakmem libc/maps)" -eq 0 ]
    served_by_hakmem
    rm -r hakmem/*
    served_by_hakmem --checked
}
