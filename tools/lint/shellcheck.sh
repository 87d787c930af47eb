#!/usr/bin/env bash
# Runs shellcheck on every shell script of the project, found by its name or first line.
set -eu
mapfile -t scripts < <(
    find . \( -path ./build -o -path ./.git \) -prune -o -type f -print | sort | while IFS= read -r file; do
        case ${file##*/} in
        *.sh | *.bash | *.bats) echo "$file" ;;
        *.*) ;;
        *) head -n 1 "$file" | grep -qaE '^#!.*[/ ](ba|da)?sh( |$)' && echo "$file" ;;
        esac
    done
)
[ ${#scripts[@]} -gt 0 ]
shellcheck --external-sources "${scripts[@]}"
