#!/usr/bin/env bats
# The comparison of allocators: what it measures it sums up rightly, and it refuses what is not what it should be.
# shellcheck disable=SC2154  # root, build, output and status are set elsewhere
load support/real
bats_require_minimum_version 1.5.0

export LAB_QUICK=1
unset BENCH_PEERS

compare() {
    "$root/bench/run.py" --out results "$@"
}

# refused WORDS COMMAND...  ends with status 1 and says so
refused() {
    local words=$1
    shift
    run -1 "$@"
    [[ $output == *"$words"* ]] || { echo "wanted: $words" && echo "$output" && return 1; }
}

# library NAME  built from the C source on stdin
library() {
    gcc -O1 -fno-builtin -shared -fPIC -o "$PWD/$1" -x c -
}

# script  Python with the modules of bench/ at hand
script() {
    PYTHONPATH=$root/bench /usr/bin/python3 -
}

@test "two workloads on two allocators: raw figures, a summary that follows from them, tables and charts" {
    compare --bench lifo,calloc --alloc hakmem --rounds 3
    cut -f1,5,6 results/raw.tsv | LC_ALL=C sort | uniq -c | awk '$1 != 1 || NF != 4' >odd
    [ ! -s odd ]
    [ "$(wc -l <results/raw.tsv)" -eq 13 ]

    # The ratio of each round, their middle one, once more.
    awk -F '\t' 'NR > 1 { value[$1 $5, $6] = $7 } END {
        for (i = 1; i <= 3; i++) print value["lifohakmem", i] / value["lifolibc", i]
    }' results/raw.tsv | sort -g | sed -n 2p >middle
    awk -F '\t' 'NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i }
        $1 == "lifo" && $6 == "hakmem" { print $column["cost_to_libc"] }' results/summary.tsv >summed
    paste middle summed | awk '{ exit !($1 > 0 && ($1 - $2) ^ 2 < 1e-6) }'

    grep -Eq '^\| lifo \| [0-9.]+ (ms|s) \| [0-9.]+ \([0-9.]+-[0-9.]+\) \|' results/tables.md
    grep -Eq '^\| calloc \|' results/tables.md
    for chart in time-single rss-single overview; do
        grep -q '>hakmem<' "results/$chart.svg"
        [[ $(file -b "results/$chart.png") == "PNG image data"* ]]
    done
}

@test "what is measured anew takes the place of what was there, and the rest is kept" {
    compare --bench lifo,calloc --alloc hakmem,floor --rounds 1
    compare --bench calloc --alloc hakmem --rounds 2 --add
    [ "$(cut -f1,5 results/raw.tsv | tail -n +2 | sort | uniq -c | tr -s ' \n\t' ' ')" = \
        " 2 calloc hakmem 2 calloc libc 1 lifo floor 1 lifo hakmem 1 lifo libc " ]
    [ "$(cut -f1 results/about.tsv | tail -n 3 | tr '\n' ' ')" = "libc hakmem floor " ] # what was kept, in its order
    grep -q '^rounds	1 to 2$' results/about.tsv
    grep -q '^| lifo |' results/tables.md
}

@test "a growth curve has a workload per point, and a chart" {
    compare --bench growth-remote --alloc hakmem --rounds 1
    [ "$(cut -f1 results/raw.tsv | grep -c '^growth-remote@')" -eq 14 ]
    grep -q '>hakmem<' results/growth-remote.svg
    grep -Eq '^\| 100 \| [0-9.]+ \(' results/tables.md
}

@test "make passes on what is asked for" {
    run -0 make -s -n -C "$root" bench BENCH=lifo,real ALLOC=hakmem,/a.so ROUNDS=9
    [[ $output == *"bench/run.py --out build/bench --bench 'lifo,real' --alloc 'hakmem,/a.so' --rounds '9'"* ]]
}

@test "names that are not known are refused" {
    refused "no workload, group or beginning of a name is 'nonsense'" compare --bench lifo,nonsense
    refused "no allocator is called 'nonsense'" compare --bench lifo --alloc hakmem,nonsense
    refused "$PWD/none.so: there is no such library" compare --bench lifo --alloc ./none.so
    refused "$PWD/none.so: there is no such library" env BENCH_PEERS="$PWD/none.so" "$root/bench/run.py" --bench lifo
    cp "$build/libhakmem.so" .
    refused "two allocators are called hakmem" compare --bench lifo --alloc hakmem,./libhakmem.so
    [ ! -e results ]
}

@test "a package that is missing is named" {
    script <<'PY'
import allocators, lab
allocators.PACKAGED["mimalloc"] = ("libmimalloc2.0", "libnot-there.so.2")
try:
    allocators.choose("mimalloc", "")
except lab.Refused as refused:
    assert "it is in the package libmimalloc2.0" in str(refused), refused
else:
    raise SystemExit("not refused")
PY
}

@test "a library that does not replace malloc, or only a part, or passes it on, is refused" {
    echo 'int nothing;' | library nothing.so
    refused "$PWD/nothing.so does not replace malloc" compare --bench lifo --alloc ./nothing.so
    echo 'not a library' >text.so
    refused "$PWD/text.so does not replace malloc" compare --bench lifo --alloc ./text.so

    cat >most.c <<'C'
#include <stddef.h>
void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
void __libc_free(void *);
void *malloc(size_t n) { return __libc_malloc(n); }
void free(void *p) { __libc_free(p); }
void *calloc(size_t n, size_t m) { return __libc_calloc(n, m); }
void *aligned_alloc(size_t a, size_t n) { return __libc_memalign(a, n); }
int posix_memalign(void **p, size_t a, size_t n) { return (*p = __libc_memalign(a, n)) == NULL ? 12 : 0; }
C
    library most.so <most.c
    refused "$PWD/most.so does not replace realloc" compare --bench lifo --alloc ./most.so
    echo 'void *realloc(void *p, size_t n) { return __libc_realloc(p, n); }' >>most.c
    library passes.so <most.c
    refused "$PWD/passes.so only passes malloc on to the C library's allocator" compare --bench lifo --alloc ./passes.so
    [ ! -e results ]
}

@test "a program that is not on the allocator is refused, whatever is preloaded" {
    echo 'int main(void) { return 0; }' | gcc -static -o static -x c -
    # Its malloc is its own: what is preloaded comes too late.
    printf '%s\n' '#include <stdlib.h>' 'static char pool[4096];' 'void *malloc(size_t n) { return n > 4096 ? NULL : pool; }' \
        'void free(void *p) { (void)p; }' 'int main(void) { free(malloc(1)); return 0; }' |
        gcc -O0 -fno-builtin -rdynamic -o own -x c -
    script <<'PY'
import allocators, lab
hakmem = allocators.choose("hakmem", "")[1]

def verify(*command):
    bindings = allocators.Bindings()
    lab.run(command, {**allocators.preloaded(hakmem), **bindings.env})
    bindings.verify("it", hakmem)

def refused(words, *command):
    try:
        verify(*command)
    except lab.Refused as why:
        assert words in str(why), why
    else:
        raise SystemExit(f"not refused: {command}")

verify("/bin/sh", "-c", "true")
refused("no process of it lets the loader bind malloc", "./static")
refused("of ./own", "./own")
refused("is not on hakmem", "env", "LD_PRELOAD=", "/bin/sh", "-c", "true")
PY
}

@test "a real program must say the same on all allocators, figures aside, and not fail" {
    script <<'PY'
import allocators, run
from pathlib import Path
from workloads import Workload

compared = allocators.choose("hakmem", "")
shell = [("same", "echo as always; echo seconds: 1.$$ s"), ("differs", "echo $LD_PRELOAD"),
         ("fails", "case $LD_PRELOAD in *hakmem*) exit 3 ;; esac")]
chosen = [Workload(name, name, "real", ("wall",), ("/bin/sh", "-c", text)) for name, text in shell]
campaign = run.Campaign(chosen, compared, 1, Path("."))
campaign.check_all()
assert list(campaign.failures) == [("differs", "hakmem"), ("fails", "hakmem")], campaign.failures
assert "differs from that on the C library" in campaign.failures["differs", "hakmem"]
assert "status 3" in campaign.failures["fails", "hakmem"]
campaign.measure_all()
assert [(row[0], row[4]) for row in campaign.rows] == [
    ("same", "libc"), ("same", "hakmem"), ("differs", "libc"), ("fails", "libc")], campaign.rows
PY
}

@test "what hangs is ended, and the time left follows from what was measured" {
    script <<'PY'
import lab
try:
    lab.run(["sleep", "1000"], limit=1)
except lab.Failed as failed:
    assert "status 124" in str(failed), failed
else:
    raise SystemExit("not ended")
left = lab.TimeLeft({"known": 3, "not yet": 2})
assert str(left) == "? min left"
left.begin("known")
left.end("known", 10)
assert str(left) == "40 s left", left
left.end("known", 10)
assert str(left) == "80 s left", left
left.cancel("known")
assert str(left) == "40 s left", left
PY
}

@test "figures come into documents between their marks, and are found when they are no longer those" {
    compare --bench lifo --alloc hakmem
    printf '%s\n' before '<!-- table: time-single -->' 'old text' '<!-- end -->' '<!-- chart: overview -->' '<!-- end -->' \
        after >doc.md
    "$root/bench/performance.py" results doc.md
    [ "$(head -n 1 doc.md)" = before ] && [ "$(tail -n 1 doc.md)" = after ]
    run ! grep -q 'old text' doc.md
    grep -q '^| lifo |' doc.md
    grep -Fq '(results/overview.svg)' doc.md
    "$root/bench/performance.py" --check results doc.md

    sed -i 's/| lifo | /| lifo | 9/' doc.md
    refused "not as made from results: doc.md" "$root/bench/performance.py" --check results doc.md
    printf '%s\n' '<!-- table: nonsense -->' '<!-- end -->' >doc.md
    refused "there is no table nonsense" "$root/bench/performance.py" results doc.md
    printf '%s\n' '<!-- table: overview -->' 'no end' >doc.md
    refused "a part without its beginning or end" "$root/bench/performance.py" results doc.md
}

@test "the tables that the documents of the project want exist" {
    script <<PY
import re, tables
for document in ("docs/PERFORMANCE.md", "README.md"):
    wanted = re.findall(r"<!-- (?:table|chart): (\S+) -->", open(f"$root/{document}").read())
    assert wanted and not set(wanted) - set(tables.TABLES), (document, wanted)
PY
}
