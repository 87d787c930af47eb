#!/usr/bin/env bats
# .clusterfuzzlite/build.sh in the environment that OSS-Fuzz and ClusterFuzzLite give it, and then what their check of a
# build asks of each target. Two targets with ASan; with HAK_SOAK=1 all, with each sanitizer.
bats_require_minimum_version 1.5.0

root=${HAK_ROOT:-$BATS_TEST_DIRNAME/..}
basic="-O1 -fno-omit-frame-pointer -gline-tables-only -DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION"
undefined=array-bounds,bool,builtin,enum,function,integer-divide-by-zero,null,object-size,return,returns-nonnull-attribute,shift,signed-integer-overflow,unreachable,vla-bound,vptr
declare -gA sanitizer_flags=(
    [address]="-fsanitize=address -fsanitize-address-use-after-scope"
    [undefined]="-fsanitize=$undefined,unsigned-integer-overflow -fno-sanitize-recover=$undefined"
    [memory]="-fsanitize=memory -fsanitize-memory-track-origins"
)

# build SANITIZER TARGETS: into $OUT, by what lies in the container's $SRC.
build() {
    mkdir -p src out
    ln -sfn "$root" src/hakmem
    cp "$root/.clusterfuzzlite/build.sh" src/
    export SRC=$PWD/src OUT=$PWD/out WORK=$PWD ARCHITECTURE=x86_64 FUZZING_LANGUAGE=c SANITIZER=$1 FUZZING_ENGINE=libfuzzer
    export CC=clang-14 CXX=clang++-14 LIB_FUZZING_ENGINE=-fsanitize=fuzzer
    export CFLAGS="$basic ${sanitizer_flags[$1]} -fsanitize=fuzzer-no-link"
    export CXXFLAGS=$CFLAGS
    FUZZ_ONLY=$2 BUILD_AS=ossfuzz-$1 bash -eu src/build.sh >build.log 2>&1 || {
        tail -n 40 build.log
        return 1
    }
    if grep -i 'warning' build.log; then return 1; fi
    # They run elsewhere than where they were built.
    rm -rf elsewhere && mv out elsewhere && unset SRC OUT CFLAGS CXXFLAGS CC CXX
}

# The options that their runner takes from TARGET.options: a section of it, joined by $2.
options() {
    awk -v section="[$1]" -v by="$2" -v lead="$3" '/^\[/ { on = $0 == section } on && NF == 3 { printf "%s%s%s=%s", sep, lead, $1, $3; sep = by }' "$target.options"
}

run_target() {
    local arguments
    read -ra arguments <<<"$(options libfuzzer ' ' -)"
    ASAN_OPTIONS=$(options asan : "") UBSAN_OPTIONS=silence_unsigned_overflow=1:print_stacktrace=1 \
        timeout -k 5 300 "./$target" "${arguments[@]}" -seed=1337 "$@" </dev/null >"$target.output" 2>&1 || {
        tail -n 30 "$target.output"
        return 1
    }
}

calls_of() { grep -cE "callq? +[0-9a-f]+ <__$1" "$target.machine" || true; }

is_instrumented() {
    local asan msan ubsan
    objdump -dC "$target" >"$target.machine"
    asan=$(calls_of asan) msan=$(calls_of msan) ubsan=$(calls_of ubsan)
    rm "$target.machine"
    echo "$target: $asan calls of asan, $msan of msan, $ubsan of ubsan"
    case $SANITIZER in
    address) [ "$asan" -ge 1000 ] && [ "$msan" -le 3 ] && [ "$ubsan" -le 200 ] ;;
    memory) [ "$asan" -eq 0 ] && [ "$msan" -ge 1000 ] && [ "$ubsan" -le 200 ] ;;
    undefined) [ "$asan" -eq 0 ] && [ "$msan" -le 3 ] && [ "$ubsan" -ge 168 ] ;;
    esac
}

# Everything but the C and the C++ library is in the file.
is_static() {
    local others
    others=$(ldd "$target" | grep -vE 'linux-vdso|/ld-linux|lib(c|m|dl|rt|pthread|resolv|gcc_s|stdc\+\+|c\+\+|c\+\+abi)\.so') || true
    [ -z "$others" ] || {
        echo "$target needs $others"
        return 1
    }
}

is_good() {
    local edges seeds
    file "$target" | grep -q x86-64
    run_target -runs=4
    grep -q 'Done 4 runs' "$target.output"
    if grep -E 'no interesting inputs|WARNING' "$target.output"; then return 1; fi
    edges=$(sed -nE 's/^INFO: Loaded 1 modules +\(([0-9]+) inline.*/\1/p' "$target.output")
    [ "$edges" -gt 100 ]
    is_instrumented
    is_static
    [ -e "${target}_seed_corpus.zip" ] || return 0
    rm -rf seeds && mkdir seeds && (cd seeds && unzip -q "../${target}_seed_corpus.zip")
    seeds=$(find seeds -type f | wc -l)
    echo "$target: $seeds seeds, $edges edges"
    [ "$seeds" -eq "$(find "$root/corpus/$target" -type f | wc -l)" ]
    run_target -runs=0 seeds
    if [ -e "$target.dict" ]; then run_target -runs=4 -dict="$target.dict"; fi
}

setup() { cd "$BATS_TEST_TMPDIR" || return 1; }

# good_build SANITIZER TARGETS
good_build() {
    build "$@"
    cd elsewhere || return 1
    for target in $2; do is_good; done
}

all_targets() {
    CC=x CXX=x CFLAGS='' CXXFLAGS='' SANITIZER=$1 FUZZING_ENGINE=libfuzzer LIB_FUZZING_ENGINE=x OUT=x \
        make -s -C "$root" -f fuzz/oss-fuzz/Makefile ossfuzz-targets
}

@test "two targets with AddressSanitizer pass their check of a build" {
    good_build address "fuzz_api fuzz_options"
}

@test "all targets with every sanitizer pass their check of a build" {
    [ -n "${HAK_SOAK:-}" ] || skip "HAK_SOAK=1 only: minutes"
    for sanitizer in address undefined memory; do
        (good_build "$sanitizer" "$(all_targets "$sanitizer" | tr '\n' ' ')")
    done
}

@test "a build without what the environment says is refused" {
    run -2 env -u OUT CC=x CXX=x CFLAGS= CXXFLAGS= SANITIZER=address FUZZING_ENGINE=libfuzzer LIB_FUZZING_ENGINE=x \
        make -s -C "$root" -f fuzz/oss-fuzz/Makefile
    [[ $output == *"OUT is not set"* ]]
}
