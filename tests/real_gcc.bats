#!/usr/bin/env bats
# gcc and g++ compile on hakmem what they compile on the C library, to the same bytes.
# shellcheck disable=SC2154  # root, build, hakrun, limit and long are set there
load support/real

# Every eighth source of this project, and a C++ file that asks the compiler for many large blocks.
sources() {
    find "$root/src" -name '*.c' | sort | awk -v step=$((long > 1 ? 1 : 8)) 'NR % step == 0' >sources
    cat >templates.cc <<'CC'
#include <algorithm>
#include <map>
#include <memory>
#include <regex>
#include <string>
#include <vector>
template <int N> struct chain { static int f(std::map<int, std::string> &m) { m[N] = std::to_string(N); return chain<N - 1>::f(m); } };
template <> struct chain<0> { static int f(std::map<int, std::string> &m) { return (int)m.size(); } };
int main() {
    std::map<int, std::string> m;
    std::vector<std::shared_ptr<std::string>> v;
    std::regex r("[a-z]+([0-9]*)");
    for (auto &e : m) v.push_back(std::make_shared<std::string>(e.second));
    std::sort(v.begin(), v.end());
    return chain<100>::f(m) + std::regex_match("a1", r) + unused;
}
CC
    sed 's/ + unused//' templates.cc >fine.cc
    local switches
    switches=$(sed -n 's/^static_assert(\(HAK_[A-Z_]*\) == 0 .*/-D\1=0/p' "$root/src/base/config.h" | tr '\n' ' ')
    cat >compile.sh <<SH
set -e
while read -r source; do
    gcc -std=c11 -O2 -g "-ffile-prefix-map=\$PWD=." -Wall -Wextra -D_GNU_SOURCE -I"$root/include" -I"$root/src" \
        $switches -c "\$source" -o "\$(basename "\$source").o"
done <../sources
g++ -std=c++17 -O2 -Wall -c ../fine.cc -o fine.o
g++ fine.o -o fine
! g++ -std=c++17 -Wall -c ../templates.cc -o none.o
SH
}

compare() {
    sources
    on_both bash ../compile.sh
    grep -q "'unused' was not declared" hakmem/out
    [ "$(find hakmem -name '*.o' | wc -l)" -eq $(($(wc -l <sources) + 1)) ]
    for object in libc/*.o libc/fine; do
        cmp "$object" "hakmem/${object#libc/}"
    done
    served gcc 1
    served cc1 1
    served as 1
    served ld 1
    served cc1plus 100000000
}

@test "gcc and g++ give the same objects, program and messages on hakmem" {
    compare
}

@test "gcc and g++ give the same objects, program and messages on the checked library" {
    HAKRUN_FLAGS=--checked compare
}
