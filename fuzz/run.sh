#!/usr/bin/env bash
# Runs targets under libFuzzer, one after the other: fuzz/run.sh TARGET... (make fuzz). While one runs there is one
# status line; at the end a table, and for each finding the command that reproduces it. Findings are minimised and
# saved as corpus/TARGET/regress-WHAT. Fails if there are any.
#   FUZZ_TIME    seconds per target           CONFIG   the configuration whose binaries run
#   ENVIRONMENT  the tool's options           MAX_LEN  the longest input made
#   MINIMISE_TIME  seconds that making a finding smaller may take
# What was found interesting is kept in KEEP/TARGET (build/fuzz-corpus) for the next run; logs are in LOGS
# (build/fuzz-logs), and TARGET.series there has coverage over time: seconds since 1970, edges.
set -eu
shopt -s nullglob
cd "$(dirname "$0")/.."
: "${FUZZ_TIME:=60}" "${CONFIG:=fuzz}" "${ENVIRONMENT:=}" "${MAX_LEN:=2048}" "${KEEP:=build/fuzz-corpus}" "${MINIMISE_TIME:=20}"
read -ra environment <<<"$ENVIRONMENT"
if [[ ! $FUZZ_TIME =~ ^[1-9][0-9]{0,8}$ ]]; then
    echo "FUZZ_TIME=$FUZZ_TIME: not a whole number of seconds" >&2
    exit 2
fi
engine=()
# The tool itself makes a report of an abort: libFuzzer's handler would hang in it.
if [ "$CONFIG" = fuzztsan ]; then engine=(-handle_abrt=0); fi
logs=${LOGS:-build/fuzz-logs}
table=$logs/table
findings=$logs/findings
mkdir -p "$logs"
: >"$table"
: >"$findings"

# Passes libFuzzer's lines on to a log, and shows the last one as status. Leaves its figures in a file.
watch() {
    awk -v target="$1" -v log_file="$2" -v figures="$3" -v end="$4" -v found="$5" -v series="$logs/$1.series" -v tty="$([ -t 2 ] && echo 1)" '
        { print >log_file; fflush(log_file) }
        /^#[0-9]+\t/ {
            runs = substr($1, 2)
            for (i = 2; i < NF; i++) {
                if ($i == "cov:") cov = $(i + 1)
                if ($i == "corp:") corpus = $(i + 1)
                if ($i == "exec/s:") rate = $(i + 1)
            }
            sub(/\/.*/, "", corpus)
            if (cov != "") print systime(), cov >>series
            left = end - systime()
            if (tty) printf "\r%-16s %10d executions %7d/s  coverage %6d  corpus %5d  findings %d  %4d s left ", target, runs, rate, cov, corpus, found, left < 0 ? 0 : left >"/dev/stderr"
        }
        END { print runs + 0, rate + 0, cov + 0, corpus + 0 >figures; if (tty) printf "\r%110s\r", "" >"/dev/stderr" }'
}

# save TARGET ARTIFACT LOG: minimises, names and keeps a finding.
save() {
    local target=$1 command=(env "${environment[@]}" "build/$CONFIG/fuzz/$1") saved
    saved=$(MINIMISE_TIME=$MINIMISE_TIME fuzz/minimise.py "$2" "$3" "corpus/$target" "${command[@]}")
    if [ -n "$saved" ]; then printf '%s:\n    %s %s\n' "$saved" "${command[*]}" "$saved" >>"$findings"; fi
}

# Goes on after a finding, as often as FINDINGS_MAX allows.
FINDINGS_MAX=3
fuzz_one() {
    local target=$1 log figures=$logs/figures artifacts end runs=0 found=0 left r rate=0 cov=0 corpus=0 artifact status
    artifacts=$logs/$target-artifacts
    mkdir -p "$KEEP/$target" "$artifacts"
    rm -f "$logs/$target.series"
    end=$(($(date +%s) + FUZZ_TIME))
    while left=$((end - $(date +%s))) && [ "$left" -gt 0 ] && [ "$found" -lt "$FINDINGS_MAX" ]; do
        log=$logs/$target-$found.log
        rm -f "$artifacts"/*
        env "${environment[@]}" timeout -k 10 $((left + 60)) "build/$CONFIG/fuzz/$target" -max_total_time="$left" \
            -max_len="$MAX_LEN" -timeout=25 -rss_limit_mb=4096 -artifact_prefix="$artifacts/" "${engine[@]}" \
            "$KEEP/$target" corpus/"$target"/ </dev/null 2>&1 | watch "$target" "$log" "$figures" "$end" "$found"
        status=${PIPESTATUS[0]}
        read -r r rate cov corpus <"$figures"
        runs=$((runs + r))
        artifact=$(find "$artifacts" -type f | head -n 1)
        if [ -z "$artifact" ] && [ "$status" -eq 0 ]; then break; fi
        found=$((found + 1))
        if [ -z "$artifact" ]; then
            printf '%s: ended with status %d, and left no input: see %s\n' "$target" "$status" "$log" >>"$findings"
            break
        fi
        save "$target" "$artifact" "$log"
    done
    printf '%s %d %d %d %d %d\n' "$target" "$runs" "$rate" "$cov" "$corpus" "$found" >>"$table"
}

for target in "$@"; do
    mkdir -p "corpus/$target"
    fuzz_one "$target"
done

printf '%-18s %12s %8s %10s %8s %10s\n' target executions per-s coverage corpus findings
awk '{ printf "%-18s %12d %8d %10d %8d %10d\n", $1, $2, $3, $4, $5, $6 }' "$table"
if [ -s "$findings" ]; then
    echo
    cat "$findings"
    exit 1
fi
