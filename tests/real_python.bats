#!/usr/bin/env bats
# CPython's own tests and a program, with every object allocated through malloc (PYTHONMALLOC=malloc).
# shellcheck disable=SC2154  # root, build, hakrun, limit and long are set there
load support/real

python=/usr/bin/python3

# verdicts FILE  one line per test: its name and verdict, without times and process ids
verdicts() {
    sed -nE 's/^(test[A-Za-z0-9_]+ \([^)]*\)).* \.\.\. (ok|skipped.*|expected failure|FAIL|ERROR)$/\1 \2/p' "$1" | sort
}

@test "test_json, test_list, test_dict and test_threading of CPython pass on hakmem as on the C library" {
    export PYTHONMALLOC=malloc PYTHONDONTWRITEBYTECODE=1
    status=0
    on_libc "$python" -m test -v test_json test_list test_dict test_threading &
    on_hakmem "$python" -m test -v test_json test_list test_dict test_threading || status=$?
    wait $! || { tail -n 20 libc/out && false; }
    [ "$status" -eq 0 ] || { tail -n 40 hakmem/out && false; }
    grep -q 'SUCCESS' hakmem/out
    verdicts libc/out >verdicts.libc
    verdicts hakmem/out >verdicts.hakmem
    [ "$(grep -c ' ok$' verdicts.hakmem)" -gt 300 ]
    diff verdicts.libc verdicts.hakmem
    served python3 50000000
}

program() {
    cat >work.py <<'PY'
import collections, hashlib, json, re, sys, threading, zlib
n = 20000 * int(sys.argv[1])
d = collections.OrderedDict((f"k{i * 7919 % 100003}", list(range(i % 23))) for i in range(n))
text = json.dumps(d, sort_keys=True)
assert json.loads(text) == dict(d)
print(hashlib.sha256(text.encode()).hexdigest(), len(zlib.compress(text.encode())))
print(len(re.findall(r"k(\d+)5\b", text)), hashlib.sha256(re.sub(r"\d(\d)", r"\1x", text).encode()).hexdigest())
big = bytearray()
for i in range(300):
    big += bytes([i % 256]) * (1000 * i)
print(hashlib.sha256(big).hexdigest())
sums = [0] * 8
def run(k):
    for r in range(40):
        sums[k] += sum(len(str(x)) for x in [(k, r, "y" * i) for i in range(200)])
threads = [threading.Thread(target=run, args=(k,)) for k in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print(sums)
with open("/proc/self/maps") as maps, open("maps", "w") as out:
    out.write(str(sum("/libhakmem" in line for line in maps)))
PY
}

compare() {
    export PYTHONHASHSEED=0
    program
    on_both "$python" ../work.py "$long"
    [ "$(cat libc/maps)" = 0 ]
    [ "$(cat hakmem/maps)" -gt 0 ]
    served python3 50000000
}

@test "a Python program gives the same output on hakmem" {
    PYTHONMALLOC=malloc compare
}

@test "a Python program with its own small-object allocator gives the same output on hakmem" {
    compare
}

@test "a Python program gives the same output on the checked library" {
    PYTHONMALLOC=malloc HAKRUN_FLAGS=--checked compare
}
