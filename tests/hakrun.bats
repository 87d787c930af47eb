#!/usr/bin/env bats
# hakrun: status and signals pass through, the statistics of a process tree are summed, and what cannot work is said
# before the program starts.
# shellcheck disable=SC2154  # root, build and hakrun are set there
load support/real
bats_require_minimum_version 1.5.0

# A shared library that hakrun takes for hakmem and that writes no statistics: what the summary holds is then exactly
# what a test writes.
silent() {
    echo '__attribute__((section(".note.hakmem"), used)) static const int mark[5] = {4, 4, 1};' |
        gcc -shared -fPIC -x c - -o silent.so
}

# misused MESSAGE ARGUMENTS...  hakrun names what is wrong with its arguments, and starts nothing
misused() {
    local message=$1
    shift
    run "$hakrun" "$@"
    echo "$status: $output"
    [ "$status" -eq 2 ]
    [ "$output" = "hakrun: $message (see hakrun --help)" ]
}

# refused REASON PROGRAM  hakrun says why, and does not start it
refused() {
    run "$hakrun" "$2"
    [ "$status" -eq 125 ]
    [ "${lines[0]}" = "hakrun: $2: hakmem cannot be preloaded: $1" ]
    [ "${lines[1]}" = "hakrun: $2 is not started (--force starts it without)" ]
    [ "${#lines[@]}" -eq 2 ]
}

# A program that leaves a file behind, so that a refused one is seen not to have started.
program() {
    cat >program.c <<'C'
#include <stdio.h>
int main(void) { return fclose(fopen("started", "w")); }
C
    "$@" program.c -o program
}

@test "the program's exit status is hakrun's" {
    run "$hakrun" sh -c 'exit 7'
    [ "$status" -eq 7 ] && [ "$output" = "" ]
    run "$hakrun" --stats --output summary sh -c 'exit 7'
    [ "$status" -eq 7 ] && [ "$output" = "" ]
}

@test "the signal that ends the program ends hakrun" {
    for flag in --log --stats; do
        for signal in 9 11 15; do
            run perl -e 'system @ARGV; print $? & 127' "$hakrun" "$flag" perl -e "kill $signal, \$\$; sleep 60" 2>/dev/null
            [[ $output == *"$signal" ]]
        done
    done
}

@test "a signal sent to hakrun reaches the program" {
    # The program is ready once it has made the file; 3>&- keeps bats from waiting for it.
    # shellcheck disable=SC2016  # perl's variables
    "$hakrun" --stats --output summary perl -e '$| = 1; $SIG{$_} = sub { print "$_[0]\n"; $n++ } for qw(USR1 HUP INT);
        $SIG{TERM} = sub { exit 9 }; open my $f, ">", "ready"; sleep 1 while 1' >out 3>&- &
    while [ ! -e ready ]; do sleep 0.05; done
    for signal in USR1 HUP INT; do
        kill -s $signal $!
        until grep -q $signal out; do sleep 0.05; done
    done
    kill -s TERM $!
    status=0
    wait $! || status=$?
    [ "$status" -eq 9 ]
    [ "$(sort out | uniq -c | tr -s ' \n' ' ')" = " 1 HUP 1 INT 1 USR1 " ]
}

@test "input and output are the program's own, also with statistics" {
    seq 1000 >numbers
    "$hakrun" --stats cat <numbers >copy 2>summary
    cmp numbers copy
    [ "$(grep -c '^hakrun: cat: ' summary)" -eq 1 ]
    [ "$(grep -vc '^hakrun: ' summary)" -eq 0 ]
}

@test "the library of the build that hakrun is part of is preloaded, or the checked one" {
    run "$hakrun" sed -n 's|.* /|/|; /hakmem/p' /proc/self/maps
    [ "$(sort -u <<<"$output")" = "$(readlink -f "$build/libhakmem.so")" ]
    run "$hakrun" --checked sed -n 's|.* /|/|; /hakmem/p' /proc/self/maps
    [ "$(sort -u <<<"$output")" = "$(readlink -f "$build/libhakmem-checked.so")" ]
    "$root/tools/hakrun" grep -q "$(readlink -f "$build/libhakmem.so")" /proc/self/maps
}

@test "an installed hakrun finds the library in lib beside its bin" {
    mkdir -p usr/bin usr/lib
    cp "$hakrun" usr/bin
    cp "$build/libhakmem.so" usr/lib
    usr/bin/hakrun grep -q "$(readlink -f usr/lib/libhakmem.so)" /proc/self/maps
}

@test "what LD_PRELOAD held stays behind the library" {
    silent
    LD_PRELOAD=$PWD/silent.so run "$hakrun" printenv LD_PRELOAD
    [ "$output" = "$(readlink -f "$build/libhakmem.so"):$PWD/silent.so" ]
}

@test "--log and --libc do what they say" {
    run "$hakrun" --log printenv HAKMEM_LOG
    [ "${lines[-1]}" = 1 ]
    run "$hakrun" --libc --stats cat /proc/self/maps
    [[ $output != *libhakmem* ]]
    [[ ${lines[-1]} == "hakrun: cat: "*" s, "*" s user, "*" s system, peak RSS "*" of the largest process" ]]
}

@test "one summary for the whole process tree" {
    # shellcheck disable=SC2016  # perl's variables
    "$hakrun" --stats=json --output summary perl -e '
        my $block = "x" x 3_000_000;
        for (1 .. 3) { if (!fork) { my @small = map { "y" x 40 . $_ } 1 .. 10_000; exit 0 } }
        1 while wait > 0; system "perl", "-e", "1"'
    [ "$(wc -l <summary)" -eq 1 ]
    jq -e '.processes == 5 and .programs == {"perl": 5} and .unreadable == 0 and .still_running == false' summary
    jq -e '.sum["layers.big.served_bytes"] >= 3000000 and .sum["layers.tiny.served_bytes"] > 3 * 10000 * 40' summary
    jq -e '.wall_seconds > 0 and .peak_rss_bytes > 3000000' summary
}

@test "the summary is the exact sum of the lines, and unreadable lines are counted and left out" {
    silent
    cat >lines.sh <<'SH'
cat >>"$HAKMEM_STATS_FILE" <<'EOL'
{"pid":10,"program":"one","layers":{"tiny":{"served_bytes":1000,"served_blocks":10},"big":{"served_bytes":5}},"threads":1}
{"pid":11,"program":"two \"x\"","layers":{"tiny":{"served_bytes":24,"served_blocks":1}},"threads":2,"list":[1,2]}
{"pid":12,"program":"two \"x\"","layers":{"tiny":{"served_bytes":18446744073709500000}}}
{"pid":13,"program":"cut","layers":{"tiny":{"served_bytes":99
not JSON

{"pid":14,"program":"rest","threads":4} rest
EOL
printf '{"pid":15,"program":"cut","threads":8' >>"$HAKMEM_STATS_FILE"
SH
    "$hakrun" --library silent.so --stats=json --output summary sh lines.sh
    run jq -c '[.processes, .unreadable, .programs]' summary
    [ "$output" = '[3,5,{"one":1,"two \"x\"":2}]' ]
    grep -q '"sum":{"layers.tiny.served_bytes":18446744073709501024,"layers.tiny.served_blocks":11,"layers.big.served_bytes":5,"threads":3,"list":3}}$' summary
    "$hakrun" --library silent.so --stats --output summary sh -c "sed -i 's/184467440737095//' lines.sh; . ./lines.sh"
    grep -qx 'hakrun: 3 processes on hakmem: 1 one, 2 two \\"x\\"' summary
    grep -qx 'hakrun: 5 unreadable lines of statistics are left out' summary
    grep -qx 'hakrun:   tiny *1.0 KiB  *11  *0 B  *0 B  *0 B' summary
}

@test "long names and paths with escapes are cut between two characters" {
    silent
    cat >lines.sh <<'SH'
{
    printf '{"pid":10,"program":"%061d\\u00e9%030d\\"\\\\","threads":1}\n' 0 0
    printf '{"pid":11,"program":"%062d\\"","threads":1}\n' 0
    long=$(printf '"%061d\\\\\\"":{' 0)
    printf '{"pid":12,"program":"p",%s%s%s"a":1}}}}\n' "$long" "$long" "$long"
    printf '{"pid":13,"program":"no \\escape"}\n{"pid":13,"program":"\\u00g0"}\n{"pid":13,"program":"\\u'
} >>"$HAKMEM_STATS_FILE"
SH
    "$hakrun" --library silent.so --stats=json --output summary sh lines.sh
    zeroes=$(printf '%062d' 0)
    jq -e --arg z "$zeroes" '.programs == {($z[1:]): 1, ($z): 1, "p": 1}' summary
    jq -e --arg z "$zeroes" '.sum == {"threads": 2, ([$z[1:] + "\\", $z[1:] + "\\", $z[1:] + "\\", "a"] | join(".")): 1}' summary
    jq -e '.processes == 3 and .unreadable == 3' summary
}

@test "a tree without statistics is said to be one" {
    silent
    run "$hakrun" --library silent.so --stats true
    [ "$status" -eq 0 ]
    [ "${lines[1]}" = "hakrun: 0 processes on hakmem" ]
    [ "${lines[2]}" = "hakrun: no process ran on hakmem's malloc" ]
    [ "${#lines[@]}" -eq 3 ]
}

@test "a process that outlives the program is not waited for, and the summary says so" {
    "$hakrun" --stats=json --output summary sh -c 'sleep 300 >/dev/null 2>&1 3>&- & echo $!' >pid
    kill "$(cat pid)"
    jq -e '.still_running' summary
}

@test "processes that end without a line are counted, and named" {
    # shellcheck disable=SC2016  # perl's variables
    run -137 "$hakrun" --stats --output summary perl -MPOSIX -e '
        for (1 .. 3) { if (!fork) { POSIX::_exit(0) } }
        1 while wait > 0; system "perl", "-e", "1"; system "sh", "-c", q(kill -9 $$); kill 9, $$'
    cat summary
    grep -qx 'hakrun: 1 process on hakmem: 1 perl' summary
    grep -qx 'hakrun: 5 processes left no statistics (they ended by _exit() or a signal, or still run): 4 perl, 1 sh' summary
    run "$hakrun" --stats=json --output summary sh -c 'exec perl -MPOSIX -e "POSIX::_exit(3)"'
    [ "$status" -eq 3 ]
    jq -e '.processes == 0 and .without_statistics == 1 and .programs == {} and .still_running == false' summary
    # Replaced by exec: one process all the same.
    "$hakrun" --stats=json --output summary sh -c 'exec sh -c "exec perl -e 1"'
    jq -e '.processes == 1 and .without_statistics == 0 and .programs == {"perl": 1}' summary
}

@test "starts and ends are told apart by process, also where a number comes again" {
    silent
    cat >lines.sh <<'SH'
cat >>"$HAKMEM_STATS_FILE" <<'EOL'
{"version":1,"pid":10,"program":"a","start":"exec"}
{"version":1,"pid":11,"program":"a","start":"fork"}
{"version":1,"pid":11,"program":"b","start":"exec"}
{"version":1,"pid":11,"program":"b","threads":1}
{"version":1,"pid":12,"program":"a","start":"fork"}
{"version":1,"pid":12,"program":"c","start":"fork"}
{"version":1,"pid":12,"program":"c","threads":2}
{"version":1,"pid":13,"program":"d","threads":4}
{"version":1,"pid":99999999999,"program":"e","start":"exec"}
EOL
SH
    "$hakrun" --library silent.so --stats=json --output summary sh lines.sh
    jq -e '.processes == 3 and .programs == {"b": 1, "c": 1, "d": 1} and .sum == {"threads": 7}' summary
    jq -e '.without_statistics == 3 and .unreadable == 0' summary
    "$hakrun" --library silent.so --stats --output summary sh lines.sh
    grep -qF 'hakrun: 3 processes left no statistics (they ended by _exit() or a signal, or still run): 2 a, 1 e' summary
}

@test "the user's own HAKMEM_STATS_FILE gets the lines as well" {
    HAKMEM_STATS_FILE=mine "$hakrun" --stats=json --output summary perl -e 'system "sort", "/dev/null"'
    jq -e '.processes == 2' summary
    [ "$(jq -r .program mine | xargs)" = "sort perl" ]
    jq -s -e 'all(.layers.tiny.served_blocks > 0)' mine
    # Appended; and with the lines that the user asks for.
    HAKMEM_STATS_START=1 HAKMEM_STATS_FILE=mine "$hakrun" --stats --output summary sort /dev/null
    [ "$(jq -r '.start // "end"' mine | xargs)" = "end end exec end" ]
    HAKMEM_STATS_FILE=. run "$hakrun" --stats sort /dev/null
    [ "$status" -eq 0 ]
    [ "${lines[0]}" = "hakrun: HAKMEM_STATS_FILE: cannot append to .: Is a directory" ]
    [[ ${lines[1]} == "hakrun: sort: "* ]]
    HAKMEM_STATS_FILE=0 "$hakrun" --stats --output summary true
    [ ! -e 0 ]
}

@test "a program that is linked with hakmem is known, and counted once" {
    linked="is linked with hakmem: that one serves it, not the library"
    for flags in -pie -no-pie -rdynamic "-s -Wl,--gc-sections"; do
        # shellcheck disable=SC2086  # several flags
        gcc $flags "$root/tests/support/life_linked.c" "$build/hakmem.o" -pthread -o linked
        for checked in "" --checked; do
            # shellcheck disable=SC2086  # perhaps none
            run "$hakrun" --stats=json --output summary $checked ./linked
            echo "$flags $checked: $output"
            cat summary
            [ "$status" -eq 0 ]
            [ "$output" = "hakrun: ./linked $linked"$'\n'ok ]
            # It forks one child, which ends by _exit().
            jq -e '.processes == 1 and .programs == {"linked": 1}' summary
            jq -e '.sum["layers.big.served_blocks"] > 0' summary
        done
        run "$hakrun" --libc ./linked
        [ "$status" -eq 125 ]
        [ "${lines[0]}" = "hakrun: ./linked: --libc has no effect: it is linked with hakmem, before which no library can come" ]
        [ "${lines[1]}" = "hakrun: ./linked is not started (--force starts it without)" ]
        run "$hakrun" --libc --force ./linked
        [ "$status" -eq 0 ] && [ "${lines[-1]}" = ok ]
    done
    for flags in -static "-static -s" -static-pie; do
        # shellcheck disable=SC2086  # several flags
        gcc $flags "$root/tests/support/life_linked.c" "$build/hakmem.o" -pthread -o linked
        run "$hakrun" --stats=json --output summary ./linked
        [ "$status" -eq 0 ]
        [ "$output" = "hakrun: ./linked $linked"$'\n'ok ]
        jq -e '.processes == 1 and .sum["layers.big.served_blocks"] > 0' summary
        run "$hakrun" --libc ./linked
        [ "$status" -eq 125 ]
    done
    # With the shared library it is as any other program.
    gcc "$root/tests/support/life_linked.c" "$build/libhakmem.so" -Wl,-rpath,"$build" -pthread -o linked
    for checked in "" --checked; do
        # shellcheck disable=SC2086  # perhaps none
        run "$hakrun" --stats=json --output summary $checked ./linked
        [ "$status" -eq 0 ] && [ "$output" = ok ]
        jq -e '.processes == 1' summary
    done
    run "$hakrun" --libc ./linked
    [ "$status" -eq 1 ] && [ "$output" = "the block is not hakmem's" ]
}

@test "a program with a malloc of its own is not counted as on hakmem" {
    cat >own.c <<'C'
#include <stddef.h>
void *malloc(size_t n) { static char pool[1 << 20]; static size_t used; used += n + 15 & ~15ul; return pool + used - n; }
void free(void *p) { (void)p; }
C
    program gcc own.c -rdynamic
    run "$hakrun" --stats ./program
    [ "$status" -eq 0 ]
    [ "${lines[0]}" = "hakrun: ./program defines malloc itself: that allocator serves it, not hakmem" ]
    [ "${lines[2]}" = "hakrun: 0 processes on hakmem" ]
    run "$hakrun" --libc ./program
    [ "$status" -eq 125 ]
    [ "${lines[0]}" = "hakrun: ./program: --libc has no effect: it defines malloc itself, before which no library can come" ]
}

@test "what makes no sense together is refused" {
    misused "--output is for the summary of --stats, which is missing" --output summary true
    [ ! -e summary ]
    misused "--libc runs without hakmem: --checked cannot be had with it" --checked --libc true
    misused "--libc runs without hakmem: --log cannot be had with it" --log --libc true
    misused "--libc runs without hakmem: --library cannot be had with it" --libc --library "$build/libhakmem.so" true
    misused "--checked and --library both name the library" --checked --library "$build/libhakmem.so" true
}

@test "a statically linked program is refused" {
    program gcc -static
    refused "it is statically linked, so nothing can be preloaded; link it with hakmem.o instead" ./program
    program gcc -static-pie
    refused "it is statically linked, so nothing can be preloaded; link it with hakmem.o instead" ./program
    [ ! -e started ]
    run "$hakrun" --force ./program
    [ "$status" -eq 0 ] && [ -e started ]
}

@test "a program built with a sanitizer is refused" {
    for name in address:AddressSanitizer thread:ThreadSanitizer; do
        program gcc "-fsanitize=${name%:*}"
        refused "it is built with ${name#*:}, which has to own malloc itself" ./program
    done
    for name in address:AddressSanitizer memory:MemorySanitizer; do
        program clang-14 "-fsanitize=${name%:*}"
        refused "it is built with ${name#*:}, which has to own malloc itself" ./program
    done
    [ ! -e started ]
}

@test "a program of another architecture, width or C library is refused" {
    program gcc
    cp program other
    printf '\xf3' | dd of=other bs=1 seek=18 conv=notrunc status=none
    refused "it is built for another architecture than the library" ./other
    cp program narrow
    printf '\x01' | dd of=narrow bs=1 seek=4 conv=notrunc status=none
    refused "it is built for another architecture than the library" ./narrow
    loader=$(readelf -l "$hakrun" | sed -n 's/.*interpreter: .*\/\(.*\)]/\1/p')
    gcc program.c -o program -Wl,--dynamic-linker=/lib/ld-other.so.1
    refused "its C library (ld-other.so.1) is not the one that the library is built for ($loader)" ./program
    [ ! -e started ]
}

@test "a set-user-ID program is refused, whoever starts it" {
    if [ "$(id -u)" -eq 0 ]; then
        program gcc
        chown 65534 program
        chmod 4755 program
        refused "it is set-user-ID, and such programs ignore LD_PRELOAD" ./program
        chown 0:65534 program
        chmod 2755 program
        refused "it is set-group-ID, and such programs ignore LD_PRELOAD" ./program
        [ ! -e started ]
    else
        refused "it is set-user-ID, and such programs ignore LD_PRELOAD" "$(command -v su)"
    fi
}

@test "a damaged program file is no danger" {
    gcc -g -fsanitize=address,undefined -fno-sanitize-recover=all "$root"/tools/runner/*.c -o checked-hakrun
    program gcc
    size=$(stat -c %s program)
    # Every field of the ELF header, then places all over the program headers, sections and symbols.
    for at in $(seq 4 2 62) $(seq 64 97 1200) $(seq $((size - 2000)) 61 $((size - 4))); do
        cp program broken
        printf '\xff\xff\xff\xff' | dd of=broken bs=1 seek="$at" conv=notrunc status=none
        output=$(./checked-hakrun --library "$build/libhakmem.so" --stats --output summary ./broken 2>&1) || true
        [[ $output != *Sanitizer* && $output != *"runtime error"* ]]
    done
    for length in 1 4 17 63 64 200 1000 "$((size / 2))"; do
        head -c "$length" program >broken
        chmod +x broken
        output=$(./checked-hakrun --library "$build/libhakmem.so" --stats --output summary ./broken 2>&1) || true
        [[ $output != *Sanitizer* && $output != *"runtime error"* ]]
    done
}

@test "an allocator of the program's own is named, and the program starts" {
    cat >own.c <<'C'
#include <stddef.h>
void *malloc(size_t n) { static char pool[1 << 20]; static size_t used; used += n + 15 & ~15ul; return pool + used - n; }
void free(void *p) { (void)p; }
C
    program gcc own.c -rdynamic
    run "$hakrun" ./program
    [ "$status" -eq 0 ] && [ -e started ]
    [ "$output" = "hakrun: ./program defines malloc itself: that allocator serves it, not hakmem" ]

    mkdir lib
    echo 'void *mallocx(int n) { return (void)n, (void *)0; }' | gcc -shared -fPIC -Wl,-soname,libjemalloc.so.2 -x c - -o lib/libjemalloc.so.2
    program gcc -Wl,--no-as-needed,-rpath,"$PWD/lib" lib/libjemalloc.so.2
    run "$hakrun" ./program
    [ "$status" -eq 0 ]
    [ "$output" = "hakrun: ./program is linked with an allocator of its own, jemalloc (libjemalloc.so.2): hakmem takes over malloc and its kin, not the functions with names of its own" ]

    echo '#include <stdlib.h>
    void *mi_malloc(size_t n) { return malloc(n); }' >own.c
    program gcc own.c
    run "$hakrun" ./program
    [ "$status" -eq 0 ]
    [ "$output" = "hakrun: ./program carries an allocator of its own, mimalloc (mi_malloc): hakmem serves only what it asks of malloc" ]

    run "$hakrun" /usr/bin/python3 -c 'print(1)'
    [ "${lines[0]}" = "hakrun: /usr/bin/python3 carries an allocator of its own, pymalloc, for small objects: PYTHONMALLOC=malloc turns it off" ]
    PYTHONMALLOC=malloc run "$hakrun" /usr/bin/python3 -c 'print(1)'
    [ "$output" = 1 ]
}

@test "for a script, what runs it is looked at" {
    program gcc -static
    printf '#!%s\n' "$PWD/program" >script
    chmod +x script
    run "$hakrun" ./script
    [ "$status" -eq 125 ]
    [ "${lines[0]}" = "hakrun: $PWD/program: hakmem cannot be preloaded: it is statically linked, so nothing can be preloaded; link it with hakmem.o instead" ]
    [ "${lines[1]}" = "hakrun: ./script is not started (--force starts it without)" ]
    printf '#!/usr/bin/env -S program x\n' >script
    PATH=$PWD:$PATH run "$hakrun" ./script
    [ "$status" -eq 125 ]
    printf '#!/usr/bin/env sh\nexit 3\n' >script
    run "$hakrun" ./script
    [ "$status" -eq 3 ] && [ "$output" = "" ]
    printf '#!./script\n' >script
    run "$hakrun" ./script
    [ "$status" -ge 125 ]
}

@test "a missing library, and one that LD_PRELOAD cannot name, are said" {
    mkdir -p usr/bin
    cp "$hakrun" usr/bin
    run usr/bin/hakrun --checked true
    [ "$status" -eq 125 ]
    [[ $output == "hakrun: libhakmem-checked.so is missing (looked in .., ../lib, ../lib64 and . of $PWD/usr/bin): "* ]]
    : >usr/bin/libhakmem.so
    run usr/bin/hakrun true
    [ "$status" -eq 125 ] && [ "$output" = "hakrun: $PWD/usr/bin/libhakmem.so: not a 64-bit shared library" ]
    misused "--library none.so: No such file or directory" --library none.so true
    misused "--library /etc/passwd: not a 64-bit shared library" --library /etc/passwd true
    misused "--library $build/hakmem.o: not a 64-bit shared library" --library "$build/hakmem.o" true
    echo 'int other;' | gcc -shared -fPIC -x c - -o other.so
    misused "--library other.so: not a build of hakmem" --library other.so true
    silent
    mv silent.so "a space.so"
    run "$hakrun" --library "a space.so" true
    [ "$status" -eq 125 ]
    [ "$output" = "hakrun: $PWD/a space.so: LD_PRELOAD cannot hold a path with a space or a colon: link or copy it elsewhere" ]
}

@test "a program that is not there, or is no program, gives the status of env" {
    run -127 "$hakrun" no-such-program
    [ "$output" = "hakrun: no-such-program: not found" ]
    run "$hakrun" /etc/passwd
    [ "$status" -eq 126 ] && [ "$output" = "hakrun: /etc/passwd: not an executable file" ]
    run "$hakrun" --help
    [ "$status" -eq 0 ] && [ "${lines[0]}" = "usage: hakrun [options] program [arguments]" ]
}

@test "a wrong call is answered with what is wrong" {
    misused "no program is named"
    misused "no program is named" --stats
    misused "--stats=wrong: it can be text or json" --stats=wrong true
    misused "--nonsense is not an option, or short for several" --nonsense true
    misused "--lib is not an option, or short for several" --lib true
    misused "-x is not an option" -x true
    misused "--output needs a file name" --stats --output
    misused "--library needs a file name" --library
    misused "--checked takes no value" --checked=1 true
    run "$root/tools/hakrun" --nonsense true
    [ "$status" -eq 2 ]
}
