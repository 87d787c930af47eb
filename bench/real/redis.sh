#!/bin/bash
# redis.sh set|get|lpush|lrange: runs a redis-server on the preloaded allocator and lets redis-benchmark work on it. Prints
# the server's processor time for that work, and what shows that the data are right.
set -euo pipefail
here=$(cd "$(dirname -- "$0")" && pwd)
test=${1-}
# How many requests make about a second of the server's time.
case $test in
set) requests=500000 ;;
get) requests=600000 ;;
lpush) requests=700000 ;;
lrange) requests=16000 ;;
*)
    echo "usage: redis.sh set|get|lpush|lrange" >&2
    exit 2
    ;;
esac
[ "${BENCH_QUICK-}" != 1 ] || requests=$((requests / 100))

# Only the server is to run on the allocator, and only its bindings are asked for.
server_env=()
for name in LD_PRELOAD LD_DEBUG LD_DEBUG_OUTPUT; do
    [ -z "${!name-}" ] || server_env+=("$name=${!name}")
    unset "$name"
done

work=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

cli() {
    redis-cli -s "$work/socket" "$@"
}
cpu_seconds() {
    cli info cpu | tr -d '\r' | awk -F: '$1 == "used_cpu_sys" || $1 == "used_cpu_user" { sum += $2 } END { print sum }'
}

# Nothing that the clock starts (saving, expiry, rehashing, defragmentation) changes what is measured.
env "${server_env[@]}" redis-server --port 0 --unixsocket "$work/socket" --dir "$work" --save '' --appendonly no \
    --activerehashing no --enable-debug-command yes >"$work/log" 2>&1 &
server=$!
until cli ping >/dev/null 2>&1; do
    kill -0 "$server" 2>/dev/null || {
        tail -n 3 "$work/log" >&2
        exit 1
    }
    sleep 0.02
done

/usr/bin/python3 "$here/generate.py" redis | cli --pipe | tail -n 1
before=$(cpu_seconds)
case $test in
set) load=(-t set -r 100000 -d 120) ;;
get) load=(-t get -r 30000) ;;
lpush) load=(-t lpush -d 30) ;;
lrange) load=(-t lrange_600 -d 30) ;;
esac
redis-benchmark -s "$work/socket" -n "$requests" -c 20 -P 32 --csv "${load[@]}" | cut -d, -f1
after=$(cpu_seconds)

# Which keys redis-benchmark sets differs from run to run, but not what it writes; all else is the same in every run.
if [ "$test" = set ]; then
    cli eval "
        local written
        for i = 0, 99999 do
            local key = string.format('key:%012d', i)
            local value = redis.call('GET', key)
            if value and tonumber(value) ~= i then
                written = written or value
                if #value ~= 120 or value ~= written then return key .. ' holds ' .. value end
            end
        end
        return 'all as written'" 0
else
    cli debug digest
fi
cli shutdown nosave
wait "$server"
server=
awk "BEGIN { printf \"server_cpu: %.6f s\n\", $after - $before }"
