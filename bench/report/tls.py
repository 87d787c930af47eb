"""The TLS cache chapter: capacity over time, speed and bytes held against fixed sizes, and what pre-warming gains."""

import os
import re
import subprocess
import time
from collections import namedtuple
from pathlib import Path

import lab

QUICK = bool(os.environ.get("LAB_QUICK"))
ROUNDS = 3 if QUICK else 5
SEED = 12345
LIBRARY = {"LD_PRELOAD": str(lab.LIBRARY)}

# ---- capacity over time -------------------------------------------------------------------------------------------------

# Halving is a matter of seconds: a bin that nobody visits gives way once a second, from 2,048 slots to 16 in seven steps.
QUIET_MS, BURST_MS, BURSTS = (1500, 100, 1) if QUICK else (8500, 500, 2)
SLOTS_LEAST, SLOTS_MOST = 16, 2048

Event = namedtuple("Event", "seconds what value line")
LINES = {"slots": re.compile(r"\[TLS_CACHE\] class 64: \d+ → (\d+) slots \(hwm=\d+\)$"),
         "cached": re.compile(r"cached: (\d+) bytes$"),
         "phase": re.compile(r"phase: (\w+)$")}


def watch_bursts():
    """Runs the bursty program, and notes when it says what."""
    events = []
    environment = {**os.environ, **LIBRARY, "HAKMEM_LOG": "1"}
    command = [lab.program("bursty"), str(QUIET_MS), str(BURST_MS), str(BURSTS)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          encoding="utf-8") as program:
        start = time.monotonic()
        for line in program.stderr:
            now = time.monotonic() - start
            for what, pattern in LINES.items():
                found = pattern.match(line)
                if found:
                    events.append(Event(now, what, found.group(1), line.rstrip()))
    if program.returncode != 0:
        raise lab.Failed(f"{' '.join(command)}: status {program.returncode}")
    return events


def plot_bursts(path, events):
    end = events[-1].seconds
    slots = [(event.seconds, event.value) for event in events if event.what == "slots"]
    slots = [(0, SLOTS_LEAST), *slots, (end, slots[-1][1])]
    cached = [(event.seconds, int(event.value) / 1024) for event in events if event.what == "cached"]
    phases = [event for event in events if event.what == "phase"]
    bursts = [f"set object rectangle from {begin.seconds}, graph 0 to {after.seconds}, graph 1 behind "
              "fillcolor 'gray' fillstyle solid 0.3 noborder"
              for begin, after in zip(phases, phases[1:]) if begin.value == "burst"]
    blocks = [line for name, rows in (("slots", slots), ("cached", cached))
              for line in (f"${name} << END", *(f"{x:.4f} {y}" for x, y in rows), "END")]
    lab.plot(path, "\n".join([*blocks, *bursts, "set xlabel 'seconds (grey: a burst)'", "set ylabel 'slots'",
                              "set logscale y 2", f"set yrange [{SLOTS_LEAST / 2}:{SLOTS_MOST * 2}]", "set ytics nomirror",
                              "set y2label 'cached, KiB'", "set y2tics", "set y2range [0:*]", f"set xrange [0:{end}]",
                              "plot $slots with steps linewidth 2 title 'slots of class 64', "
                              "$cached axes x1y2 with lines title 'cached'"]))


def bursts(out):
    lab.status("TLS cache: a bursty workload over time")
    events = watch_bursts()
    lab.write_tsv(out / "tls-bursts.tsv", ["seconds", "what", "value"],
                  [(f"{event.seconds:.4f}", event.what, event.value) for event in events])
    plot_bursts(out / "tls-bursts.svg", events)
    resizes = [event for event in events if event.what == "slots"]
    sizes = [int(event.value) for event in resizes]
    if not sizes:
        raise lab.Failed("the thread cache logged no change of a bin's size")
    most = max(sizes)
    last_top = len(sizes) - 1 - sizes[::-1].index(most)
    least = min(sizes[last_top:])
    down = next((event.line for event, before in zip(resizes[1:], sizes) if int(event.value) < before), "none")
    text = f"""### Capacity over time

`bursty {QUIET_MS} {BURST_MS} {BURSTS}`: a few blocks of 64 bytes in each millisecond, and in bursts rows of 20,000. The bin
went up to {most} slots in a burst and down to {least} after the last one ({len(sizes)} steps; the first up and down:
`{resizes[0].line}`, `{down}`). Raw: [tls-bursts.tsv]({out.name}/tls-bursts.tsv).

![Slots and cached bytes over time]({out.name}/tls-bursts.svg)
"""
    # In a short run there is no time to get down again.
    met = most == SLOTS_MOST and (least == SLOTS_LEAST or (QUICK and least < most))
    return text, lab.Criterion("TLS cache: a bin grows from 16 to 2,048 slots in a burst and shrinks again", met,
                               f"{most} slots at most, {least} at the end; tls-bursts.tsv")


# ---- adaptive against fixed ---------------------------------------------------------------------------------------------

VARIANTS = {"adaptive": {},
            **{f"fixed {slots}": {"HAKMEM_TLS_SLOTS_MIN": str(slots), "HAKMEM_TLS_SLOTS_MAX": str(slots)}
               for slots in (16, 256, 2048)}}
# Rows of up to so many blocks, and so many requests.
ROWS = {8: 4_000_000, 200: 800_000, 2000: 100_000}
REQUESTS_DIVISOR = 50 if QUICK else 1
SAVED_GOAL = 30  # percent


def workload(row):
    return f"rows of up to {row:,}"


def measure_variants(row):
    command = [lab.program("tls_cache"), ROWS[row] // REQUESTS_DIVISOR, row, SEED]
    cases = {name: lambda options=options: lab.run(command, env={**LIBRARY, **options})
             for name, options in VARIANTS.items()}
    return lab.interleave(cases, ROUNDS, tell=f"TLS cache, {workload(row)}")


def percent(ratio):
    return f"{100 * (ratio - 1):+.1f} %"


def percents(ratio):
    return f"{percent(ratio.median)} ({percent(ratio.low)} to {percent(ratio.high)})"


def kib(values):
    return lab.summary(values).median / 1024


def adaptive_or_fixed(out):
    figures = {}  # (row, variant): throughputs, cached bytes
    for row in ROWS:
        for variant, runs in measure_variants(row).items():
            figures[row, variant] = ([lab.figure(run.out, "throughput") for run in runs],
                                     [lab.figure(run.out, "cached, mean") for run in runs])
    lab.write_tsv(out / "tls-fixed.tsv", ["rows_up_to", "variant", "round", "operations_per_second", "cached_bytes"],
                  [(row, variant, number + 1, f"{speed:.0f}", f"{cached:.0f}") for (row, variant), pair in figures.items()
                   for number, (speed, cached) in enumerate(zip(*pair))])

    def gain(row, variant):
        return lab.ratio(figures[row, "adaptive"][0], figures[row, variant][0])

    def saved(row, variant):
        return 100 * (1 - kib(figures[row, "adaptive"][1]) / kib(figures[row, variant][1]))

    table = lab.markdown_table(
        ["workload", "slots", "million operations/s", "cached, KiB", "adaptive is faster by", "and holds less by"],
        [[workload(row), variant, f"{lab.summary(speeds).median / 1e6:.1f}", f"{kib(cached):.0f}",
          *(["", ""] if variant == "adaptive" else [percents(gain(row, variant)), f"{saved(row, variant):.0f} %"])]
         for (row, variant), (speeds, cached) in figures.items()])
    over_all = {variant: lab.geometric_mean([gain(row, variant).median for row in ROWS])
                for variant in VARIANTS if variant != "adaptive"}
    savings = {row: saved(row, "fixed 2048") for row in ROWS}
    text = f"""### Adaptive against fixed sizes

`tls_cache REQUESTS ROW {SEED}`: a request allocates and frees a row of blocks of 48 to 256 bytes; one row of eight is long.
All other small sizes come and go beside them. A fixed size is the same build with `HAKMEM_TLS_SLOTS_MIN` equal to
`HAKMEM_TLS_SLOTS_MAX`; both byte budgets (256 KiB per class, 4 MiB per thread) hold for it, too. {ROUNDS} interleaved rounds.
Cached is the mean over the run of what lies free in the thread's bins.

{table}
Over all: {'; '.join(f'{percent(ratio)} against {variant} slots' for variant, ratio in over_all.items())}. Against 2,048 fixed
slots it holds {min(savings.values()):.0f} to {max(savings.values()):.0f} % less.
The documents expect 3 to 10 % more speed and 30 to 50 % less memory than the old fixed cache.
Raw: [tls-fixed.tsv]({out.name}/tls-fixed.tsv).
"""
    comparison = [(f"TLS cache, {workload(row)}", "million operations/s: 16 slots, adaptive",
                   f"{lab.summary(figures[row, 'fixed 16'][0]).median / 1e6:.1f}",
                   f"{lab.summary(figures[row, 'adaptive'][0]).median / 1e6:.1f}", percents(gain(row, "fixed 16"))) for row in ROWS]
    memory = [(f"TLS cache, {workload(row)}: 2,048 slots, adaptive", f"{kib(figures[row, 'fixed 2048'][1]):.0f} KiB",
               f"{kib(figures[row, 'adaptive'][1]):.0f} KiB", f"{-savings[row]:+.0f} %") for row in ROWS]
    criteria = [
        lab.Criterion("TLS cache: adaptive is at least as fast as 16 fixed slots", over_all["fixed 16"] >= 1,
                      f"{percent(over_all['fixed 16'])} over {len(ROWS)} workloads; tls-fixed.tsv"),
        lab.Criterion(f"TLS cache: adaptive holds at least {SAVED_GOAL} % less than 2,048 fixed slots",
                      min(savings.values()) >= SAVED_GOAL,
                      "; ".join(f"{workload(row)}: {saving:.0f} %" for row, saving in savings.items()) + "; tls-fixed.tsv")]
    return text, comparison, memory, criteria


# ---- pre-warm -----------------------------------------------------------------------------------------------------------

THREADS = 500 if QUICK else 10_000
# Blocks of the first request, and threads that live at a time. Four sizes come in turn: those that are pre-warmed.
REQUESTS = {(1, 1): "one block", (16, 1): "16 blocks of four sizes", (16, 100): "the same, of a thread with a fresh heap"}
SHOWN = (16, 1)
WARM = {"with": {}, "without": {"HAKMEM_PREWARM": "0"}}
FIGURES = {"p50": "first request, p50", "p99": "first request, p99", "per thread": "per thread"}


def prewarm(out):
    figures = {}  # (request, variant, figure): values, in ns
    for request, name in REQUESTS.items():
        blocks, alive = request
        command = [lab.program("first_request"), THREADS, alive, blocks]
        cases = {variant: lambda options=options: lab.run(command, env={**LIBRARY, **options})
                 for variant, options in WARM.items()}
        for variant, runs in lab.interleave(cases, ROUNDS, tell=f"pre-warm, {name}").items():
            for figure, label in FIGURES.items():
                figures[request, variant, figure] = [lab.figure(run.out, label) for run in runs]
    lab.write_tsv(out / "tls-prewarm.tsv", ["blocks", "alive", "prewarm", "figure", "round", "ns"],
                  [(*request, variant, figure, number + 1, f"{value:.0f}")
                   for (request, variant, figure), values in figures.items() for number, value in enumerate(values)])

    def change(request, figure):
        return lab.ratio(figures[request, "with", figure], figures[request, "without", figure])

    table = lab.markdown_table(
        ["first request", "", "without, ns", "with, ns", "change"],
        [[name, figure, *(f"{lab.summary(figures[request, variant, figure]).median:.0f}" for variant in ("without", "with")),
          percents(change(request, figure))] for request, name in REQUESTS.items() for figure in FIGURES])
    p50, p99 = (change(SHOWN, figure) for figure in ("p50", "p99"))
    single, thread = change((1, 1), "p50"), change(SHOWN, "per thread")
    text = f"""### Pre-warm

`first_request {THREADS} ALIVE BLOCKS`: {THREADS:,} threads, one after the other, each timing its first request. Per thread is the
time from one thread to the next, with creation and end. The first allocation of a thread does the first refill of its four
smallest classes (`HAKMEM_PREWARM=0`: none).

{table}
A first request that uses all four classes changes by {percent(p50.median)} at p50 and {percent(p99.median)} at p99, one of a
single block by {percent(single.median)} at p50: nothing of a thread is known before its first request, which therefore pays
for all four bins. A thread as a whole changes by {percent(thread.median)}.
Raw: [tls-prewarm.tsv]({out.name}/tls-prewarm.tsv).
"""
    comparison = [(f"first request of a thread, {REQUESTS[SHOWN]}", f"{figure}, ns: without pre-warm, with",
                   f"{lab.summary(figures[SHOWN, 'without', figure]).median:.0f}",
                   f"{lab.summary(figures[SHOWN, 'with', figure]).median:.0f}", percents(change(SHOWN, figure)))
                  for figure in FIGURES]
    return text, comparison


def section(out):
    out = Path(out)
    bursts_text, bursts_criterion = bursts(out)
    fixed_text, fixed_comparison, memory, fixed_criteria = adaptive_or_fixed(out)
    prewarm_text, prewarm_comparison = prewarm(out)
    return lab.Section("\n".join([bursts_text, fixed_text, prewarm_text]), fixed_comparison + prewarm_comparison, memory,
                       [bursts_criterion, *fixed_criteria])
