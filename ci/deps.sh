#!/usr/bin/env bash
# Installs the Debian packages that a purpose needs, or several: ci/deps.sh run|test|fuzz|bench ...
# Says nothing where nothing is missing. As root, or through sudo without a password, it says what it installs and
# does; otherwise it prints the one command to type and fails.
set -eu

build=(gcc make binutils libc6-dev)
programs=(redis-server redis-tools sqlite3 python3 perl git)
lint=(clang-tidy-14 clang-format-14 shellcheck)
check=(
    g++ clang-14 clang-19 lld-14 libclang-rt-14-dev libclang-rt-19-dev llvm-14 valgrind libc6-dbg
    libcmocka-dev uthash-dev bats libseccomp-dev musl-tools lua5.4 libpython3.11-testsuite
    jq time strace file gnuplot-nox zip unzip procps util-linux pkg-config mandoc man-db patch rsync
    zstd
)
# The allocators that the benchmarks compare with, and the programs that they run besides.
compared=(libmimalloc2.0 libjemalloc2 libtcmalloc-minimal4 lua5.4 z3 imagemagick)

usage() {
    echo "usage: ci/deps.sh run|test|fuzz|bench ..." >&2
    exit 2
}
[ $# -gt 0 ] || usage
packages=("${build[@]}")
for purpose; do
    case $purpose in
    run) packages+=("${programs[@]}") ;;
    test) packages+=("${programs[@]}" "${check[@]}" "${lint[@]}") ;;
    fuzz) packages+=("${check[@]}" afl++) ;;
    bench) packages+=(
        "${programs[@]}" "${compared[@]}" g++ time zstd gnuplot-nox jq valgrind libc6-dbg clang-19 libclang-rt-19-dev
        llvm-14 libcmocka-dev
    ) ;;
    *) usage ;;
    esac
done
mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)

if ! command -v dpkg-query >/dev/null; then
    echo "ci/deps.sh: not a Debian system; install what corresponds to: ${packages[*]}" >&2
    exit 1
fi

missing=()
for package in "${packages[@]}"; do
    status=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) || status=
    [[ $status == ii* ]] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -eq 0 ]; then
    as_root=()
elif sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
else
    echo "missing: ${missing[*]}" >&2
    echo "Install them with: sudo $0 $*" >&2
    exit 1
fi

echo "installing: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# redis-server is wanted as a program, not as a service: policy-rc.d forbids the installation to start any. The package
# list may be old or absent, as on a fresh machine; hence the second try.
# shellcheck disable=SC2016  # the inner shell expands
if ! "${as_root[@]}" sh -c '
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap "rm -f $policy" EXIT
        printf "#!/bin/sh\nexit 101\n" >"$policy"
        chmod 755 "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y --no-install-recommends "$@" || { apt-get update && apt-get install -y --no-install-recommends "$@"; }
    ' sh "${missing[@]}" </dev/null >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    exit 1
fi
