#!/usr/bin/env bash
# Runs real programs on hakmem and on the C library's malloc (`make run`), checks that the results are equal and that
# hakmem really served them, and prints one table. Progress goes to stderr, the table to stdout.
set -euo pipefail
root=$(cd "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd)
build=$root/build/release
hakrun=$build/tools/hakrun
export LC_ALL=C PYTHONMALLOC=malloc PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1

work=$(mktemp -d)
doing=
server=
cleanup() {
    local status=$?
    [ "$status" -eq 0 ] || [ -z "$doing" ] || printf '\nmake run: %s failed\n' "$doing" >&2
    # Ended by its process id, also when this script is interrupted.
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

programs=(redis-server sqlite3 python3 gcc)
# What the processes must at least have got from hakmem, in bytes: far above what only starting them takes.
declare -A at_least=([redis-server]=20000000 [sqlite3]=20000000 [python3]=50000000 [gcc]=10000000)
# The process that has to be among those that hakmem served.
declare -A process=([redis-server]=redis-server [sqlite3]=sqlite3 [python3]=python3 [gcc]=cc1)

die() {
    echo "make run: $*" >&2
    exit 1
}

# ---- the work: each runs in a directory of its own, started as "$@", and leaves its results in the file `result` ----

redis-server_input() {
    /usr/bin/python3 "$root/bench/real/generate.py" redis >data
}

cli() {
    redis-cli -s redis.sock "$@"
}

redis-server_work() {
    "$@" redis-server --port 0 --unixsocket redis.sock --save '' --dir . --enable-debug-command yes >log 2>&1 &
    server=$!
    until cli ping >/dev/null 2>&1; do
        kill -0 "$server" 2>/dev/null || die "redis-server did not start: $(tail -n 3 log)"
        sleep 0.05
    done
    {
        redis-cli -s redis.sock --pipe <../data | tail -n 1
        redis-benchmark -s redis.sock -n 50000 -c 20 -P 8 -t set,get,incr,lpush,rpop,sadd,hset,zadd,lrange_100,mset --csv | cut -d, -f1
        cli debug digest
        cli debug reload
        cli debug digest
    } >result
    cp "/proc/$(cli info server | tr -d '\r' | sed -n 's/^process_id://p')/maps" maps
    # Debian links redis-server with libjemalloc, under the plain names: what that has given out has to be nothing.
    cli info memory | tr -d '\r' | sed -n 's/^allocator_allocated://p' >others
    cli shutdown nosave
    wait "$server"
    server=
}

sqlite3_input() {
    cp "$root/bench/real/items.sql" .
}

sqlite3_work() {
    # shellcheck disable=SC2016  # it is for the shell of sqlite3
    "$@" sqlite3 -bail file.db '.read ../items.sql' '.shell cp /proc/$PPID/maps maps' >result
    cksum <file.db >>result
}

python3_input() {
    cp "$root/bench/real/python_json.py" .
    cat >work.py <<'PY'
import runpy, shutil, threading
runpy.run_path("../python_json.py")
sums = [0] * 8
def run(k):
    for r in range(100):
        sums[k] += sum(len(str(x)) for x in [(k, r, "y" * i) for i in range(150)])
threads = [threading.Thread(target=run, args=(k,)) for k in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
print(sums)
shutil.copyfile("/proc/self/maps", "maps")
PY
}

python3_work() {
    "$@" /usr/bin/python3 ../work.py >result
}

gcc_input() {
    # The largest source file of this project; the compiler shows that it is on hakmem by its statistics alone.
    find "$root/src/" -name '*.c' -size +1k -exec ls -S {} + | head -n 1 >source
}

gcc_work() {
    local flags=()
    mapfile -t flags < <(sed -n 's/^static_assert(\(HAK_[A-Z]*\) == 0 .*/-D\1=0/p' "$root/src/base/config.h")
    "$@" gcc -std=c11 -O3 -g "-ffile-prefix-map=$PWD=." -fPIC -D_GNU_SOURCE "${flags[@]}" -I"$root/include" -I"$root/src" -c "$(cat ../source)" -o out.o
    cksum <out.o >result
}

# ---- running, checking, printing ------------------------------------------------------------------------------------

# run_program PROGRAM SIDE FLAGS...  the work of a program in ./PROGRAM/SIDE
run_program() {
    local program=$1 side=$2
    shift 2
    mkdir -p "$work/$program/$side"
    cd "$work/$program/$side"
    doing="$program ($side)"
    "${program}_work" "$hakrun" --stats=json --output stats "$@"
    doing=
}

# number FILE KEY  one number of a summary in JSON; 0 if it is not there
number() {
    local found
    found=$(grep -oE "\"${2//./\\.}\":[0-9.]+" "$1") || found=:0
    echo "${found##*:}"
}

check() {
    local program=$1 served=0 layer
    cd "$work/$program"
    cmp -s libc/result hakmem/result || die "$program: the result on hakmem differs: $(diff libc/result hakmem/result | head -n 5)"
    for layer in tiny mid l25 big; do
        served=$((served + $(number hakmem/stats "layers.$layer.served_bytes")))
    done
    [ "$(number hakmem/stats "${process[$program]}")" -ge 1 ] || die "$program: no process ${process[$program]} reported from hakmem"
    [ "$served" -ge "${at_least[$program]}" ] || die "$program: hakmem served only $served bytes"
    if grep -q '/libjemalloc' libc/maps 2>/dev/null; then
        [ "$(cat hakmem/others)" -lt 1000000 ] || die "$program: jemalloc served it, not hakmem"
        [ "$(cat libc/others)" -lt 1000000 ] || die "$program: jemalloc served it, not the C library"
    fi
    [ ! -e hakmem/maps ] || grep -q '/libhakmem\.so' hakmem/maps || die "$program: libhakmem.so is not in its memory map"
}

row() {
    local program=$1 h=$work/$1/hakmem/stats c=$work/$1/libc/stats
    awk -v program="$program" -v hw="$(number "$h" wall_seconds)" -v cw="$(number "$c" wall_seconds)" \
        -v hr="$(number "$h" peak_rss_bytes)" -v cr="$(number "$c" peak_rss_bytes)" \
        -v tiny="$(number "$h" layers.tiny.served_bytes)" -v mid="$(number "$h" layers.mid.served_bytes)" \
        -v l25="$(number "$h" layers.l25.served_bytes)" -v big="$(number "$h" layers.big.served_bytes)" 'BEGIN {
        m = 1048576
        printf "%-13s %8.2f s %8.2f s %8.1f MiB %8.1f MiB %10.1f %10.1f %10.1f %10.1f\n",
            program, hw, cw, hr / m, cr / m, tiny / m, mid / m, l25 / m, big / m
    }'
}

table() {
    local program
    printf '\n%-13s %21s %25s %43s\n' '' 'wall time' 'peak RSS' 'served by hakmem, MiB'
    printf '%-13s %10s %10s %12s %12s %10s %10s %10s %10s\n' program hakmem libc hakmem libc Tiny Mid L2.5 BigCache
    for program in "${programs[@]}"; do
        row "$program"
    done
    printf '\nEvery result is equal to that on the C library, and every program was served by hakmem.\n'
}

main() {
    local program step=0
    [ -x "$hakrun" ] || die "build first, with make"
    for program in "${programs[@]}"; do
        step=$((step + 1))
        mkdir "$work/$program"
        cd "$work/$program"
        "${program}_input"
        printf '[%d/%d] %-13s on hakmem ...' "$step" "${#programs[@]}" "$program" >&2
        run_program "$program" hakmem
        printf ' on the C library ...' >&2
        run_program "$program" libc --libc
        check "$program"
        printf ' equal\n' >&2
    done
    table
}

main
