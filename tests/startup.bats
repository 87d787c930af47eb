#!/usr/bin/env bats
# Start-up: malloc works before anything else does, in every order in which a loader may start things, and costs little.

setup() {
    S=$HAK_SUPPORT
    DEFAULT=$HAK_BUILD/libhakmem.so
    CHECKED=$HAK_BUILD/libhakmem-checked.so
}

# Runs "$@" with each library, alone or with others ($before, $behind) around it, bound lazily and at once. Each run must
# succeed and print what $expected says, as the whole output.
with_each_library() {
    local library now
    for library in "$DEFAULT" "$CHECKED"; do
        for now in "" 1; do
            run timeout 120 env "LD_PRELOAD=${before:+$before:}$library${behind:+:$behind}" "LD_BIND_NOW=$now" "$@"
            echo "$library LD_BIND_NOW=$now: $* -> $status"
            echo "$output"
            [ "$status" -eq 0 ]
            [ "$output" = "${expected-}" ]
        done
    done
}

@test "a constructor of priority 101 allocates" {
    expected=ok with_each_library "$S/life_constructor"
}

@test "a constructor of priority 101 in a library preloaded before allocates" {
    before=$S/life_constructor_library expected=ok with_each_library /bin/true
}

@test "a constructor of priority 101 in a library preloaded behind allocates" {
    behind=$S/life_constructor_library expected=ok with_each_library /bin/true
}

@test "the resolver of an indirect function allocates during relocation" {
    expected=ok with_each_library "$S/life_ifunc"
}

@test "an auditing library changes nothing" {
    export LD_AUDIT=$S/life_audit
    expected=ok with_each_library "$S/life_constructor"
    expected=ok with_each_library "$S/life_ifunc"
}

@test "memory calls that go through a shim which calls dlsym" {
    before=$S/life_mmap_shim expected=ok with_each_library "$S/life_constructor"
    behind=$S/life_mmap_shim expected=ok with_each_library "$S/life_constructor"
    before=$S/life_mmap_shim expected=ok with_each_library "$S/life_ifunc"
}

@test "malloc behind a tracer that finds it with dlsym" {
    before=$S/life_malloc_shim expected=ok with_each_library "$S/life_constructor"
}

@test "programs start with 64 MB of address space" {
    ulimit -v 64000
    expected=ok with_each_library "$S/life_constructor"
    expected="" with_each_library /bin/true
    expected="a b" with_each_library /bin/echo a b
}

@test "an empty program takes under 2 MB of memory and 64 MB of address space" {
    local library peak resident most=2048
    if [[ $HAK_BUILD == */coverage/* ]]; then most=4096; fi # its counters are in memory, too
    for library in "$DEFAULT" "$CHECKED"; do
        run env "LD_PRELOAD=$library" "$S/life_empty"
        echo "$library: $output"
        [ "$status" -eq 0 ]
        peak=$(awk '$1 == "VmPeak" { print $2 }' <<<"$output")
        resident=$(awk '$1 == "VmHWM" { print $2 }' <<<"$output")
        [ "$peak" -gt 0 ] && [ "$peak" -lt 65536 ]
        [ "$resident" -gt 0 ] && [ "$resident" -lt "$most" ]
    done
}

@test "a program starts without standard streams, environment and arguments" {
    local library
    for library in "$DEFAULT" "$CHECKED"; do
        run bash -c "LD_PRELOAD='$library' exec '$S/life_constructor' >&- 2>&- <&-"
        [ "$status" -eq 0 ]
        run env -i "LD_PRELOAD=$library" "$S/life_constructor"
        [ "$status" -eq 0 ]
        [ "$output" = ok ]
    done
}
