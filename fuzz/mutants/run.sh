#!/usr/bin/env bash
# Plants the defects of fuzz/mutants/*.patch one at a time in a copy of the source, and finds out which check kills each:
# first the one that the patch names, then those of fuzz/mutants/stages, up to the first that fails.
#   run.sh           the campaign. MUTANT: a regular expression for the names of those to plant; MUTANT_JOBS: how many at
#                    a time; MUTANT_BUDGET: seconds that one may take. Fails if fewer than 95 % are killed.
#   run.sh --check   only whether each patch applies, and names a check that exists
# All happens in build/mutants: origin is the source as it is, in which every check must pass before its verdict on a
# defect counts; tree-N is a copy of it in which a defect is planted, built anew only where that makes a difference. After
# each, rsync brings back what differs from origin, with its times, so that nothing need be built twice.
set -eu

here=fuzz/mutants
cd "$(dirname "$0")/../.."
out=$PWD/build/mutants
origin=$out/origin
budget=${MUTANT_BUDGET:-900}
jobs=${MUTANT_JOBS:-1}
unset MAKEFLAGS MFLAGS MAKELEVEL

# ---- the list -----------------------------------------------------------------------------------------------------

# field PATCH NAME: what its first line, `class: WHAT; killer: CHECK`, says.
field() { sed -n "1s/.*$2: \([^;]*\).*/\1/p" "$1"; }
name_of() { basename "$1" .patch; }
patched_files() { sed -n 's|^+++ b/||p' "$1"; }
plant() { patch -p1 -F1 --silent --force --no-backup-if-mismatch "$@"; }

# Prints what is wrong with the patches, one line each.
list_errors() {
    local patch checks
    checks=$(make -s mutants-scripts | sed 's|^build/t/||' && awk '$2 == "make" { print $1 }' "$here/stages")
    for patch in "$here"/*.patch; do
        [ -n "$(field "$patch" class)" ] || echo "$patch: its first line names no class"
        grep -qxF "$(field "$patch" killer)" <<<"$checks" || echo "$patch: no check '$(field "$patch" killer)'"
        plant --dry-run -i "$patch" || echo "$patch: does not apply"
    done
}

# ---- checks -------------------------------------------------------------------------------------------------------

# build TREE CHECK: a test script and all that it needs; else what shows whether the source compiles.
build() {
    local script=
    if [[ $2 == build/t/* ]]; then script=$2; fi
    make -C "$1" -j "$(($(nproc) > jobs ? $(nproc) / jobs : 1))" mutants-build CHECK="$script"
}

# run TREE CHECK SECONDS: a script, or make with these arguments; 124 if it ran out of time.
run() {
    local arguments
    if [[ $2 == build/t/* ]]; then
        (cd "$1" && HAK_TIME_LIMIT=$3 sh "$2") </dev/null
    else
        read -r -a arguments <<<"$2"
        timeout -k 10 "$3" make -C "$1" "${arguments[@]}" </dev/null
    fi
}

# Every check in its order: its name, a tab, and the script or the arguments of make.
list_checks() {
    local stage kind rest script
    while read -r stage kind rest; do
        case $stage:$kind in
        '#'* | :) ;;
        *:tests)
            for script in $(make -s -C "$origin" mutants-scripts KIND="$rest"); do
                printf '%s\t%s\n' "${script#build/t/}" "$script"
            done
            ;;
        *:make) if make -n -C "$origin" "${rest%% *}" >/dev/null 2>&1; then printf '%s\t%s\n' "$stage" "$rest"; fi ;;
        esac
    done <"$here/stages"
}

# checks_for PATCH: the same, but first the check that it names.
checks_for() {
    local killer
    killer=$(field "$1" killer)
    awk -F '\t' -v killer="$killer" '$1 == killer' "$out/checks"
    awk -F '\t' -v killer="$killer" '$1 != killer' "$out/checks"
}

# prove NAME CHECK: the source as it is passes the check. Keeps the seconds that it takes, for the next time.
prove() (
    exec 9>"$out/lock"
    flock 9
    passed=$out/passed/${1//\//-}
    [ ! -e "$passed" ] || exit 0
    build "$origin" "$2" >"$passed.log" 2>&1 || exit 1
    begin=$SECONDS
    run "$origin" "$2" 1800 >>"$passed.log" 2>&1 || exit 1
    echo $((SECONDS - begin)) >"$passed"
)

# ---- one defect ---------------------------------------------------------------------------------------------------

# sync TREE OPTION...: takes over what was built of the source. The scripts are left out: they hold the name of their tree.
sync() (
    exec 9>"$out/lock"
    flock 9
    rsync -a --exclude=/build/t/ "${@:2}" "$origin/" "$1/"
)

touch_patched() { patched_files "$2" | (cd "$1" && xargs touch); }

# examine TREE PATCH LOG: sets `verdict`, `detail` (the check that killed, or why none did) and `took`, in seconds.
examine() {
    local tree=$1 patch=$2 log=$3 name check begin seconds limit status proved
    verdict=error detail='does not apply' took=0
    sync "$tree" --delete
    plant -d "$tree" -i "$PWD/$patch" >"$log" 2>&1 || return 0
    touch_patched "$tree" "$patch"
    while IFS=$'\t' read -r name check <&3; do
        proved=$out/passed/${name//\//-}
        if [ ! -e "$proved" ]; then
            detail="the source itself fails $name"
            prove "$name" "$check" || return 0
            sync "$tree" --ignore-existing
            touch_patched "$tree" "$patch"
        fi
        seconds=$(cat "$proved")
        begin=$SECONDS detail='does not compile'
        build "$tree" "$check" >>"$log" 2>&1 || return 0
        limit=$((10 * seconds + 20))
        if [ $limit -gt $((budget - took)) ]; then limit=$((budget - took)); fi
        status=0
        run "$tree" "$check" $limit >>"$log" 2>&1 || status=$?
        took=$((took + SECONDS - begin))
        verdict=killed detail=$name
        if [ $status -eq 124 ]; then detail="$name (hang)"; fi
        if [ $took -ge "$budget" ]; then verdict=survived detail="what $budget seconds allowed"; fi
        if [ $status -ne 0 ] || [ $took -ge "$budget" ]; then return 0; fi
        verdict=error
    done 3< <(checks_for "$patch")
    verdict=survived detail='every check'
}

# work N: examines what no other worker has taken yet.
work() {
    local patch name
    for patch in "${patches[@]}"; do
        name=$(name_of "$patch")
        mkdir "$out/taken/$name" 2>/dev/null || continue
        examine "$out/tree-$1" "$patch" "$out/results/$name.log"
        printf '%s\t%s\t%s\t%s\t%s\t%d\n' "$name" "$(field "$patch" class)" "$(field "$patch" killer)" \
            "$verdict" "$detail" "$took" >"$out/results/$name.tsv"
        echo "$name: $verdict $detail, $took s"
    done
}

# ---- the campaign -------------------------------------------------------------------------------------------------

prepare() {
    local changed
    mkdir -p "$origin" "$out/results" "$out/passed"
    rm -rf "$out/taken"
    mkdir "$out/taken"
    changed=$(rsync -a --delete --out-format=%n --exclude=/build --exclude=/.git --exclude="/$here/*.patch" ./ "$origin/")
    if [ -n "$changed" ]; then
        rm -rf "$out/passed"
        mkdir "$out/passed"
        # A file may be older than what was built from the one before it.
        (cd "$origin" && xargs -d '\n' touch -c) <<<"${changed//deleting /}"
    fi
    list_checks >"$out/checks"
}

table() {
    local name
    for name in "${patches[@]}"; do cat "$out/results/$(name_of "$name").tsv"; done >"$out/table.tsv"
    awk -F '\t' '
        BEGIN { format = "%-40s  %-46s  %-32s %5s\n"; printf format, "defect", "class", "killed by", "s" }
        { printf format, $1, $2, $4 == "killed" ? $5 : $4 " " $5, $6 }
        $4 == "killed" { killed++; other += index($5, $3) != 1 }
        $4 == "survived" { survivors = survivors "\n  " $1 ": " $5 }
        $4 == "error" { errors = errors "\n  " $1 ": " $5 }
        END {
            if (survivors != "") print "\nsurvivors:" survivors
            if (errors != "") print "\nerrors of the list:" errors
            printf "\n%d of the killed met another check than the one expected\n", other
            percent = NR == 0 ? 0 : int(killed * 1000 / NR) / 10
            printf "%d of %d killed (%s %%)\n", killed, NR, percent
            exit errors != "" || percent < 95
        }' "$out/table.tsv"
}

case ${1-} in
'') ;;
--check)
    errors=$(list_errors)
    [ -z "$errors" ] || echo "$errors"
    [ -z "$errors" ]
    exit
    ;;
*)
    echo "usage: $0 [--check]" >&2
    exit 2
    ;;
esac

patches=()
for patch in "$here"/*.patch; do
    if [[ $(name_of "$patch") =~ ${MUTANT:-} ]]; then patches+=("$patch"); fi
done
if [ ${#patches[@]} -eq 0 ]; then
    echo "no planted defect has a name like '$MUTANT'" >&2
    exit 2
fi
prepare
for ((n = 1; n <= jobs; n++)); do work "$n" & done
trap 'kill $(jobs -p) 2>/dev/null' EXIT
wait
trap - EXIT
table
