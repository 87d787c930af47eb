"""BigCache (blocks over 1 MiB): the growth of its table, and its hit rate against that of the old fixed table."""

import json
import os
import re

import lab

QUICK = os.environ.get("LAB_QUICK") == "1"
ROUNDS = 1 if QUICK else 5
BURSTS = 6 if QUICK else 20
BLOCKS = 384  # of a burst, at most
SWEEP = (64, 384) if QUICK else (32, 64, 128, 192, 256, 384)
GROWTH_BLOCKS = 50000
GAIN_WANTED = 10  # points of hit rate
TRACE = lab.ROOT / "bench/traces/imagemagick.trace"

BUCKETS_FIXED = {"HAKMEM_BIGCACHE_BUCKETS_MAX": 256}
CHAIN_FIXED = {"HAKMEM_BIGCACHE_CHAIN_MAX": 8}
BUDGET_FIXED = {"HAKMEM_RETAIN_PERCENT": 0}  # else what may be dirty adapts, too, and makes up for a part
VARIANTS = {"fixed": BUDGET_FIXED | BUCKETS_FIXED | CHAIN_FIXED, "dynamic": BUDGET_FIXED}
# Nothing leaves the cache, and nothing need be purged: to these blocks nobody writes.
GROWTH_OPTIONS = {"HAKMEM_LOG": 1, "HAKMEM_BIGCACHE_MAPPED": "256G", "HAKMEM_BIGCACHE_RESIDENT": "256G",
                  "HAKMEM_BIGCACHE_DECAY_MS": 3600000, "HAKMEM_PURGE_DELAY_MS": 3600000}
GROWTH_EXPECTED = [(256 << i, 512 << i, 192 << i) for i in range(8)]
SYNTHETIC = {"uniform": ["uniform", BURSTS, BLOCKS], "Pareto": ["pareto", BURSTS, BLOCKS]}
WORKLOADS = SYNTHETIC | {"ImageMagick": ["trace", TRACE]}


def on_hakmem(program, arguments, options):
    return lab.run([lab.program(program), *arguments],
                   env={"LD_PRELOAD": lab.LIBRARY, "HAKMEM_STATS": "json", **options})


def stats(run, name):
    return json.loads(run.err.splitlines()[-1])[name]


def hit_rate(run):
    hits, misses = stats(run, "big_hits"), stats(run, "big_misses")
    if hits + misses == 0:
        raise lab.Failed("hakmem was asked for no block over 1 MiB")
    return 100 * hits / (hits + misses)


# name in the TSV: (heading, format, the figure of a run)
FIGURES = {
    "hit_rate": ("hit rate, %", "{:.1f}", hit_rate),
    "hits": ("hits", "{:.0f}", lambda run: stats(run, "big_hits")),
    "misses": ("misses", "{:.0f}", lambda run: stats(run, "big_misses")),
    "evictions": ("evictions", "{:.0f}", lambda run: stats(run, "big_evictions")),
    "buckets": ("buckets", "{:.0f}", lambda run: stats(run, "big_buckets")),
    "p50_us": ("p50, µs", "{:.1f}", lambda run: lab.figure(run.out, "malloc_free_p50") / 1000),
    "p99_us": ("p99, µs", "{:.0f}", lambda run: lab.figure(run.out, "malloc_free_p99") / 1000),
    "per_second": ("operations/s", "{:.0f}", lambda run: lab.figure(run.out, "operations_per_second")),
    "peak_mib": ("peak RSS, MiB", "{:.0f}", lambda run: run.rss_kib / 1024),
    "end_mib": ("RSS when all is freed, MiB", "{:.0f}", lambda run: lab.figure(run.out, "resident_at_end") / 1024),
}


def of_all(runs, figure):
    return [FIGURES[figure][2](run) for run in runs]


def shown(runs, figure):
    """The median with the lowest and highest, as one text."""
    form = FIGURES[figure][1]
    median, low, high = (form.format(value) for value in lab.summary(of_all(runs, figure)))
    return median if low == high else f"{median} ({low} - {high})"


def points(fixed, dynamic):
    """What the hit rate gains, round by round."""
    return lab.summary([after - before
                        for before, after in zip(of_all(fixed, "hit_rate"), of_all(dynamic, "hit_rate"))])


def options_text(options):
    return " ".join(f"{name}={value}" for name, value in options.items())


# ---- growth ------------------------------------------------------------------------------------------------------------


def growth(out):
    """Text and criterion of one run in which the table grows from its least to its most buckets."""
    lab.status("BigCache: growth of the table")
    run = on_hakmem("bigcache_growth", [GROWTH_BLOCKS], GROWTH_OPTIONS)
    lines = [line for line in run.err.splitlines() if line.startswith("[BIGCACHE]")]
    (out / "bigcache_growth.log").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    (out / "bigcache_growth.txt").write_text(run.out, encoding="utf-8")
    found = [re.fullmatch(r"\[BIGCACHE\] Resized: (\d+) → (\d+) buckets \((\d+) entries\)", line) for line in lines]
    steps = [tuple(map(int, match.groups())) for match in found if match]
    loads = sorted({entries / buckets for buckets, _, entries in steps})
    buckets = stats(run, "big_buckets")
    log = "\n".join(lines)
    text = f"""### Growth of the table

`bigcache_growth {GROWTH_BLOCKS}` allocates {GROWTH_BLOCKS:,} blocks of 1 to 2 MiB from 16 call sites, then frees all.
`{options_text(GROWTH_OPTIONS)}` keeps them cached; nothing was written to them. Its log:

```
{log}
```

- {len(steps)} growths, at a load of {", ".join(f"{load:.4g}" for load in loads) or "(none)"}. At the end {buckets:,} buckets
  hold {stats(run, "big_misses") - stats(run, "big_evictions"):,} entries; 65,536 buckets are the limit.
- {run.rss_kib / 1024:.0f} MiB were resident at most; the kernel held {lab.figure(run.out, "kernel_mappings"):,.0f} mappings.
- A `free` took {lab.figure(run.out, "free_p50"):.0f} ns (p50), {lab.figure(run.out, "free_p99"):.0f} ns (p99), at most
  {lab.figure(run.out, "free_longest") / 1e6:.1f} ms: the one that makes the table grow files all entries anew, under its lock.

"""
    met = steps == GROWTH_EXPECTED and len(lines) == len(steps) and buckets == 65536
    return text, lab.Criterion("BigCache: 256 to 65,536 buckets in one run, each step at a load of 0.75", met,
                               f"{len(steps)} steps of {len(GROWTH_EXPECTED)}, {buckets:,} buckets at the end")


# ---- fixed against dynamic ---------------------------------------------------------------------------------------------


def measure(out):
    """workload: (runs with the fixed table, runs with the dynamic one)"""
    cases = {f"{workload}, {variant}": lambda arguments=arguments, options=options:
             on_hakmem("bigcache_load", arguments, options)
             for workload, arguments in WORKLOADS.items() for variant, options in VARIANTS.items()}
    results = lab.interleave(cases, ROUNDS, "BigCache")
    lab.write_tsv(out / "bigcache_runs.tsv", ["workload", "table", "round", *FIGURES],
                  [[*case.split(", "), number, *(figure(run) for _, _, figure in FIGURES.values())]
                   for case, runs in results.items() for number, run in enumerate(runs, 1)])
    return {workload: [results[f"{workload}, {variant}"] for variant in VARIANTS] for workload in WORKLOADS}


def table(results):
    return lab.markdown_table(["workload", "table", *(heading for heading, _, _ in FIGURES.values())],
                              [[workload, variant, *(shown(runs, figure) for figure in FIGURES)]
                               for workload, both in results.items() for variant, runs in zip(VARIANTS, both)])


def limits(out, results):
    """Which of the limits costs what."""
    rows = []
    for workload, arguments in SYNTHETIC.items():
        row = [workload]
        for name, options in (("256 buckets", BUDGET_FIXED | BUCKETS_FIXED), ("8 per chain", BUDGET_FIXED | CHAIN_FIXED),
                              ("defaults", {})):
            lab.status(f"BigCache: {workload}, only {name}")
            row.append(f"{hit_rate(on_hakmem('bigcache_load', arguments, options)):.1f}")
        fixed, dynamic = (f"{lab.summary(of_all(runs, 'hit_rate')).median:.1f}" for runs in results[workload])
        rows.append([row[0], fixed, *row[1:3], dynamic, row[3]])
    heads = ["hit rate, %", "both limits", "only 256 buckets", "only 8 per chain", "neither", "and an adaptive budget"]
    lab.write_tsv(out / "bigcache_limits.tsv", heads, rows)
    return lab.markdown_table(heads, rows)


def sweep(out):
    """Plots the hit rate by how much is freed at a time."""
    series = [(workload, variant) for workload in SYNTHETIC for variant in VARIANTS]
    rows = []
    for blocks in SWEEP:
        lab.status(f"BigCache: bursts of up to {blocks} blocks")
        rows.append([blocks, *(hit_rate(on_hakmem("bigcache_load", [SYNTHETIC[workload][0], BURSTS, blocks],
                                                  VARIANTS[variant])) for workload, variant in series)])
    path = out / "bigcache_sweep.tsv"
    lab.write_tsv(path, ["blocks", *(f"{workload}_{variant}" for workload, variant in series)], rows)
    lines = ", ".join(f"'{path}' using 1:{column} with linespoints lw 2 title '{workload}, {variant}'"
                      for column, (workload, variant) in enumerate(series, 2))
    lab.plot(out / "bigcache_hit_rate.svg", f"""set xlabel 'blocks of a burst, at most'
set ylabel 'hit rate, %'
set yrange [0:100]
set key bottom left
plot {lines}""")


def compare(results):
    """The rows of the chapters that belong to all, and the criteria."""
    comparison, memory, criteria = [], [], []
    for workload, (fixed, dynamic) in results.items():
        gain = points(fixed, dynamic)
        name = f"BigCache, {workload}"
        comparison.append((name, "hit rate, %", shown(fixed, "hit_rate"), shown(dynamic, "hit_rate"),
                           f"{gain.median:+.1f} points"))
        for rows, figure in ((comparison, "p50_us"), (comparison, "p99_us"), (comparison, "per_second"),
                             (memory, "peak_mib"), (memory, "end_mib")):
            ratio = lab.ratio(of_all(dynamic, figure), of_all(fixed, figure))
            head = (name, FIGURES[figure][0]) if rows is comparison else (f"{name}: {FIGURES[figure][0]}",)
            rows.append((*head, shown(fixed, figure), shown(dynamic, figure),
                         f"× {ratio.median:.2f} ({ratio.low:.2f} - {ratio.high:.2f})"))
        if workload in SYNTHETIC:
            criteria.append(lab.Criterion(f"BigCache: hit rate at least {GAIN_WANTED} points better, {workload}",
                                          gain.median >= GAIN_WANTED,
                                          f"{gain.median:+.1f} points ({gain.low:+.1f} - {gain.high:+.1f})"))
    return comparison, memory, criteria


def section(out):
    growth_text, growth_criterion = growth(out)
    results = measure(out)
    comparison, memory, criteria = compare(results)
    sweep(out)
    command = TRACE.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
    text = f"""{growth_text}### Hit rate, fixed against dynamic

Both tables are the same build. *Fixed*: `{options_text(VARIANTS["fixed"])}`; a full chain unmaps its
oldest entry. *Dynamic*: `{options_text(VARIANTS["dynamic"])}`, that is, without these limits. Everything else is equal in
both: 1 GiB mapped, 32 MiB dirty, decay after 1 s. By default more may be dirty than that, and it adapts: the last column of
the table of limits below.

- *uniform*, *Pareto*: a server that is asked for much at once. {BURSTS} bursts; in each {BLOCKS // 2} to {BLOCKS} blocks are
  allocated, the first quarter of each is written to, and all are freed in random order. Uniform: 1 to 4 MiB from one call
  site. Pareto: sizes over 1 MiB with shape 2, from four call sites, the k-th used 1/k as often as the first.
- *ImageMagick*: a recording of `{command}` (`{TRACE.relative_to(lab.ROOT)}`), replayed in the
  processor time that it took.

Latencies are those of a block's allocation and free together. Median of {ROUNDS} interleaved rounds (lowest - highest).

{table(results)}
![Hit rate by the size of the bursts](bigcache_hit_rate.svg)

The first burst meets an empty cache, so that not all requests can hit. Which of the two limits costs what:

{limits(out, results)}
All entries of one size class and call site are in one chain, however many buckets there are. More buckets only keep different
classes and call sites apart; it is the length of a chain that decides how many mappings of one kind are kept.
"""
    return lab.Section(text, comparison, memory, [growth_criterion, *criteria])
