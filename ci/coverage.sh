#!/usr/bin/env bash
# From the counters of a coverage run to the table, the list of what was not executed, and HTML: ci/coverage.sh DIRECTORY
# DIRECTORY/raw holds the counters, DIRECTORY/mapping a shared object per build. The builds are kept apart, because one
# line is different code in each of them; ci/coverage.py puts them together. What it says goes to DIRECTORY/report.txt too.
set -eu -o pipefail
dir=$1
rm -rf "$dir/html" "$dir/export"
mkdir -p "$dir/html" "$dir/export"
for object in "$dir"/mapping/*.so; do
    build=$(basename "$object" .so)
    raw=("$dir/raw/$build"-[0-9]*)
    profile=$dir/export/$build.profdata
    llvm-profdata-14 merge -o "$profile" "${raw[@]}"
    llvm-cov-14 export -instr-profile "$profile" "$object" >"$dir/export/$build.json"
    llvm-cov-14 export -format=lcov -instr-profile "$profile" "$object" >"$dir/export/$build.info"
    llvm-cov-14 show -format=html -show-branches=count -show-expansions -output-dir="$dir/html/$build" \
        -instr-profile "$profile" "$object"
done
ci/coverage.py "$dir" ci/coverage-reasons.txt | tee "$dir/report.txt"
