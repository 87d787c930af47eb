#!/usr/bin/env bash
# The limits of size: files 450 lines, functions 80 lines, no #if inside a function outside the OS files.
#   tools/lint/size.sh            complains and fails
#   tools/lint/size.sh figures    prints the figures that STYLE compares: make figures
set -eu
shopt -s nullglob
files=(src/*/*.c src/*/*.h src/*/*.cc)
report=$(awk -f tools/lint/functions.awk "${files[@]}")

if [ "${1-}" = figures ]; then
    grep -v '^#if' <<<"$report" | sort -n | awk '
        { lines[NR] = $1; name = $4; file = $2 }
        END {
            printf "functions: %d, lines: median %d, p90 %d, max %d (%s in %s)\n", NR, lines[int((NR + 1) / 2)],
                lines[int(NR * 0.9 + 0.999)], lines[NR], name, file
        }'
    total=$(cat "${files[@]}" | wc -l)
    awk -v total="$total" '/^#if/ { n++; inside += $4 == "inside" } END {
        printf "#if per 1,000 lines: %.1f (inside functions: %.1f)\n", n * 1000 / total, inside * 1000 / total }' <<<"$report"
    for file in src/*/*.c; do
        gcc -MM -D_GNU_SOURCE -Iinclude -Isrc "$file" | tr ' ' '\n' | grep -E '\.(h|def)$' | xargs -r cat | wc -l
    done | sort -n | awk '{ n[NR] = $1 } END { printf "lines of own headers behind one .c: median %d, max %d\n", n[int((NR + 1) / 2)], n[NR] }'
    wc -l "${files[@]}" | sort -n | awk '$2 != "total" { file = $2; n[++i] = $1; sum += $1 } END {
        printf "files: %d, lines: %d, median %d, max %d (%s)\n", i, sum, n[int((i + 1) / 2)], n[i], file }'
    exit
fi

wc -l "${files[@]}" | awk '$2 != "total" && $1 > 450 { print $2 ": " $1 " lines, the limit is 450"; bad = 1 } END { exit bad }'
awk '$1 == "#if" && $4 == "inside" && $2 !~ /^src\/base\/sys(_linux)?\.[ch]$/ { print $2 ":" $3 ": #if inside a function"; bad = 1 }
     $1 != "#if" && $1 > 80 { print $2 ":" $3 ": " $4 " has " $1 " lines, the limit is 80"; bad = 1 }
     END { exit bad }' <<<"$report"
