#!/usr/bin/env bash
# Records the traces anew, into this folder: a compiler, an interpreter that builds and prints syntax trees, and one that
# reads and formats a long document. What is recorded differs a little with the versions of the programs.
set -eu
cd "$(dirname -- "$(readlink -f -- "$0")")"
root=../..
export LC_ALL=C PYTHONMALLOC=malloc PYTHONHASHSEED=0 PERL_HASH_SEED=0 PERL_PERTURB_KEYS=0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# record NAME PROGRAM...  Of the program that is started, not of what it starts
record() {
    local name=$1
    shift
    HAK_TRACE=$work/$name LD_PRELOAD=$root/build/release/bench/trace_record "$@" >/dev/null
    "$root/build/release/bench/trace_replay" "$work/$name" 1
    zstd -q -f --ultra -22 -o "$name.zst" "$work/$name"
}

gcc -E -D_GNU_SOURCE -DHAK_TSAN=0 -DHAK_CHECKED=0 -DHAK_DEBUG=0 -DHAK_ASAN=0 -DHAK_MSAN=0 -DHAK_VALGRIND=0 -DHAK_TEST=1 \
    -DHAK_SCHED=0 -I$root/include -I$root/src -I$root/tests $root/tests/unit_refusals.c -o "$work/source.i"
record gcc "$(gcc -print-prog-name=cc1)" -quiet -g -O3 -fpreprocessed "$work/source.i" -o /dev/null
record python /usr/bin/python3 -s -S -B -c 'import argparse, ast
print(ast.unparse(ast.parse(open(argparse.__file__).read())))'
# shellcheck disable=SC2016  # perl expands
record perl /usr/bin/perl -MPod::Text -MCPAN -e 'Pod::Text->new->parse_from_file($INC{"CPAN.pm"}, "-")'
