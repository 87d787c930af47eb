#!/usr/bin/env bash
# Every atomic variable and every lock in src is in a table of docs/ARCHITECTURE.md, under its file, and nothing else is.
# A row begins with the file and the names, each in backticks: | `file.c` | `name`, `name` | ...
set -eu
shopt -s nullglob
cd "$(dirname "$0")/../.."

# "file name" of each declaration. Pointers to atomics that are initialised are aliases of what is listed elsewhere.
in_source() {
    awk '
        FNR == 1 { file = FILENAME; sub(/.*\//, "", file); comment = 0 }
        {
            code = $0
            if (comment) { if (!sub(/^.*\*\//, "", code)) next; comment = 0 }
            gsub(/\/\*([^*]|\*+[^*\/])*\*+\//, "", code)
            if (sub(/\/\*.*/, "", code)) comment = 1
        }
        code ~ /^extern / { next }
        code ~ /^#define [A-Z_]+ _Atomic / { print file, $2; next }
        code ~ /_Atomic|struct hak_lock / {
            initialised = sub(/=.*/, "", code)
            if (code ~ /[()]/) next
            if (code ~ /\*_Atomic /) sub(/.*\*_Atomic /, "", code)
            else if (!sub(/.*_Atomic [a-z0-9_]+ /, "", code)) sub(/.*struct hak_lock /, "", code)
            if (initialised && code ~ /^\*/) next
            gsub(/\[[^]]*\]|[*; \t]/, "", code)
            n = split(code, names, ",")
            for (i = 1; i <= n; i++) print file, names[i]
        }' src/*/*.[ch] src/*/*.cc
}

in_tables() {
    awk -F '|' '$2 ~ /^ `[a-z0-9_]+\.[ch]` $/ {
        split($2, file, "`")
        n = split($3, names, "`")
        for (i = 2; i <= n; i += 2) print file[2], names[i]
    }' docs/ARCHITECTURE.md
}

different=$(diff <(in_source | LC_ALL=C sort -u) <(in_tables | LC_ALL=C sort -u)) && exit
echo "docs/ARCHITECTURE.md, tables of locks and atomics (<: missing there, >: not in src):"
grep '^[<>]' <<<"$different"
exit 1
