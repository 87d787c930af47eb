#!/usr/bin/env bash
# Every number in src that may be a capacity stands in a table of docs/DESIGN_FLAWS.md, under its file and as it is there:
# a constant (`NAME 64`) and the size of an array (`name[64]`), if they have a number over 3 in them; a field or static of 32
# bits or fewer (`uint8_t name`); an option with the largest value it takes (`NAME 2048`). Nothing that is not in src
# stands there, and each test named there exists: `unit_name: test` or `name.bats: title`.
#   tools/lint/capacities.sh            complains and fails
#   tools/lint/capacities.sh list       prints what must be there
set -eu
shopt -s nullglob
cd "$(dirname "$0")/../.."
document=docs/DESIGN_FLAWS.md

# "must file what" of each; "may file what" of any other constant.
in_source() {
    awk '
        function is_number(text) { return text ~ /(^|[^A-Za-z_0-9])(0x|[4-9]|[1-9][0-9])|HAK_[KM]IB/ }
        function found(what, must) { print must ? "must" : "may", file, what }
        FNR == 1 { file = FILENAME; sub(/.*\//, "", file); comment = in_struct = 0 }
        {
            code = $0
            if (comment) { if (!sub(/^.*\*\//, "", code)) next; comment = 0 }
            gsub(/\/\*([^*]|\*+[^*\/])*\*+\//, "", code)
            if (sub(/\/\*.*/, "", code)) comment = 1
            sub(/[ \\]+$/, "", code)
        }
        code ~ /^ *#define [A-Za-z_0-9]+ / {
            sub(/^ *#define /, "", code)
            value = code
            sub(/^[^ ]+ +/, "", value)
            sub(/ .*/, "", code)
            if (value !~ /["{}]|__|sizeof|[a-z]\(/) found(code " " value, is_number(value))
            next
        }
        code ~ /^constexpr [a-z_]+ [a-z_]+ = / {
            sub(/^constexpr [a-z_]+ /, "", code); sub(/;.*/, "", code)
            found(code, is_number(code))
            next
        }
        { sub(/HAK_TSA\([^ ]*\) /, "", code) }
        code ~ /^(static )?struct [^()]*\{$/ { in_struct = 1 }
        code ~ /^}/ { in_struct = 0 }
        { # a declaration: of a field, or a static or local variable
            sub(/ = .*/, "", code)
            if (code ~ /[({}]/ || code !~ /[a-z_0-9\]][;,]?$/) next
            is_static = code ~ /^static /
            gsub(/^ *|(static|extern|const|volatile|_Thread_local|HAK_ALIGNED_LINE|_Atomic) /, "", code)
            if (code !~ /^(struct [a-z_0-9]+|enum [a-z_0-9]+|unsigned|char|bool|void|[a-z_0-9]+_t|hak_[a-z_0-9]+) /) next
            type = code
            sub(/ .*/, "", type)
            n = split(code, name, ",")
            for (i = 1; i <= n; i++) {
                size = name[i]
                if (!sub(/^[^\[]*\[/, "", size)) size = ""
                sub(/\].*/, "", size)
                sub(/\[.*|;.*/, "", name[i]); sub(/.*[ *]/, "", name[i])
                if (is_number(size)) found(name[i] "[" size "]", 1)
                if (type ~ /^u?int(8|16|32)_t$/ && (in_struct || is_static)) found(type " " name[i], 1)
            }
        }' src/*/*.[ch] src/*/*.cc
    sed -nE 's/^HAK_OPTION\(([A-Z0-9_]+), NUMBER, [^,]+, [0-9]+, ([0-9]+),.*/must options.def \1 \2/p' src/base/options.def
}

# "file what" of the tables: rows | `file.c` | `what`, `what` | ...
in_tables() {
    awk -F '|' '$2 ~ /^ `[a-z0-9_]+\.(c|h|cc|def)` $/ {
        split($2, file, "`")
        n = split($3, what, "`")
        for (i = 2; i <= n; i += 2) print file[2], what[i]
    }' "$document" | LC_ALL=C sort -u
}

tests_that_are_missing() {
    # shellcheck disable=SC2016
    grep -oE '`[a-z_0-9]+(\.bats)?: [^`]+`' "$document" | tr -d '`' | LC_ALL=C sort -u | while IFS= read -r test; do
        file=${test%%: *} name=${test#*: }
        case $file in
        *.bats) grep -qF "@test \"$name\" " "tests/$file" ;;
        *) cat "tests/$file".c* | grep -qE "^static void $name\(" ;;
        esac 2>/dev/null || echo "no such test: $test"
    done
}

of() { in_source | sed -nE "s/^($1) //p" | LC_ALL=C sort -u; }

if [ "${1-}" = list ]; then
    of must
    exit
fi
wrong=$(
    LC_ALL=C comm -23 <(of must) <(in_tables) | sed 's/^/not there: /'
    LC_ALL=C comm -13 <(of 'must|may') <(in_tables) | sed 's/^/not in src: /'
    tests_that_are_missing
)
[ -n "$wrong" ] || exit 0
echo "$document, tables of capacities:"
echo "$wrong"
exit 1
