#!/usr/bin/env bats
# What `make install` puts below DESTDIR and PREFIX is all that a program needs to be built on hakmem or run on it.

setup_file() {
    export tree=$BATS_FILE_TMPDIR/tree
    make -C "$HAK_ROOT" install DESTDIR="$tree" PREFIX=/opt/hak >"$BATS_FILE_TMPDIR/log" 2>&1 || {
        cat "$BATS_FILE_TMPDIR/log"
        return 1
    }
    cat >"$BATS_FILE_TMPDIR/program.c" <<'C'
#include <hakmem.h>
#include <stdio.h>
#include <stdlib.h>
int main(void) {
    char *block = malloc(100);
    printf("%s %d\n", hak_version(), hak_is_owned(block));
    free(block);
    return 0;
}
C
}

# Compiles the program with what pkg-config says, and with these flags added
compile() {
    local flags
    # shellcheck disable=SC2086  # a list of options
    flags=$(PKG_CONFIG_PATH=$tree/opt/hak/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$tree pkg-config $1 hakmem)
    shift
    # shellcheck disable=SC2086  # and another
    gcc -o "$BATS_TEST_TMPDIR/program" "$BATS_FILE_TMPDIR/program.c" $flags "$@"
}

version() {
    awk '/define HAKMEM_VERSION_[MP]/ { v = v s $3; s = "." } END { print v }' "$tree/opt/hak/include/hakmem.h"
}

@test "a program linked as pkg-config says runs on the installed library" {
    compile "--cflags --libs"
    LD_LIBRARY_PATH=$tree/opt/hak/lib run "$BATS_TEST_TMPDIR/program"
    [ "$output" = "$(version) 1" ]
    [ "$status" -eq 0 ]
}

@test "a program linked with the installed hakmem.o needs no library" {
    compile --cflags "$tree/opt/hak/lib/hakmem.o" -pthread
    run "$BATS_TEST_TMPDIR/program"
    [ "$output" = "$(version) 1" ]
    [ "$status" -eq 0 ]
}

@test "the installed hakrun finds the installed library" {
    run "$tree/opt/hak/bin/hakrun" --stats /bin/true
    [ "$status" -eq 0 ]
    [[ $output == *tiny* || $output == *Tiny* ]]
}

@test "pkg-config names the version of the header" {
    run env PKG_CONFIG_PATH="$tree/opt/hak/lib/pkgconfig" pkg-config --modversion hakmem
    [ "$output" = "$(version)" ]
}

@test "the installed manual pages are read by man without a complaint" {
    for page in man3/hakmem.3 man7/hakmem.7; do
        run env LC_ALL=C MANWIDTH=80 man --warnings -l "$tree/opt/hak/share/man/$page"
        [ "$status" -eq 0 ]
        [[ $output == *HAKMEM* && $output != *warning:* ]]
    done
}
