#!/usr/bin/env bats
# A set-user-ID program must not obey its caller's HAKMEM_* variables. Preloading does not work there, so the program is
# linked with hakmem.

setup() {
    # Not the directory of bats, which other users may not enter.
    DIR=$(mktemp -d)
    chmod 755 "$DIR"
    gcc -O2 -static "$HAK_ROOT/tests/support/life_linked.c" "$HAK_BUILD/hakmem.o" -pthread -o "$DIR/program"
    STATISTICS=$DIR/drop/statistics
    mkdir -m 777 "$DIR/drop"
}

teardown() {
    rm -rf "$DIR"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

# Runs the program as a user who is not its owner, with every way to make hakmem speak: its output is in $output.
run_as_nobody() {
    run as_root setpriv --reuid=65534 --regid=65534 --clear-groups env HAKMEM_HELP=1 HAKMEM_LOG=1 HAKMEM_STATS=1 \
        HAKMEM_STATS_FILE="$STATISTICS" HAKMEM_NO_SUCH_OPTION=1 "$DIR/program"
    echo "$status: $output"
}

@test "an ordinary program obeys HAKMEM_* variables" {
    as_root true || skip "needs root or sudo"
    run_as_nobody
    [ "$status" -eq 0 ]
    [[ $output == *HAKMEM_STATS_FILE* ]]
    [[ $output == *HAKMEM_NO_SUCH_OPTION* ]]
    [ -s "$STATISTICS" ]
}

@test "a set-user-ID program ignores them" {
    as_root true || skip "needs root or sudo"
    [[ $(findmnt -no OPTIONS -T "$DIR") != *nosuid* ]] || skip "$DIR ignores set-user-ID bits"
    as_root chown root:root "$DIR/program"
    as_root chmod 4755 "$DIR/program"
    run_as_nobody
    [ "$status" -eq 0 ]
    [ "$output" = ok ]
    [ ! -e "$STATISTICS" ]
}

@test "a set-group-ID program ignores them" {
    as_root true || skip "needs root or sudo"
    [[ $(findmnt -no OPTIONS -T "$DIR") != *nosuid* ]] || skip "$DIR ignores set-group-ID bits"
    as_root chown root:root "$DIR/program"
    as_root chmod 2755 "$DIR/program"
    run_as_nobody
    [ "$status" -eq 0 ]
    [ "$output" = ok ]
    [ ! -e "$STATISTICS" ]
}
