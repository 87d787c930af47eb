"""The SuperSlab chapter: expansion without limit, the old ceiling beside it, and 4-thread stability."""

import os
from pathlib import Path

import lab
import stability

QUICK = bool(os.environ.get("LAB_QUICK"))
LIBRARY = {"LD_PRELOAD": str(lab.LIBRARY)}
FIXED = {"HAKMEM_SUPERSLABS_MAX": "1"}
OLD_SLABS = 32  # per class and thread

# ---- expansion ----------------------------------------------------------------------------------------------------------

MIB = 64 if QUICK else 256  # of all threads together
# Bytes of a block, and threads. Slabs of each are 64 KiB.
EXPANSIONS = [(64, 1), (1024, 1), (64, 4), (1024, 4)]
COLUMNS = ["slabs", "superslabs", "whole superslabs", "bytes", "threads refused", "threads refused with ENOMEM"]


def count_of(number, noun):
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def expand(block, threads, options):
    lab.status(f"SuperSlab: {MIB} MiB in blocks of {block} bytes by {count_of(threads, 'thread')}")
    run = lab.run([lab.program("expansion"), block, MIB // threads, threads], env={**LIBRARY, **options})
    return {column: int(lab.figure(run.out, column)) for column in COLUMNS}


def expansion(out):
    cases = {(block, threads, name): expand(block, threads, options) for block, threads in EXPANSIONS
             for name, options in (("1 superslab", FIXED), ("no limit", {}))}
    lab.write_tsv(out / "superslab-expansion.tsv", ["block", "threads", "limit", *COLUMNS],
                  [(*case, *figures.values()) for case, figures in cases.items()])
    dynamic = {case[:2]: figures for case, figures in cases.items() if case[2] == "no limit"}
    fixed = {case[:2]: figures for case, figures in cases.items() if case[2] != "no limit"}
    # The first superslab serves other classes, too, and the last is not used up. Several threads may map one each at once.
    alone = [figures for (_, threads), figures in dynamic.items() if threads == 1]
    masks = all(figures["whole superslabs"] >= figures["superslabs"] - 2 for figures in alone)
    goes_on = all(figures["threads refused"] == 0 and figures["slabs"] > 4 * OLD_SLABS * threads
                  for (_, threads), figures in dynamic.items())
    clean = all(figures["threads refused with ENOMEM"] == figures["threads refused"] == threads and
                figures["slabs"] == OLD_SLABS * threads for (_, threads), figures in fixed.items())
    most = max(figures["slabs"] // threads for (_, threads), figures in dynamic.items())
    table = lab.markdown_table(
        ["block", "threads", "limit per class and thread", "slabs", "superslabs", "of these with all 32 slabs", "MiB",
         "threads refused with ENOMEM"],
        [[block, threads, name, figures["slabs"], figures["superslabs"], figures["whole superslabs"],
          f"{figures['bytes'] / 2**20:.0f}", figures["threads refused with ENOMEM"]]
         for (block, threads, name), figures in cases.items()])
    text = f"""### Expansion

`expansion BLOCK MIB THREADS`: threads allocate and mark {MIB} MiB together in blocks of one size, or as much as they get. With
`HAKMEM_SUPERSLABS_MAX=1`, the old ceiling of {OLD_SLABS} slabs, `malloc` returns `NULL` with `ENOMEM`; other sizes and
what is freed go on, and no block is touched. Without a limit one class of a thread took {most} slabs, {most // OLD_SLABS} times
the old ceiling. The program sees from the addresses which slabs came: of a superslab whose mask was right from the beginning,
all {OLD_SLABS}. Raw: [superslab-expansion.tsv]({out.name}/superslab-expansion.tsv).

{table}"""
    comparison = [(f"blocks of {block} bytes, {count_of(threads, 'thread')}", "MiB until ENOMEM or the goal: 1 superslab, no limit",
                   f"{fixed[block, threads]['bytes'] / 2**20:.0f}", f"{figures['bytes'] / 2**20:.0f}",
                   f"{figures['bytes'] / fixed[block, threads]['bytes']:.0f} times")
                  for (block, threads), figures in dynamic.items()]
    criteria = [
        lab.Criterion(f"SuperSlab: no ceiling of {OLD_SLABS} slabs per class and thread", goes_on,
                      f"{most} slabs of one class in one thread; superslab-expansion.tsv"),
        lab.Criterion("SuperSlab: every fresh superslab gives all of its slabs", masks,
                      "; ".join(f"{figures['whole superslabs']} of {figures['superslabs']}" for figures in alone)
                      + " whole (the first and the last of a run need not be); superslab-expansion.tsv"),
        lab.Criterion("SuperSlab: a set limit is refused with ENOMEM, and the program goes on", clean,
                      "; ".join(f"{figures['threads refused with ENOMEM']} of {count_of(threads, 'thread')} at {figures['slabs']} slabs"
                                for (_, threads), figures in fixed.items()))]
    return text, comparison, criteria


# ---- stability ----------------------------------------------------------------------------------------------------------

# What is run how often, and for how many seconds each: the documents' sizes reach only the Tiny layer.
SIZES = {"8 to 128 bytes": stability.TINY, "32 KiB to 1 MiB": (32768, 1048576), "1 to 4 MiB": (1048576, 4194304)}
RUNS = {name: 10 if QUICK else count for name, count in zip(SIZES, (1000, 100, 100))}
SECONDS_EACH = 0.05
LONG_SECONDS = 0.1 if QUICK else 2
LONG_ROUNDS = 1 if QUICK else 3


def stable(out):
    failures, speeds = {}, {}
    for name, sizes in SIZES.items():
        failures[name] = stability.run_often(stability.larson(SECONDS_EACH, sizes), RUNS[name], tell=f"Larson, {name}")
        arguments = stability.larson(LONG_SECONDS, sizes)[1:]
        cases = {twin: lambda twin=twin: lab.run([lab.program(twin), *arguments]) for twin in ("larson_system", "larson_hakmem")}
        runs = lab.interleave(cases, LONG_ROUNDS, tell=f"Larson, {name}")
        speeds[name] = {twin: [lab.figure(run.out, "throughput") for run in runs[twin]] for twin in cases}
    lab.write_tsv(out / "superslab-stability.tsv", ["sizes", "runs", "failed", "seconds_each"],
                  [(name, RUNS[name], len(failed), SECONDS_EACH) for name, failed in failures.items()])
    lab.write_tsv(out / "superslab-larson.tsv", ["sizes", "program", "round", "operations_per_second"],
                  [(name, twin, number + 1, f"{speed:.0f}") for name, twins in speeds.items()
                   for twin, values in twins.items() for number, speed in enumerate(values)])
    passed = {name: f"{RUNS[name] - len(failed)} of {RUNS[name]}" for name, failed in failures.items()}
    rows = []
    for name, (least, most) in SIZES.items():
        ratio = lab.ratio(speeds[name]["larson_hakmem"], speeds[name]["larson_system"])
        rows.append([f"`larson_hakmem {LONG_SECONDS} {least} {most} 1024 1 12345 4`", passed[name],
                     *(f"{lab.summary(speeds[name][twin]).median / 1e6:.3f}" for twin in ("larson_system", "larson_hakmem")),
                     f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"])
    first_failure = next((failed[0] for failed in failures.values() if failed), None)
    says = f"\nThe first failure: `{first_failure}`\n" if first_failure else ""
    text = f"""### 4-thread stability

Larson with 4 threads, runs of {SECONDS_EACH} seconds, two at a time; every chunk is checked before it is freed, so that a run
with one wrong byte fails. At the documents' 8 to 128 bytes it never reaches the L2.5 pool or BigCache, so those have runs of their
own. Beside them {count_of(LONG_ROUNDS, 'round')} of {LONG_SECONDS} seconds against the C library. `make stability RUNS=1000 SECONDS_EACH=10`
is the long form.

{lab.markdown_table(["command", "runs that ended well", "C library, million operations/s", "hakmem", "ratio"], rows)}{says}"""
    criterion = lab.Criterion("4-thread stability: every run of Larson ends well", not any(failures.values()),
                              "; ".join(f"{name}: {text}" for name, text in passed.items()) + "; superslab-stability.tsv")
    return text, criterion


def section(out):
    out = Path(out)
    expansion_text, comparison, criteria = expansion(out)
    stable_text, stable_criterion = stable(out)
    return lab.Section(f"{expansion_text}\n{stable_text}", comparison, [], [*criteria, stable_criterion])
