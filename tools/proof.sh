#!/usr/bin/env bash
# Writes docs/PROOF.md from what was measured: tools/proof.sh [OUTPUT] (make proof). No figure in it is typed by hand; what
# has not been measured is named as missing, with the command that measures it.
#   PROOF_SECONDS   how long each fuzz target runs for its speed (5)
#   PROOF_BOUND     preemptions up to which all schedules are explored (2: minutes)
# From elsewhere: make coverage, make mutants, ci/nightly.sh, ci/defects.tsv.
set -euo pipefail
shopt -s nullglob
cd "$(dirname "$0")/.."
output=${1:-docs/PROOF.md}
: "${PROOF_SECONDS:=5}" "${PROOF_BOUND:=2}"
coverage=build/coverage/report.txt
mutants=build/mutants/table.tsv
history=build/nightly/history.tsv
work=build/proof
preemptions="$PROOF_BOUND preemption$([ "$PROOF_BOUND" = 1 ] || echo s)"
mkdir -p "$work/corpus"
unset MAKEFLAGS MFLAGS MAKELEVEL

say() { echo "proof: $1" >&2; }
section() { printf '\n## %s\n\n' "$1"; }
missing() { echo "**Missing: $1.** To measure it: \`$2\`."; }

# since RESULT DIRECTORY...: when it was measured, and how many files of the directories have changed since.
since() {
    local changed
    changed=$(find "${@:2}" -type f -newer "$1" | wc -l)
    printf '%s' "measured $(date -u -r "$1" '+%F %H:%M') UTC"
    [ "$changed" -eq 0 ] || printf '; %d files below %s have changed since' "$changed" "${*:2}"
}

# ---- measuring -----------------------------------------------------------------------------------------------------

# Executions per second of each target: a run from the seeds, with nothing kept.
measure_speed() {
    local leg words part log
    make -s nightly-legs | grep '^fuzz ' >"$work/legs"
    : >"$work/speed.tsv"
    while read -r leg; do
        read -ra words <<<"$leg"
        part=${words[2]}/${words[3]}
        log=$work/${words[2]}-${words[3]}.log
        if [ ! -x "build/${words[2]}/fuzz/${words[3]}" ]; then
            printf '%s\t-\n' "$part" >>"$work/speed.tsv"
            continue
        fi
        say "speed of $part, $PROOF_SECONDS s"
        rm -rf "$work/corpus" && mkdir -p "$work/corpus" "corpus/${words[3]}"
        env "${words[@]:4}" timeout -k 10 $((PROOF_SECONDS + 60)) /usr/bin/time -a -o "$log.time" -f '%U %S' \
            "build/${words[2]}/fuzz/${words[3]}" -max_total_time="$PROOF_SECONDS" -max_len=2048 -artifact_prefix="$work/" \
            -print_final_stats=1 "$work/corpus" "corpus/${words[3]}" </dev/null >"$log" 2>&1 || say "$part found something: see $log"
        awk -v part="$part" -v cpu="$(awk 'NF == 2 { s = $1 + $2 } END { print s + 0 }' "$log.time")" '
            /^stat::number_of_executed_units:/ { n = $2 }
            /^Done [0-9]+ runs in [0-9]+ second/ { took = $5 }
            / cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1) }
            END { printf "%s\t%d\t%d\t%.1f\t%d\n", part, n, took, cpu, cov }' "$log" >>"$work/speed.tsv"
        rm -f "$log.time"
    done <"$work/legs"
}

schedules=$work/schedules-$PROOF_BOUND
measure_schedules() {
    local program=build/sched/sched/sched
    if [ "$schedules" -nt "$program" ] && ! grep -q '^not finished' "$schedules"; then return; fi
    say "all schedules up to $preemptions"
    timeout -k 10 1800 "$program" exhaustive --bound "$PROOF_BOUND" --found "$work/found" >"$schedules" 2>&1 </dev/null ||
        echo "not finished: status $?, see $schedules" >>"$schedules"
}

measure_os_calls() {
    say "calls of the system refused"
    sh build/t/release/blackbox_os_calls >"$work/os-calls" 2>&1 </dev/null || true
}

# ---- parts of the document -----------------------------------------------------------------------------------------

# The percentage of lines (field 5) or branches (10) in the last line of the table: `all 1 of 2 50.00 % 3 of 4 75.00 %`.
coverage_total() { awk -v f="$1" '$1 == "all" { print $f; exit }' "$coverage"; }

summary() {
    local killed tried planted
    echo "| figure | at least | reached |"
    echo "|---|---|---|"
    if [ -s "$coverage" ]; then
        echo "| lines of \`src/\` executed | 98 % | $(coverage_total 5) % |"
        echo "| branches executed | 95 % | $(coverage_total 10) % |"
    else
        echo "| lines, branches of \`src/\` executed | 98 %, 95 % | **missing** |"
    fi
    echo "| places that call the system, each refused with each error | all | $(os_calls_verdict) |"
    echo "| schedules explored, all with at most $preemptions | | $(schedules_total) |"
    if [ -s "$mutants" ]; then
        read -r killed tried planted < <(mutants_counts)
        echo "| planted defects killed | 95 % | $killed of $tried ($((killed * 1000 / tried / 10)).$((killed * 1000 / tried % 10)) %)$([ "$tried" -ge "$planted" ] || echo "; **missing:** $((planted - tried)) not tried") |"
    else
        echo "| planted defects killed | 95 % | **missing** |"
    fi
    echo "| hours of fuzzing in campaigns | | $(if [ -s "$history" ]; then hours_of '^(fuzz|fuzztsan|schedfuzz)-'; else echo '**missing**'; fi) |"
    echo "| defects found in hakmem, and mended | | $(grep -c '^[^#]' ci/defects.tsv) |"
}

coverage_part() {
    section "Coverage"
    if [ ! -s "$coverage" ]; then
        missing "lines and branches executed" "make coverage"
        return
    fi
    echo "By tests and corpus, $(since "$coverage" src). Failing sides of assertions are not counted."
    echo
    awk '
        NR == 1 { print "| file | lines | | branches | |"; print "|---|---|---|---|---|"; next }
        NF == 0 { exit }
        { printf "| %s | %d of %d | %s %% | %d of %d | %s %% |\n", $1 == "all" ? "**all**" : "`" $1 "`", $2, $4, $5, $7, $9, $10 }' "$coverage"
    echo
    echo "What no test executes, and why (ci/coverage-reasons.txt):"
    echo
    echo '```'
    sed -n '/^Not executed:/,$p' "$coverage" | sed '/failing sides of assertions/d' | cat -s
    echo '```'
}

os_calls_rows() { sed -nE 's/^# ([a-z_]+( wait| wake)?) +([a-zA-Z_]+) +([a-z0-9_]+\.c(:[0-9]+)?) +([A-Z0-9 ]+); .*/\1\t\3\t\4\t\6/p' "$work/os-calls"; }
os_calls_verdict() {
    if grep -q '^ok 3' "$work/os-calls" 2>/dev/null && ! grep -q '^not ok' "$work/os-calls"; then
        echo "all $(os_calls_rows | wc -l)"
    else echo "**not all:** see \`sh build/t/release/blackbox_os_calls\`"; fi
}

os_calls_part() {
    section "Calls of the system"
    echo "Each place in the library that calls the system is refused, the first time and always, with each of these errors; the"
    echo "places are compared with those in the machine code. unit_faults and fuzz_faults refuse the n-th call besides:"
    echo "\`make fault-test\`."
    echo
    echo "| call | in | at | errors |"
    echo "|---|---|---|---|"
    os_calls_rows | awk -F '\t' '{ printf "| %s | `%s` | %s | %s |\n", $1, $2, $3, $4 }'
}

speed_part() {
    section "Executions per second"
    echo "Each target for $PROOF_SECONDS s from the seeds in \`corpus/\`, one at a time, on $(nproc) processors ($(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)),"
    echo "with a load of $(cut -d ' ' -f 1 /proc/loadavg) at the end. Time of the processor is what the target alone would need."
    echo
    echo "| configuration, target | executions | per second | per second of processor time | edges |"
    echo "|---|---|---|---|---|"
    awk -F '\t' '
        $2 == "-" { printf "| %s | **missing:** not built | | | |\n", $1; next }
        { printf "| %s | %d | %d | %d | %d |\n", $1, $2, $3 ? $2 / $3 : 0, $4 ? $2 / $4 : 0, $5 }' "$work/speed.tsv"
}

schedules_total() { awk '/schedules,/ { for (i = 2; i <= NF; i++) if ($i ~ /^schedules/) n += $(i - 1) }
    /^not finished/ { stop = "; **not finished**" } END { print n + 0 stop }' "$schedules"; }

schedules_part() {
    section "Schedules"
    echo "Every schedule of these small concurrent programs with at most $preemptions (fuzz/sched/README.md);"
    echo "\`make sched-test\` also explores deeper ones, by PCT."
    echo
    echo "| kernel | schedules | steps of the longest | |"
    echo "|---|---|---|---|"
    awk '/schedules,/ { for (i = 2; i <= NF; i++) if ($i ~ /^schedules/) printf "| %s | %d | %d | no finding |\n", $1, $(i - 1), $(i + 1) }
        /^not finished/ { printf "| | | | **%s** |\n", $0 }
        /^FOUND/ { sub(/^FOUND /, ""); printf "| | | | **%s** |\n", $0 }' "$schedules"
    if [ -s "$history" ]; then
        echo
        echo "In nightly campaigns, with fresh seeds: $(awk -F '\t' '$3 ~ /-(pct|random)$/ { n += $5 } END { print n + 0 }' "$history") schedules."
    fi
}

# Killed, tried, and in the list.
mutants_counts() {
    awk -F '\t' -v all="$(find fuzz/mutants -name '*.patch' | wc -l)" '$4 == "killed" { k++ } END { print k + 0, NR, all }' "$mutants"
}

mutants_part() {
    section "Planted defects"
    if [ ! -s "$mutants" ]; then
        missing "how many of the $(find fuzz/mutants -name '*.patch' | wc -l) planted defects are killed" "make mutants"
        return
    fi
    local killed tried planted
    read -r killed tried planted < <(mutants_counts)
    echo "Of $planted in fuzz/mutants $tried were tried and $killed killed, $(since "$mutants" src tests fuzz)."
    [ "$tried" -ge "$planted" ] || missing "the other $((planted - tried))" "make mutants"
    echo
    echo "| killed by | defects | seconds, median |"
    echo "|---|---|---|"
    awk -F '\t' '$4 == "killed" { sub(/\/.*/, "", $5); print $5 "\t" $6 }' "$mutants" | sort -t "$(printf '\t')" -k 1,1 -k 2,2n |
        awk -F '\t' 'function out() { if (n) printf "| %s | %d | %d |\n", name, n, at[int((n + 1) / 2)] }
            $1 != name { out(); name = $1; n = 0 } { at[++n] = $2 } END { out() }'
    if awk -F '\t' '$4 != "killed" { any = 1 } END { exit !any }' "$mutants"; then
        echo
        echo "Not killed:"
        echo
        awk -F '\t' '$4 != "killed" { printf "- %s (%s): %s\n", $1, $2, $4 }' "$mutants"
    fi
}

hours_of() { awk -F '\t' -v part="$1" '$3 ~ part { s += $4 } END { printf "%.2f\n", s / 3600 }' "$history"; }

hours_part() {
    section "Hours fuzzed"
    if [ ! -s "$history" ]; then
        missing "what nightly campaigns have run" "ci/nightly.sh"
        return
    fi
    echo "Nights (ci/nightly.sh): $(cut -f 1 "$history" | sort -u | wc -l). Hours of one processor:"
    echo
    echo "| part | hours | executions, schedules or tests | findings |"
    echo "|---|---|---|---|"
    awk -F '\t' '{ s[$3] += $4; e[$3] += $5; f[$3] += $9 } END { for (p in s) printf "| %s | %.2f | %d | %d |\n", p, s[p] / 3600, e[p], f[p] }' "$history" | sort
}

defects_part() {
    section "Defects found in hakmem so far"
    echo "By technique, with what keeps each out (ci/defects.tsv)."
    echo
    echo "| found by | what was wrong | kept out by | mended in |"
    echo "|---|---|---|---|"
    sort -t "$(printf '\t')" -k 2,2 ci/defects.tsv | awk -F '\t' '/^[^#]/ { printf "| %s | %s | %s | %s |\n", $2, $3, $4, $1 }'
}

# A row per kind of check, a column per configuration; how many test programs, or fuzz targets.
checks_part() {
    section "Checks against configurations"
    echo "How many test programs, or fuzz targets, \`make test\` runs in each configuration (sanitizer/\*.mk)."
    echo
    { make -s mutants-scripts && sed -n 's|^fuzz [0-9]* \([a-z]*\) \([a-z_0-9]*\) .*|build/t/engine-\1/\2|p' "$work/legs"; } | awk -F / '
        function row(kind, config) { if (!(kind in rows)) { rows[kind]; order[++kinds] = kind } if (!(config in columns)) { columns[config]; names[++configs] = config } n[kind, config]++ }
        $3 ~ /^corpus-/ { row("corpus replayed", substr($3, 8)); next }
        $3 ~ /^engine-/ { row("libFuzzer (nightly)", substr($3, 8)); next }
        $3 ~ /^sched/ { row("schedules", $3); next }
        $3 == "bats" { row("shell-level, real programs", "release"); next }
        $3 == "mutants" { next }
        $4 ~ /^unit_/ { row("white-box tests", $3); next }
        $4 ~ /^api_/ { row("tests of the prefixed interface", $3); next }
        { row("black-box tests", $3) }
        END {
            printf "| |"; for (c = 1; c <= configs; c++) printf " %s |", names[c]; print ""
            printf "|---|"; for (c = 1; c <= configs; c++) printf "---|"; print ""
            for (k = 1; k <= kinds; k++) {
                printf "| %s |", order[k]
                for (c = 1; c <= configs; c++) printf " %s |", n[order[k], names[c]]
                print ""
            }
        }'
}

document() {
    echo "# The proof, in figures"
    echo
    echo "Written by \`make proof\` on $(date -u '+%F') at commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown); no figure is typed by hand."
    section "Summary"
    summary
    coverage_part
    os_calls_part
    speed_part
    schedules_part
    mutants_part
    hours_part
    defects_part
    checks_part
}

measure_os_calls
measure_schedules
measure_speed
document >"$work/PROOF.md"
cp "$work/PROOF.md" "$output"
say "$output; named as missing: $(grep -ci '\*\*missing' "$output" || true)"
