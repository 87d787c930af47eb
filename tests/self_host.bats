#!/usr/bin/env bats
# hakmem builds itself: make, compiler, assembler and linker run on hakmem, and every object and library comes out
# with the same bytes as from the same tools on the C library.
# shellcheck disable=SC2154  # root and hakrun are set there
load support/real

# build_in DIRECTORY COMMAND...  builds the copied sources, always at the same path, and keeps the outputs
build_in() {
    local directory=$1
    shift
    mkdir source
    (cd "$root" && cp -R Makefile ci include src sanitizer tools hakmem.pc.in "$OLDPWD/source")
    (cd source && unset MAKEFLAGS MAKELEVEL && "$@" make -j2 libs >../"$directory/out" 2>&1) || {
        tail -n 20 "$directory/out"
        return 1
    }
    mv source/build "$directory/"
    rm -rf source
}

# products DIRECTORY  what has to be equal
products() {
    (cd "$1/build" && find . -type f \( -name '*.o' -o -name '*.a' -o -name '*.so' \) | sort)
}

compare() {
    build_in libc env
    build_in hakmem "$hakrun" --stats=json --output ../stats.json ${HAKRUN_FLAGS:+"$HAKRUN_FLAGS"}
    diff <(products libc) <(products hakmem)
    products libc >list
    [ "$(grep -c '\.so$' list)" -eq 2 ]
    while read -r product; do
        cmp "libc/build/$product" "hakmem/build/$product"
    done <list
    jq -e --argjson objects "$(grep '/obj/' list | grep -vc '\.cc\.o$')" '.programs.cc1 >= $objects' stats.json
    served make 1
    served cc1 100000000
    served as 1
    served ld 1
}

@test "hakmem compiled by a compiler on hakmem is the same, byte for byte" {
    compare
}

@test "hakmem compiled by a compiler on the checked library is the same, byte for byte" {
    [ -n "${HAK_SOAK-}" ] || skip "with HAK_SOAK=1"
    HAKRUN_FLAGS=--checked compare
}
