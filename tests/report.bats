#!/usr/bin/env bats
# The report's driver (bench/report.py): on parts that are made up, in a tree of its own, and once on all real ones.
# shellcheck disable=SC2154  # status, output and stderr are set by run
bats_require_minimum_version 1.5.0

root=${HAK_ROOT:-$BATS_TEST_DIRNAME/..}
document=PHASE2C_IMPLEMENTATION_REPORT.md
parts=(bigcache l25 tls superslab phase7 reach memory tools)
chapters=(
    "## 1 BigCache: resize behaviour"
    "## 2 L2.5 pool: shard expansion"
    "## 3 Performance comparison"
    "## 4 Memory usage"
    "## 5 Production readiness"
    "## 6 TLS cache: adaptive sizing and pre-warm"
    "## 7 SuperSlab expansion and 4-thread stability"
    "## 8 Phase 7"
    "## 9 Raw data"
)

setup() { cd "$BATS_TEST_TMPDIR" || return 1; }

# part NAME MET: a part whose one criterion is met (True) or not (False), and that notes when it was measured.
part() {
    cat >"bench/report/$1.py" <<PY
import lab
def section(out):
    with open("order", "a") as order:
        print("$1", file=order)
    (out / "$1.tsv").write_text("raw\n")
    lab.status("measures")
    return lab.Section("# A heading\n\nThis is $1, see [it]($1.tsv).\n", [("work on $1", "speed", 1, 2, "+100 %")],
                       [("memory of $1", 4, 3, "-25 %")], [lab.Criterion("goal of $1", $2, "seen | in $1")])
PY
}

made_up() {
    mkdir -p bench/report
    cp "$root"/bench/report.py "$root"/bench/lab.py bench/
    for name in "${parts[@]}"; do part "$name" True; done
}

has_chapters() {
    local line
    for line in "${chapters[@]}"; do
        grep -qxF "$line" "$1" || { echo "no '$line'"; return 1; }
    done
    [ "$(grep -c '^## ' "$1")" -eq ${#chapters[@]} ]
}

@test "all parts are measured in their order, and put together in chapters" {
    made_up
    run --separate-stderr python3 bench/report.py --out docs/report
    [ "$status" -eq 0 ]
    [[ $output == *"ready for production: YES" ]]
    [[ $stderr == *"[0:00 l25] measures"* ]]
    diff order <(printf '%s\n' "${parts[@]}")
    has_chapters docs/$document
    for name in "${parts[@]}"; do
        [ -s "docs/report/$name.tsv" ]
        grep -qxF -- "- [$name.tsv](report/$name.tsv)" docs/$document
        grep -qxF "This is $name, see [it](report/$name.tsv)." docs/$document
        grep -qxF "| work on $name | speed | 1 | 2 | +100 % |" docs/$document
        grep -qxF "| memory of $name | 4 | 3 | -25 % |" docs/$document
        grep -qxF "| goal of $name | yes | seen \\| in $name |" docs/$document
    done
    run -1 grep "A heading" docs/$document
}

@test "one criterion that is not met makes it say NO, whichever it is" {
    made_up
    for name in "${parts[@]}"; do
        part "$name" False
        run --separate-stderr python3 bench/report.py --out docs/report
        [ "$status" -eq 0 ]
        [[ $output == *"ready for production: NO" ]]
        grep -qF "Ready for production: **NO**: 1 of 8 criteria are not met: goal of $name." docs/$document
        grep -qxF "| goal of $name | **no** | seen \\| in $name |" docs/$document
        part "$name" True
    done
}

@test "a part that fails, is absent or was not asked for makes it say NO; the others are measured" {
    made_up
    printf 'import lab\ndef section(out):\n    raise lab.Failed("the program ended by itself")\n' >bench/report/l25.py
    printf 'def section(out):\n    return 1 // 0\n' >bench/report/tls.py
    rm bench/report/reach.py
    run --separate-stderr python3 bench/report.py --out docs/report
    [ "$status" -eq 1 ]
    [[ $output == *"ready for production: NO" ]]
    has_chapters docs/$document
    grep -qF "3 of 8 criteria are not met: part \`l25\` measured; part \`tls\` measured; part \`reach\` measured." docs/$document
    grep -qF "| part \`l25\` measured | **no** | the program ended by itself |" docs/$document
    grep -qF "| part \`tls\` measured | **no** | ZeroDivisionError: integer division or modulo by zero |" docs/$document
    grep -qF "| part \`reach\` measured | **no** | there is no reach.py |" docs/$document
    grep -qF "This is tools, " docs/$document

    # Who measures and judges nothing is not ready either.
    printf 'import lab\ndef section(out):\n    return lab.Section("Fast.", [], [], [])\n' >bench/report/superslab.py
    run --separate-stderr python3 bench/report.py superslab --out docs/report
    grep -qF "| part \`superslab\` judged | **no** | it has no criterion |" docs/$document

    run --separate-stderr python3 bench/report.py phase7 --out docs/report
    [ "$status" -eq 0 ]
    [[ $output == *"ready for production: NO" ]]
    grep -qF "| part \`tools\` measured | **no** | it was not asked for |" docs/$document

    run -2 --separate-stderr python3 bench/report.py phase8
    [[ $stderr == *"no part is called phase8"* ]]
}

@test "every real part can be measured, in its short form" {
    names=()
    for path in "$root"/bench/report/*.py; do names+=("$(basename "$path" .py)"); done
    run --separate-stderr env LAB_QUICK=1 python3 "$root/bench/report.py" "${names[@]}" --out docs/report
    echo "$output" "$stderr"
    [ "$status" -eq 0 ]
    has_chapters docs/$document
    grep -qF "LAB_QUICK=1" docs/$document
    for name in "${names[@]}"; do
        compgen -G "docs/report/$name*.tsv" >/dev/null || { echo "$name left no raw figures"; return 1; }
    done
    # Every plot that is shown is there.
    while IFS= read -r plot; do [ -s "docs/$plot" ] || { echo "no $plot"; return 1; }; done < <(
        sed -n 's/.*!\[[^]]*\](\([^)]*\)).*/\1/p' docs/$document
    )
}
