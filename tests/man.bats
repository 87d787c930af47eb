#!/usr/bin/env bats
# The manual pages are made from the header and the option table: complete, and free of formatting errors.
# shellcheck disable=SC2154  # root is set there
load support/real

@test "the manual pages have no formatting errors" {
    "$root/tools/man.sh" pages
    run mandoc -T lint -W warning pages/hakmem.3 pages/hakmem.7
    [ "$status" -eq 0 ] && [ "$output" = "" ]
    for page in pages/*; do
        LC_ALL=C.UTF-8 man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null | tee -a warnings
    done
    [ ! -s warnings ]
}

@test "hakmem(3) has every function, structure and enumeration of the header, with its declaration and its comment" {
    "$root/tools/man.sh" pages
    MANWIDTH=10000 man -l -P cat pages/hakmem.3 >text
    grep -oE '^(struct|enum) hak_[a-z_]+ \{' "$root/include/hakmem.h" | sed 's/ {//' >names
    [ "$(wc -l <names)" -ge 5 ]
    awk '/^HAK_PUBLIC/' "$root/include/hakmem.h" | grep -oE 'hak_[a-z0-9_]+\(' | tr -d '(' >functions
    [ "$(wc -l <functions)" -ge 25 ]
    cat functions >>names
    sed -n 's/^   \([a-z]\)/\1/p' text | sort >headings
    diff <(sort names) headings
    while read -r name; do
        [ "$(grep -cE "(^|[ *])$name\(.*\);" text)" -ge 2 ]
    done <functions
    [ "$(grep -c 'HAK_PUBLIC\|HAK_ATTR\|HAK_NOEXCEPT' text)" -eq 0 ]
    grep -q 'Stores in \*memptr a block of size bytes aligned to alignment, a power of two and a multiple of sizeof(void \*). Returns 0, EINVAL or ENOMEM; on failure \*memptr and errno are untouched.' text
}

@test "hakmem(7) has every option of the table, with its unit, meaning, default and range" {
    "$root/tools/man.sh" pages
    MANWIDTH=10000 man -l -P cat pages/hakmem.7 >text
    # Those of the installed libraries.
    gcc -E -P -DHAK_QUARANTINE=0 -x c "$root/src/base/options.def" |
        sed -nE 's/^HAK_OPTION\(([A-Z0-9_]+),.*/HAKMEM_\1/p' >names
    [ "$(wc -l <names)" -ge 10 ]
    sed -nE 's/^       (HAKMEM_[A-Z0-9_]+)=.*/\1/p' text >headings
    diff names headings
    grep -A1 '^       HAKMEM_PURGE_DELAY_MS=ms$' text | grep -q ' Age at which free memory goes back to the system\.  *Default: 500; from 0 to 3600000\.$'
    grep -A1 '^       HAKMEM_LOG=0|1$' text | grep -q ' Default: 0\.$'
}
