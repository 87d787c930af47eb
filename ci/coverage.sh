#!/usr/bin/env bash
# Prints how many lines and branches of each source file the tests executed: ci/coverage.sh BUILD_DIRECTORY
set -eu
build=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
find "$PWD/$build/obj" -name '*.gcda' | (cd "$scratch" && xargs -r gcov --json-format --branch-probabilities --stdout) |
    jq -rs '
        [.[].files[] | select(.file | startswith("src/"))] | group_by(.file)[] |
        { file: .[0].file,
          lines: ([.[].lines[]] | group_by(.line_number) | map({ hit: (map(.count) | add > 0) })),
          branches: [.[].lines[].branches[].count] } |
        [.file, (.lines | map(select(.hit)) | length), (.lines | length),
         (.branches | map(select(. > 0)) | length), (.branches | length)] | @tsv' |
    awk -F '\t' '
        function percent(n, of) { return of ? sprintf("%5.1f %%", 100 * n / of) : "      -" }
        BEGIN { printf "%-28s %8s %8s\n", "file", "lines", "branches" }
        { printf "%-28s %8s %8s\n", $1, percent($2, $3), percent($4, $5); for (i = 2; i <= 5; i++) sum[i] += $i }
        END { printf "%-28s %8s %8s\n", "all", percent(sum[2], sum[3]), percent(sum[4], sum[5]) }'
