#!/usr/bin/env python3
"""Writes generated input of a real program to stdout: generate.py c-source|smt2|redis. The same text every time."""
import sys

FUNCTIONS = 250
PROBLEMS = 3
REDIS_KEYS = 30000
TYPES = ["int", "long", "double", "char"]


class Random:
    """Linear congruential: the same numbers everywhere, in every version of Python."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state * 1103515245 + 12345) & 0x7FFFFFFF
        return (self.state >> 8) % n


def c_source():
    """Structures, loops, switches and calls for a C compiler."""
    random = Random(1)
    print("#include <stdio.h>\n#include <string.h>")
    for i in range(FUNCTIONS):
        fields, cases = 3 + random.below(8), 2 + random.below(10)
        print(f"struct s{i} {{", *(f"{TYPES[random.below(len(TYPES))]} f{j};" for j in range(fields)), "};")
        print(f"static long work{i}(struct s{i} *s, const char *text, int n) {{\n    long sum = {random.below(1000)};")
        print(f"    for (int k = 0; k < n; k++) {{\n        s->f{random.below(fields)} += k * {random.below(9)} + text[k & 7];")
        print(f"        switch ((k + (int)s->f{random.below(fields)}) % {cases}) {{")
        for case in range(cases):
            term = f"(long)s->f{random.below(fields)}"
            if i and random.below(3) == 0:
                term = f"work{random.below(i)}((void *)s, text, n / 2)"
            print(f"        case {case}: sum += {term} * {1 + random.below(50)}; break;")
        print("        default: sum ^= k; s->f0 = (int)sum;\n        }\n    }")
        print(f'    if (sum == {random.below(1000)}) printf("work{i} %ld of %zu\\n", sum, strlen(text));\n    return sum;\n}}')
    print("int main(int argc, char **argv) {\n    long sum = 0;\n    union { char all[256]; long number; } space;")
    print("    memset(&space, 0, sizeof space);")
    for i in range(FUNCTIONS):
        print(f"    sum += work{i}((void *)&space, argv[0], argc);")
    print('    printf("%ld\\n", sum);\n    return 0;\n}')


def smt2():
    """Problems of linear integer arithmetic, one after the other, for an SMT solver."""
    variables, rules = 55, 150
    print("(set-option :smt.random_seed 1)")
    for problem in range(PROBLEMS):
        random = Random(problem + 1)
        print("(set-logic QF_LIA)")
        for i in range(variables):
            print(f"(declare-const x{i} Int)\n(assert (and (>= x{i} 0) (<= x{i} 1000)))")
        for _ in range(rules):
            v = [f"x{random.below(variables)}" for _ in range(6)]
            weighted = " ".join(f"(* {1 + random.below(9)} {name})" for name in v[:3])
            print(f"(assert (or (> (+ {weighted}) {1000 + random.below(9000)}) (< (- {v[0]} {v[3]}) {-100 - random.below(400)})"
                  f" (= (+ {v[1]} {v[4]} (* 3 {v[5]})) {random.below(3000)})))")
        print("(check-sat)\n(reset)")


def redis():
    """Commands that fill a redis-server, in its protocol: keys that redis-benchmark -r asks for, values of all lengths."""
    for i in range(REDIS_KEYS):
        words = ["SET", f"key:{i:012}", f"{i:0{20 + i * 7919 % 400}}"]
        sys.stdout.write(f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words))


KINDS = {"c-source": c_source, "smt2": smt2, "redis": redis}
if len(sys.argv) != 2 or sys.argv[1] not in KINDS:
    sys.exit(f"usage: generate.py {'|'.join(KINDS)}")
KINDS[sys.argv[1]]()
