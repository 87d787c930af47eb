#!/usr/bin/env bash
# The places in a library of hakmem that call the C library for the system's sake: os_call_sites.sh LIBRARY
# One per line: the address behind the call, the function called, the function that calls, FILE:LINE.
set -eu
unset LD_PRELOAD
lib=$1
calls='mmap|munmap|mprotect|madvise|mremap|syscall|clock_gettime|getauxval|open|read|write|close|fcntl|readlink'
calls+='|pthread_key_create|pthread_setspecific|__register_atfork'
# A call shows as "ADDRESS: call ... <NAME@VERSION>"; the address behind it is that of the next instruction.
objdump -d --no-show-raw-insn -w "$lib" | sed -nE 's/^ +([0-9a-f]+):\t/\1 /p' |
    awk -v calls="<($calls)@" '
        at != "" { print $1, at, name; at = "" }
        $2 == "call" && match($0, calls) { at = $1; name = substr($0, RSTART + 1, RLENGTH - 2) }' |
    while read -r behind at name; do
        place=$(addr2line -s -f -e "$lib" "0x$at" | paste -sd ' ')
        case $place in *\?*) continue ;; esac # not of hakmem: the runtime of a sanitizer or of the coverage counters
        echo "$behind $name ${place%% (*}"
    done
