#!/usr/bin/env bats
# hakmem in programs that do not run on it: inside a plug-in, or loaded late.

setup() {
    S=$HAK_SUPPORT
    if [ "${HAK_SOAK-}" = 1 ]; then COUNT=20000; else COUNT=2000; fi
}

says_ok() {
    run timeout 600 "$@"
    echo "$*"
    echo "$output"
    [ "$status" -eq 0 ]
    [ "${lines[-1]}" = ok ]
}

@test "a plug-in with hakmem inside comes and goes; threads end after it is gone" {
    says_ok "$S/life_host" cycle "$S/life_embedded" "$COUNT"
}

@test "the same in a program that runs on hakmem" {
    says_ok env "LD_PRELOAD=$HAK_BUILD/libhakmem.so" "$S/life_host" cycle "$S/life_embedded" "$COUNT"
    says_ok env "LD_PRELOAD=$HAK_BUILD/libhakmem-checked.so" "$S/life_host" cycle "$S/life_embedded" "$COUNT"
}

@test "loaded after 40 libraries with thread-local storage" {
    local files=() i
    for i in {1..20}; do
        cp "$S/life_tls_crowd" "$BATS_TEST_TMPDIR/crowd$i"
        cp "$S/life_tls_plugin" "$BATS_TEST_TMPDIR/plugin$i"
        files+=("$BATS_TEST_TMPDIR/crowd$i" "$BATS_TEST_TMPDIR/plugin$i")
    done
    says_ok "$S/life_host" crowded "$HAK_BUILD/libhakmem.so" "${files[@]}"
    says_ok "$S/life_host" crowded "$HAK_BUILD/libhakmem-checked.so" "${files[@]}"
}
