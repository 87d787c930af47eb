#!/usr/bin/env python3
"""The Phase 7 chapter: what each of its three tasks gains, and all together (make phase7).

The variants are builds of the same source (bench/phase7.mk): without the three, with one of them, with all. The programs
are the same, the library is preloaded. `python3 bench/report/phase7.py [DIRECTORY]` prints the tables, and writes the raw
figures and the plot into DIRECTORY (build/phase7).
"""

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import lab  # noqa: E402

QUICK = bool(os.environ.get("LAB_QUICK"))
ROUNDS = 3 if QUICK else 7
CYCLES = 200_000 if QUICK else 20_000_000
WORKING_SET = 8192
LARSON_SECONDS = 0.05 if QUICK else 0.8
SEED = 12345
# Counted under Callgrind: the difference of the two runs, so that starting and ending do not count.
COUNTED_CYCLES = (50_000, 100_000) if QUICK else (200_000, 600_000)

BASE = "none"
# The folder of the library below build/phase7, and what it has.
VARIANTS = {
    "none": "none of the three",
    "region-lookup": "REGION_LOOKUP alone",
    "aggressive-inline": "AGGRESSIVE_INLINE alone",
    "prewarm-tls": "PREWARM_TLS alone",
    "all": "all three",
}
WORKLOADS = {
    "random-mixed": ["random_mixed", CYCLES, WORKING_SET, SEED],
    "Larson": ["larson", LARSON_SECONDS, 8, 128, 1024, 1, SEED, 4],
}


def library(variant):
    return str(lab.ROOT / "build/phase7" / variant / "libhakmem.so")


def command_of(workload):
    name, *arguments = WORKLOADS[workload]
    return [lab.program(name), *arguments]


def throughputs(workload):
    """Operations per second of every variant, round by round."""
    command = command_of(workload)
    cases = {variant: lambda variant=variant: lab.run(command, env={"LD_PRELOAD": library(variant)})
             for variant in VARIANTS}
    runs = lab.interleave(cases, ROUNDS, tell=workload)
    return {variant: [lab.figure(run.out, "throughput") for run in runs[variant]] for variant in VARIANTS}


def instructions_per_pair(variant):
    """Instructions of one malloc and one free together in random-mixed, slow paths included: a cycle is one of the two."""
    collected = []
    for cycles in COUNTED_CYCLES:
        lab.status(f"instructions: {variant}, {cycles} cycles")
        run = lab.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=malloc",
                       "--toggle-collect=free", lab.program("random_mixed"), cycles, WORKING_SET, SEED],
                      env={"LD_PRELOAD": library(variant)})
        found = re.search(r"Collected : (\d+)", run.err)
        if not found:
            raise lab.Failed(f"callgrind says nothing of what it collected:\n{run.err[-500:]}")
        collected.append(int(found.group(1)))
    return 2 * (collected[1] - collected[0]) / (COUNTED_CYCLES[1] - COUNTED_CYCLES[0])


def percent(ratio):
    return f"{100 * (ratio - 1):+.1f} %"


def gain_text(gain):
    return f"{percent(gain.median)} ({percent(gain.low)} to {percent(gain.high)})"


def plot(path, gains):
    """A group of bars per variant; the lines reach from the lowest to the highest round."""
    alone = [variant for variant in VARIANTS if variant != BASE]
    blocks = []
    for number, variant in enumerate(alone):
        figures = [f"{100 * (value - 1):.3f}" for workload in WORKLOADS for value in gains[workload][variant]]
        blocks.append(f"{number} {' '.join(figures)}")
    ticks = ", ".join(f"'{variant}' {number}" for number, variant in enumerate(alone))
    curves = ", ".join(
        f"$gains using ($1 + {0.3 * number - 0.15}):{2 + 3 * number}:{3 + 3 * number}:{4 + 3 * number}:(0.28) "
        f"with boxerrorbars title '{workload}'" for number, workload in enumerate(WORKLOADS))
    lab.plot(path, "\n".join(["$gains << END", *blocks, "END",
                              "set style fill solid 0.6", "set xzeroaxis", "set key top left", "set yrange [*<0:0<*]",
                              f"set xtics ({ticks})", f"set xrange [-0.6:{len(alone) - 0.4}]",
                              "set ylabel 'gain over none, %'", f"plot {curves}"]))


def section(out):
    out = Path(out)
    speeds = {workload: throughputs(workload) for workload in WORKLOADS}
    instructions = {variant: instructions_per_pair(variant) for variant in VARIANTS}
    gains = {workload: {variant: lab.ratio(speeds[workload][variant], speeds[workload][BASE]) for variant in VARIANTS}
             for workload in WORKLOADS}

    lab.write_tsv(out / "phase7-rounds.tsv", ["workload", "variant", "round", "operations_per_second"],
                  [(workload, variant, number + 1, f"{value:.0f}") for workload in WORKLOADS for variant in VARIANTS
                   for number, value in enumerate(speeds[workload][variant])])
    lab.write_tsv(out / "phase7-instructions.tsv", ["variant", "instructions_per_pair"],
                  [(variant, f"{count:.2f}") for variant, count in instructions.items()])
    plot(out / "phase7-gain.svg", gains)

    rows = [[VARIANTS[variant]]
            + [f"{lab.summary(speeds[workload][variant]).median / 1e6:.2f}" for workload in WORKLOADS]
            + ["" if variant == BASE else gain_text(gains[workload][variant]) for workload in WORKLOADS]
            + [f"{instructions[variant]:.1f}"] for variant in VARIANTS]
    table = lab.markdown_table(
        ["build", *(f"{workload}, million operations/s" for workload in WORKLOADS),
         *(f"{workload}, gain" for workload in WORKLOADS), "instructions per malloc and free"], rows)
    programs = "\n".join(f"- {workload}: `{' '.join(map(str, WORKLOADS[workload]))}`" for workload in WORKLOADS)
    text = f"""Five builds of the same source, each preloaded under the same programs: without the three tasks, with one, with all.
`REGION_LOOKUP` off is the header-free lookup by two steps, superslab and slab; `AGGRESSIVE_INLINE` off has the same hits
behind a call; `PREWARM_TLS` off starts a thread with empty bins.

{programs}

{ROUNDS} rounds, interleaved; gains are medians of the ratios within a round (in brackets the lowest and highest).
The instructions are those of `malloc` and `free` with all that they call, counted by Callgrind in random-mixed.

{table}
![Gain of each variant]({out.name}/phase7-gain.svg)
"""
    comparison = [(workload, "million operations/s: without Phase 7, with",
                   f"{lab.summary(speeds[workload][BASE]).median / 1e6:.2f}",
                   f"{lab.summary(speeds[workload]['all']).median / 1e6:.2f}", gain_text(gains[workload]["all"]))
                  for workload in WORKLOADS]
    slower = [workload for workload in WORKLOADS if gains[workload]["all"].median <= 1]
    criteria = [lab.Criterion("Phase 7: all three tasks together are faster than none", not slower,
                              "; ".join(f"{workload}: {gain_text(gains[workload]['all'])}" for workload in WORKLOADS))]
    return lab.Section(text, comparison, [], criteria)


if __name__ == "__main__":
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else lab.ROOT / "build/phase7")
    if directory.name.startswith("-"):
        sys.exit(__doc__ if directory.name in ("-h", "--help") else f"what is {directory.name}? See --help")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        print(section(directory).text)
    except lab.Failed as failed:
        sys.exit(f"phase7: {failed}")
