#!/usr/bin/env bash
# The places in a library of hakmem that call the C library for the system's sake: os_call_sites.sh LIBRARY
# One per line: the address behind the call, the function called, the function that calls, FILE:LINE.
set -eu
unset LD_PRELOAD
lib=$1
# The files that call the system, and what they call of the C library that asks nothing of it, or cannot fail.
files='^(sys_linux|heap|boot)\.c:'
harmless='__errno_location|pthread_self|pthread_getspecific|pthread_setcancelstate|pthread_key_delete|getpid|abort'
harmless+='|dl_iterate_phdr|mem(cpy|move|set)|str(len|nlen|ncmp)'
# A call shows as "ADDRESS: call ... <NAME@VERSION>"; the address behind it is that of the next instruction.
objdump -d --no-show-raw-insn -w "$lib" | sed -nE 's/^ +([0-9a-f]+):\t/\1 /p' |
    awk '
        at != "" { print $1, at, name; at = "" }
        $2 == "call" && match($0, /<[^<>@]+@/) { at = $1; name = substr($0, RSTART + 1, RLENGTH - 2) }' |
    grep -vE " ($harmless)\$" |
    while read -r behind at name; do
        place=$(addr2line -s -f -e "$lib" "0x$at" | paste -sd ' ')
        place=${place%% (*}
        if [[ ${place#* } =~ $files ]]; then echo "$behind $name $place"; fi
    done
