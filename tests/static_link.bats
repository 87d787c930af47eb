#!/usr/bin/env bats
# Linking hakmem into programs, in every way that toolchains offer: it links without complaint, and the program really
# allocates from it.

setup() {
    C=$HAK_ROOT/tests/support/life_linked.c
    CXX=$HAK_ROOT/tests/support/life_linked_cxx.cc
    OBJECT=$HAK_BUILD/hakmem.o
    ARCHIVE=$HAK_BUILD/libhakmem.a
    cd "$BATS_TEST_TMPDIR" || return 1
}

# Builds ./program with the given command, which must say nothing, and runs it: it must say exactly "ok".
builds_and_runs() {
    echo "$*"
    run "$@" -o program
    echo "$output"
    [ "$status" -eq 0 ]
    [ -z "$output" ]
    run timeout 120 ./program
    echo "$output"
    [ "$status" -eq 0 ]
    [ "$output" = ok ]
}

@test "without hakmem the program says so" {
    gcc -O2 "$C" -pthread -o program
    run ./program
    [ "$status" -eq 1 ]
    [ "$output" = "hakmem is not linked" ]
}

@test "static, gcc and clang, the object and the archive" {
    local compiler library
    for compiler in gcc clang-14 clang-19; do
        for library in "$OBJECT" "$ARCHIVE"; do
            builds_and_runs "$compiler" -O2 -static "$C" "$library" -pthread
        done
    done
}

@test "static, the object first and without optimisation" {
    builds_and_runs gcc -O0 -static "$OBJECT" "$C" -pthread
    builds_and_runs clang-14 -O0 -static "$OBJECT" "$C" -pthread
}

@test "static, the whole archive first" {
    builds_and_runs gcc -O2 -static -Wl,--whole-archive "$ARCHIVE" -Wl,--no-whole-archive "$C" -pthread
}

@test "static and position-independent" {
    local compiler library
    for compiler in gcc clang-14; do
        for library in "$OBJECT" "$ARCHIVE"; do
            builds_and_runs "$compiler" -O2 -static-pie -fPIE "$C" "$library" -pthread
        done
    done
}

@test "with optimisation at link time" {
    builds_and_runs gcc -O3 -flto -static "$C" "$OBJECT" -pthread
    builds_and_runs gcc -O3 -flto "$C" "$OBJECT" -pthread
    builds_and_runs clang-14 -O3 -flto -fuse-ld=lld-14 -static "$C" "$OBJECT" -pthread
}

@test "dynamic, the object and the archive, and unused sections dropped" {
    local compiler library
    for compiler in gcc clang-14; do
        for library in "$OBJECT" "$ARCHIVE"; do
            builds_and_runs "$compiler" -O2 "$C" "$library" -pthread
            builds_and_runs "$compiler" -O2 -no-pie "$C" "$library" -pthread
            builds_and_runs "$compiler" -O2 -ffunction-sections -Wl,--gc-sections "$C" "$library" -pthread
        done
    done
}

@test "dynamic, against the shared library" {
    builds_and_runs gcc -O2 "$C" "$HAK_BUILD/libhakmem.so" -Wl,-rpath,"$HAK_BUILD" -pthread
    builds_and_runs gcc -O2 "$C" "$HAK_BUILD/libhakmem-checked.so" -Wl,-rpath,"$HAK_BUILD" -pthread
}

@test "C++, static and dynamic, gcc and clang" {
    local compiler library
    for compiler in g++ clang++-14; do
        for library in "$OBJECT" "$ARCHIVE"; do
            builds_and_runs "$compiler" -O2 "$CXX" "$library" -pthread
            builds_and_runs "$compiler" -O2 -static "$CXX" "$library" -pthread
        done
    done
}

@test "musl, static and dynamic" {
    local library
    for library in "$OBJECT" "$ARCHIVE"; do
        builds_and_runs musl-gcc -O2 -static "$C" "$library" -pthread
        builds_and_runs musl-gcc -O2 "$C" "$library" -pthread
    done
}

@test "a linked program may run on the preload library as well" {
    gcc -O2 "$C" "$OBJECT" -pthread -o program
    run timeout 120 env "LD_PRELOAD=$HAK_BUILD/libhakmem.so" ./program
    [ "$status" -eq 0 ]
    [ "$output" = ok ]
}
