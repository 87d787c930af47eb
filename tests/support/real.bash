# shellcheck shell=bash
# For tests that run real programs: the same work on hakmem and on the C library, and the proof that hakmem did it.
# Loaded by tests/*.bats with `load support/real`.

root=${HAK_ROOT:-$(dirname -- "$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")")}
build=${HAK_BUILD:-$root/build/release}
hakrun=$build/tools/hakrun
limit=600       # seconds; ends what hangs
long=${HAK_SOAK:+10}
long=${long:-1} # how many times the usual work

export LC_ALL=C TZ=UTC

# What the work of a test needs lies in a directory of its own, removed by bats.
setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    mkdir hakmem libc
}

# on_hakmem COMMAND...  runs it in ./hakmem on hakmem; its output is left in hakmem/out, statistics in stats.json.
# HAKRUN_FLAGS may hold --checked.
on_hakmem() {
    (cd hakmem && exec "$hakrun" ${HAKRUN_FLAGS:+"$HAKRUN_FLAGS"} --stats=json --output ../stats.json \
        timeout --foreground -k 5 "$limit" "$@" >out 2>&1 </dev/null)
}

# on_libc COMMAND...  the same in ./libc on the C library's malloc
on_libc() {
    (cd libc && exec timeout --foreground -k 5 "$limit" "$@" >out 2>&1 </dev/null)
}

# on_both COMMAND...  both; each has to end with status 0 and the outputs have to be equal
on_both() {
    local status=0
    on_libc "$@" &
    on_hakmem "$@" || status=$?
    wait $! || { echo "on the C library: status $?" && tail -n 20 libc/out && return 1; }
    [ "$status" -eq 0 ] || { echo "on hakmem: status $status" && tail -n 20 hakmem/out && return 1; }
    diff libc/out hakmem/out
}

# served PROGRAM BYTES  checks that processes of this name ended on hakmem and that the tree got this much from it
served() {
    jq -e --arg program "$1" --argjson bytes "$2" '
        .programs[$program] > 0 and .unreadable == 0 and
        ([.sum | to_entries[] | select(.key | test("^layers\\..*\\.served_bytes$")) | .value] | add) >= $bytes' \
        stats.json >/dev/null || { echo "hakmem did not serve $2 bytes to $1:" && cat stats.json && return 1; }
}
