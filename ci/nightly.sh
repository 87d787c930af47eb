#!/usr/bin/env bash
# The nightly campaign; see usage below.
set -euo pipefail
shopt -s nullglob

usage() {
    cat <<'USAGE'
usage: ci/nightly.sh [HOURS]

Fuzzes, explores schedules and runs the long forms of tests for HOURS (8; a fraction will do), as many parts at a time as
there are processors; `make -s nightly-legs` lists the parts with their weights. NIGHTLY_JOBS=N runs N at a time.

Everything is kept in build/nightly for the nights that follow:
  report.md             what was run, what was found, what got worse; with coverage.svg, coverage over time
  corpus/TARGET         what is worth being mutated, minimised at the end of each night
  history.tsv           a line per night and part: start, commit, part, seconds, executions, executions per CPU second on
                        corpus/TARGET, coverage, size of the corpus, findings
  logs/                 the output of this night's parts
Findings of fuzz targets are minimised and saved as corpus/TARGET/regress-WHAT, schedules in build/nightly/found.

Exit status: 0 nothing; 1 findings; 2 it cannot run; 3 no finding, but coverage fell by over 2 %, or speed by over 30 %,
against the last night of the same part; 130 interrupted. The report is written in all cases but 2.
USAGE
}

die() {
    echo "ci/nightly.sh: $1" >&2
    exit 2
}

case ${1-} in
-h | --help)
    usage
    exit 0
    ;;
esac
[ $# -le 1 ] || die "one argument at most: HOURS (see --help)"
hours=${1-8}
[[ $hours =~ ^([0-9]+(\.[0-9]*)?|\.[0-9]+)$ ]] || die "HOURS is a number such as 8 or 0.5, not '$hours'"
cd "$(dirname "$0")/.."
night=build/nightly
logs=$night/logs
jobs=${NIGHTLY_JOBS:-$(nproc)}
[[ $jobs =~ ^[1-9][0-9]*$ ]] || die "NIGHTLY_JOBS is a number from 1, not '$jobs'"
seconds=$(awk -v h="$hours" 'BEGIN { printf "%d", h * 3600 }')
((seconds >= 1)) || die "HOURS is less than a second: $hours"
command -v gnuplot >/dev/null || die "gnuplot is missing: ci/deps.sh test installs it"

mkdir -p "$night"
exec 9>"$night/lock"
flock -n 9 || die "another nightly campaign is running here ($night/lock)"
unset MAKEFLAGS MFLAGS MAKELEVEL
terminal=
[ ! -t 2 ] || terminal=1

status() {
    if [ -n "$terminal" ]; then printf '\r%-110s' "$1" >&2; else echo "$1" >&2; fi
}

# ---- the parts of a night ------------------------------------------------------------------------------------------

# Each is run by a function leg_KIND SECONDS CONFIGURATION NAME ENVIRONMENT..., which leaves in $logs/PART/
#   result      seconds executions speed coverage corpus
#   findings    a line for each, and an indented one with the command that shows it again

# How fast a target is on the inputs of corpus/TARGET, which change rarely: executions per second of processor time; 0 if
# that cannot be said within the limit.
speed_of() {
    local target=$1 binary=$2 limit=$3 files=(corpus/"$1"/*) runs=1 took
    shift 3
    [ ${#files[@]} -gt 0 ] || { echo 0 && return; }
    [ ${#files[@]} -le 60 ] || files=("${files[@]:0:60}")
    while :; do
        took=$(env "$@" timeout -k 5 "$limit" /usr/bin/time -o /dev/stdout -f '%U %S' "$binary" -runs="$runs" "${files[@]}" 2>"$logs/$target.speed" |
            awk '{ print int(($1 + $2) * 100) }' | tail -n 1) || { echo 0 && return; }
        if [ "$took" -ge 50 ] || [ "$runs" -gt 1000 ]; then break; fi
        runs=$((runs * 4))
    done
    echo $((${#files[@]} * runs * 100 / (took > 0 ? took : 1)))
}

leg_fuzz() {
    local budget=$1 config=$2 target=$3 part=$2-$3 began speed
    shift 3
    began=$(date +%s)
    speed=$(speed_of "$target" "build/$config/fuzz/$target" $((budget < 240 ? budget / 4 + 1 : 60)) "$@")
    budget=$((budget - ($(date +%s) - began)))
    FUZZ_TIME=$((budget > 1 ? budget : 1)) CONFIG=$config ENVIRONMENT=$* KEEP=$night/corpus LOGS=$logs/$part \
        fuzz/run.sh "$target" || [ -s "$logs/$part/findings" ] || echo "$part: fuzz/run.sh failed: see $logs/$part.log" >"$logs/$part/findings"
    # Without time for the whole corpus its coverage is not known.
    awk -v took=$(($(date +%s) - began)) -v speed="$speed" -v whole="$(cat "$logs/$part/$target"-*.log | grep -cw INITED || true)" \
        '{ print took, $2, speed, whole ? $4 : 0, $5 }' "$logs/$part/table" >"$logs/$part/result"
}

# Seeds go on where those of the last night ended. Each call explores more than the last one, up to some ten seconds.
leg_explore() {
    local budget=$1 config=$2 how=$3 part=$2-$3 began out seed=100000 runs=10 total=0 n left called failed
    shift 3
    out=$logs/$part
    began=$(date +%s)
    if [ -s "$night/seed-$part" ]; then read -r seed <"$night/seed-$part"; fi
    : >"$out/findings"
    while called=$(date +%s) && left=$((budget - (called - began))) && [ "$left" -gt 0 ]; do
        failed=0
        env "$@" timeout -k 10 $((left + 30)) "build/$config/sched/sched" "$how" --seed "$seed" --runs "$runs" --found "$night/found" \
            >"$out/chunk" 2>&1 || failed=$?
        n=$(awk '{ for (i = 2; i <= NF; i++) if ($i ~ /^schedules/) sum += $(i - 1) } END { print sum + 0 }' "$out/chunk")
        total=$((total + n))
        if [ "$failed" -eq 124 ]; then break; fi
        if [ "$failed" -ne 0 ]; then
            cp "$out/chunk" "$out/chunk-$seed"
            {
                grep -m1 '^FOUND' "$out/chunk" || echo "$part: seed $seed: status $failed: see $out/chunk-$seed"
                echo "    env $* build/$config/sched/sched $how --seed $seed --runs $runs"
                sed -n 's/^reproduce: /    /p' "$out/chunk"
            } >>"$out/findings"
            break
        fi
        seed=$((seed + runs))
        if [ $(($(date +%s) - called)) -lt 5 ]; then runs=$((runs * 2)); fi
    done
    echo "$seed" >"$night/seed-$part"
    echo "$(($(date +%s) - began)) $total 0 0 0" >"$out/result"
}

# Goes through the list of long tests round by round, each night from where the last ended.
leg_soak() {
    local budget=$1 out=$logs/$2-$3 began left next=1 done=0 tests script took
    began=$(date +%s)
    mapfile -t tests < <(make -s nightly-soak)
    if [ -s "$night/soak-next" ]; then read -r next <"$night/soak-next"; fi
    : >"$out/findings"
    : >"$out/passed"
    while [ ${#tests[@]} -gt 0 ] && [ "$done" -lt ${#tests[@]} ]; do
        left=$((budget - ($(date +%s) - began)))
        [ "$left" -ge 60 ] || break
        script=${tests[$((next % ${#tests[@]}))]}
        next=$((next + 1))
        if ! make -s nightly-test CHECK="$script" >"$out/build" 2>&1; then
            echo "soak: $script cannot be built: see $out/build" >>"$out/findings"
            continue
        fi
        took=0
        HAK_SOAK=1 HAK_TIME_LIMIT=${left}s sh "$script" >"$out/output" 2>&1 || took=$?
        done=$((done + 1))
        if [ "$took" -eq 0 ]; then
            echo "$script" >>"$out/passed"
        elif [ "$took" -eq 124 ] || [ "$took" -eq 137 ]; then
            echo "$script" >>"$out/unfinished" # its time is over, not that of the test
        else
            cp "$out/output" "$out/${script//\//-}.log"
            printf '%s\n' "soak: $script failed: see $out/${script//\//-}.log" "    HAK_SOAK=1 make test ONLY=${script#build/t/}" >>"$out/findings"
        fi
    done
    echo "$next" >"$night/soak-next"
    echo "$(($(date +%s) - began)) $done 0 0 0" >"$out/result"
}

# Replaces a corpus by the smallest part of it, with the smallest inputs, that covers as much.
minimise() {
    local target=$1 binary=$2 merged=$night/merged-$1
    shift 2
    rm -rf "$merged"
    mkdir -p "$merged"
    if env "$@" timeout -k 10 $((60 + seconds / 20)) "$binary" -merge=1 -rss_limit_mb=4096 "$merged" "$night/corpus/$target" \
        >"$logs/merge-$target.log" 2>&1; then
        echo "$target $(find "$night/corpus/$target" -type f | wc -l) $(find "$merged" -type f | wc -l)" >>"$logs/minimised"
        rm -rf "${night:?}/corpus/$target"
        mv "$merged" "$night/corpus/$target"
    else
        echo "$target: its corpus could not be minimised: see $logs/merge-$target.log" >>"$logs/notes"
        rm -rf "$merged"
    fi
}

# ---- the night -----------------------------------------------------------------------------------------------------

part_of() { echo "$3-$4"; }

declare -A running=()
interrupted=
# A process with all that it started: `timeout` takes its program out of the process group. It is stopped first, so that it
# starts nothing between the look at what it has started and its end.
end_tree() {
    local child
    kill -STOP "$1" 2>/dev/null || return 0
    for child in $(pgrep -P "$1" || true); do end_tree "$child"; done
    kill -TERM "$1" 2>/dev/null || true
    kill -CONT "$1" 2>/dev/null || true
}
end_parts() {
    local pid
    for pid in "${!running[@]}"; do end_tree "$pid"; done
}
trap 'interrupted=1; end_parts' INT TERM

findings_so_far() { cat /dev/null "$logs"/*/findings | grep -c '^[^ ]' || true; }

show_progress() {
    local now
    now=$(date +%s)
    status "nightly: $(((now - started) / 60)) of $((seconds / 60)) min; running: ${running[*]}; findings: $(findings_so_far)"
}

# Waits until fewer than N parts are running.
wait_until_fewer() {
    local pid last=0 now every=60
    [ -z "$terminal" ] || every=5
    while [ ${#running[@]} -ge "$1" ]; do
        for pid in "${!running[@]}"; do
            if jobs -rp | grep -qx "$pid"; then continue; fi
            wait "$pid" || echo "${running[$pid]}: ended with status $?: see $logs/${running[$pid]}.log" >>"$logs/notes"
            unset "running[$pid]"
        done
        now=$(date +%s)
        if [ $((now - last)) -ge "$every" ]; then
            show_progress
            last=$now
        fi
        sleep 0.2
    done
}

started=$(date +%s)
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
rm -rf "$logs"
mkdir -p "$logs" "$night/corpus" "$night/series"
touch "$night/history.tsv"

status "nightly: building"
make nightly-build >"$logs/build" 2>&1 || {
    tail -n 20 "$logs/build" >&2
    die "the build failed: $logs/build"
}
mapfile -t legs < <(make -s nightly-legs)
[ ${#legs[@]} -gt 0 ] || die "make nightly-legs names no part"
weights=$(printf '%s\n' "${legs[@]}" | awk '{ sum += $2 } END { print sum }')
begun=$(date +%s) # what building took is not the parts' time

for leg in "${legs[@]}"; do
    read -ra words <<<"$leg"
    budget=$(((seconds * jobs * words[1]) / weights))
    [ -z "$interrupted" ] || break
    part=$(part_of "${words[@]}")
    mkdir -p "$logs/$part"
    (
        trap - INT TERM
        "leg_${words[0]}" "$((budget > 0 ? budget : 1))" "${words[@]:2}" >"$logs/$part.log" 2>&1 9>&-
    ) &
    running[$!]=$part
    wait_until_fewer "$jobs"
done
wait_until_fewer 1
parts_ended=$(date +%s)

status "nightly: minimising the corpora"
declare -A minimised=()
for leg in "${legs[@]}"; do
    read -ra words <<<"$leg"
    target=${words[3]}
    if [ "${words[0]}" != fuzz ] || [ -n "${minimised[$target]:-}" ] || [ -n "$interrupted" ]; then continue; fi
    minimised[$target]=1
    inputs=("$night/corpus/$target"/*)
    if [ ${#inputs[@]} -gt 0 ]; then minimise "$target" "build/${words[2]}/fuzz/$target" "${words[@]:4}"; fi
done

# ---- what came out -------------------------------------------------------------------------------------------------

# Coverage over all nights: hours of fuzzing this part, edges.
append_series() {
    local part=$1 before
    before=$(awk -F '\t' -v part="$part" '$3 == part { sum += $4 } END { print sum + 0 }' "$night/history.tsv")
    awk -v before="$before" 'NR == 1 { first = $1 } { print (before + $1 - first) / 3600, $2 }' "$logs/$part"/*.series /dev/null >>"$night/series/$part"
}

# What the last night says about a part, against this one.
compare() {
    awk -F '\t' -v part="$1" -v speed="$2" -v coverage="$3" '
        $3 == part { old_speed = $6; old_coverage = $7; any = 1 }
        END {
            if (!any) exit
            if (coverage > 0 && coverage < 0.98 * old_coverage) printf "%s: coverage fell from %d to %d edges\n", part, old_coverage, coverage
            if (speed > 0 && speed < 0.7 * old_speed) printf "%s: speed fell from %d to %d executions per CPU second\n", part, old_speed, speed
        }' "$night/history.tsv"
}

touch "$logs/notes" "$logs/minimised" "$logs/new-history"
: >"$logs/regressions"
for leg in "${legs[@]}"; do
    read -ra words <<<"$leg"
    part=$(part_of "${words[@]}")
    [ -s "$logs/$part/result" ] || {
        echo "$part: no result: see $logs/$part.log" >>"$logs/notes"
        continue
    }
    read -r took executions speed coverage corpus <"$logs/$part/result"
    found=$(grep -c '^[^ ]' "$logs/$part/findings" || true)
    [ "${words[0]}" != fuzz ] || append_series "$part"
    compare "$part" "$speed" "$coverage" >>"$logs/regressions"
    printf '%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\n' "$started" "$commit" "$part" "$took" "$executions" "$speed" "$coverage" "$corpus" "$found" >>"$logs/new-history"
done
cat "$logs/new-history" >>"$night/history.tsv"
cat /dev/null "$logs"/*/findings >"$logs/findings"
total_findings=$(grep -c '^[^ ]' "$logs/findings" || true)

plot() {
    local file lines=()
    for file in "$night"/series/*; do
        [ ! -s "$file" ] || lines+=("'$file' using 1:2 with steps title '$(basename "$file" | tr _ ' ')'")
    done
    [ ${#lines[@]} -gt 0 ] || return 0
    gnuplot <<PLOT
set terminal svg size 1000,600 background 'white'
set output '$night/coverage.svg'
set xlabel 'hours of fuzzing, all nights'
set ylabel 'edges covered'
set key outside right
plot $(
        IFS=,
        echo "${lines[*]}"
    )
PLOT
}

section() {
    echo
    echo "## $1"
    echo
}

report() {
    echo "# The night of $(date -u -d "@$started" '+%F %H:%M') UTC"
    echo
    echo "Commit $commit, $hours hours on $jobs processors; building took $((begun - started)) s, the parts" \
        "$((parts_ended - begun)) s.${interrupted:+ **Interrupted.**} Findings: $total_findings. Got worse: $(grep -c . "$logs/regressions" || true)."
    section "Parts"
    echo "| part | seconds | executions, schedules or tests | per second | per CPU second on the seeds | edges | corpus | findings |"
    echo "|---|---|---|---|---|---|---|---|"
    awk -F '\t' '{ printf "| %s | %d | %d | %d | %s | %s | %s | %d |\n", $3, $4, $5, $4 ? $5 / $4 : 0, $6 ? $6 : "", $7 ? $7 : "", $8 ? $8 : "", $9 }' "$logs/new-history"
    section "Findings"
    if [ -s "$logs/findings" ]; then sed 's/^[^ ]/- &/' "$logs/findings"; else echo "None."; fi
    section "Worse than the last night"
    if [ -s "$logs/regressions" ]; then sed 's/^/- /' "$logs/regressions"; else echo "Nothing."; fi
    if [ -s "$logs/notes" ]; then
        section "What did not go as it should"
        sed 's/^/- /' "$logs/notes"
    fi
    section "Corpora"
    awk '{ printf "- %s: %d inputs, %d after minimising\n", $1, $2, $3 }' "$logs/minimised"
    section "All nights"
    awk -F '\t' '{ n[$1]; s += $4; e += $5; f += $9 } END { for (i in n) k++; printf "%d nights, %.1f hours of parts, %d executions, schedules and tests, %d findings.\n", k, s / 3600, e, f }' "$night/history.tsv"
    if [ -s "$night/coverage.svg" ]; then
        echo
        echo "![Coverage over time](coverage.svg)"
    fi
}

plot
report >"$night/report.md"
status "nightly: $total_findings findings, $(grep -c . "$logs/regressions" || true) got worse: $night/report.md"
[ -z "$terminal" ] || echo >&2
[ -z "$interrupted" ] || exit 130
if [ "$total_findings" -gt 0 ]; then
    cat "$logs/findings"
    exit 1
fi
[ ! -s "$logs/regressions" ] || { cat "$logs/regressions" && exit 3; }
