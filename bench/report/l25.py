"""The L2.5 pool (32 KiB to 1 MiB): its shards expand by load and by contention; fixed against dynamic, measured on this
machine and simulated on more processors than it has."""

import concurrent.futures
import json
import os
import re
from collections import defaultdict

import lab

QUICK = os.environ.get("LAB_QUICK") == "1"
ROUNDS = 1 if QUICK else 5
MILLISECONDS = 100 if QUICK else 400
LOAD_MILLISECONDS = 3500 if QUICK else 4500  # the interval is a second
CONTENTION_MILLISECONDS = 2000 if QUICK else 4000
THREADS = (2, 64) if QUICK else (2, 8, 64, 256)
CORES = (8, 16) if QUICK else (8, 16, 32, 64, 128, 256)
SIMULATIONS = 1 if QUICK else 3
RECORD_MILLISECONDS = 50 if QUICK else 300

PROCESSORS = len(os.sched_getaffinity(0))
CROWD = 8  # threads whose blocks the others free
SLOWER = 0.05  # is told
EXPECTED = [(64, 128), (128, 256)]
SLOTS = 1  # of each thread, as in the record and in the simulation
SIZES = (32769, 65536)
NEVER = 1000000000  # requests
# The same load as by default, a request per shard and millisecond, but looked at more often: these runs are short.
MEASURED = {
    "fixed": {"HAKMEM_L25_SHARDS_MAX": 64},
    "dynamic": {"HAKMEM_L25_CHECK_MS": 50, "HAKMEM_L25_LOAD": 50},
}
CONTENTION = {"HAKMEM_L25_LOAD": NEVER, "HAKMEM_L25_CHECK_MS": 200}
MODES = {"own": "each thread frees its own blocks", "shared": "each thread frees the blocks of all"}
SIMULATED = {
    "fixed": MEASURED["fixed"],
    "dynamic": {"HAKMEM_L25_CHECK_MS": 1, "HAKMEM_L25_LOAD": 1},
    "contention": {"HAKMEM_L25_CHECK_MS": 1, "HAKMEM_L25_LOAD": NEVER},
}
WARM_UP_MS, MEASURED_MS = (1, 1) if QUICK else (5, 1)


def options_text(options):
    return " ".join(f"{name}={value}" for name, value in options.items()) or "no option"


def default(option):
    """The default of an option, from its definition."""
    text = (lab.ROOT / "src/base/options.def").read_text(encoding="utf-8")
    return re.search(rf"^HAK_OPTION\({option}, NUMBER, (\d+),", text, re.MULTILINE).group(1)


def span(summary, form="{:.2f}"):
    return f"{form} ({form} - {form})".format(*summary)


# ---- measured ----------------------------------------------------------------------------------------------------------


def churn(options, threads, milliseconds, mode):
    return lab.run([lab.program("l25_churn"), threads, milliseconds, mode, *SIZES, SLOTS],
                   env={"LD_PRELOAD": lab.LIBRARY, "HAKMEM_STATS": "json", "HAKMEM_LOG": 1, **options})


def stats(run):
    return json.loads(run.err.splitlines()[-1])


def log(run):
    return [line for line in run.err.splitlines() if line.startswith("[L2.5_POOL]")]


def expansions(lines, reason):
    """(from, to, figure) of each doubling that the line before says to be for this reason."""
    found = re.findall(rf"^\[L2\.5_POOL\] High {reason} detected \((?:avg=)?(\d+)%?\), expanding shards\n"
                       r"\[L2\.5_POOL\] Expanded shards: (\d+) → (\d+)$", "\n".join(lines), re.MULTILINE)
    return [(int(before), int(after), int(figure)) for figure, before, after in found]


def throughput(run):
    return lab.figure(run.out, "throughput") / 1e6


def failed_percent(run):
    """Of the try-locks: one for each request that reached a shard and for each free; each block was freed."""
    told = stats(run)
    tries = told["l25_requests"] + told["layers"]["l25"]["served_blocks"] + told["l25_lock_misses"]
    return 100 * told["l25_lock_misses"] / tries


def purged_bytes(run):
    """For each operation."""
    return stats(run)["layers"]["l25"]["purged_bytes"] / lab.figure(run.out, "operations")


def shards(run):
    return stats(run)["l25_shards"]


def metadata_kib(run):
    return stats(run)["metadata_bytes"] / 1024


def rss_mib(run):
    return run.rss_kib / 1024


def criterion(reason, lines):
    seen = [(before, after) for before, after, _ in expansions(lines, reason)]
    return lab.Criterion(f"L2.5: shards seen to expand by {reason}, 64 → 128 → 256", all(step in seen for step in EXPECTED),
                         f"log: {', '.join(f'{before} → {after}' for before, after in seen) or 'no expansion'}")


def quoted(command, run):
    return f"```\n$ {command}\n" + "\n".join(log(run) or ["(nothing)"]) + "\n```\n"


def command(options, *arguments):
    arguments = " ".join(map(str, (*arguments, *SIZES, SLOTS)))
    return f"{options_text({'HAKMEM_LOG': 1, **options})} LD_PRELOAD=libhakmem.so l25_churn {arguments}"


# ---- simulated ---------------------------------------------------------------------------------------------------------


def record(path):
    """Writes the record; returns a row of figures for each kind of times."""
    lab.status("l25: recording lock holds")
    left_out = lab.figure(lab.run([lab.program("l25_record"), path, RECORD_MILLISECONDS, *SIZES],
                                  env={"HAKMEM_L25_SHARDS_MIN": 1, "HAKMEM_L25_SHARDS_MAX": 1}).out, "interrupted")
    times = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        kind, ns = line.split("\t")
        times[kind].append(int(ns))
    rows = []
    for kind, values in times.items():
        values.sort()
        rows.append((kind, len(values), *(values[int(share * (len(values) - 1))] for share in (0.1, 0.5, 0.99)), values[-1]))
    return rows, left_out


def simulate(path):
    """(variant, cores): list of (million operations/s, failed %, shards, bytes stranded)."""
    cases = [(variant, cores, number) for number in range(SIMULATIONS) for cores in reversed(CORES) for variant in SIMULATED]

    def one(case):
        variant, cores, _ = case
        lab.status(f"l25: simulating {cores} processors, {variant}")
        out = lab.run([lab.program("sim_shards"), path, cores, WARM_UP_MS, MEASURED_MS, *SIZES], env=SIMULATED[variant]).out
        return (lab.figure(out, "throughput") / 1e6, *(lab.figure(out, name) for name in ("failed", "shards", "stranded")))

    results = defaultdict(list)
    with concurrent.futures.ThreadPoolExecutor(PROCESSORS) as pool:
        for (variant, cores, _), result in zip(cases, pool.map(one, cases)):
            results[variant, cores].append(result)
    return results


def simulation_plots(out, results):
    titles = {"fixed": "fixed, 64 shards", "dynamic": "dynamic", "contention": "dynamic, by contention alone"}
    lab.write_tsv(out / "l25_simulation.tsv",
                  ["variant", "processors", "million_operations_per_s", "failed_percent", "shards", "stranded_bytes"],
                  [(variant, cores, *result) for (variant, cores), runs in sorted(results.items()) for result in runs])

    axis = (f"set logscale x 2\nset xrange [{CORES[0] * 0.9}:{CORES[-1] * 1.1}]\nset xtics ({', '.join(map(str, CORES))})\n"
            "set xlabel 'virtual processors (simulated)'\nset yrange [0:]\nset key top left\n")
    for name, column, label in (("throughput", 0, "million operations/s"), ("failed", 1, "failed try-locks, %")):
        medians = {variant: [lab.summary([result[column] for result in results[variant, cores]]).median for cores in CORES]
                   for variant in SIMULATED}
        data = "".join(f"${variant} << EOD\n" + "".join(f"{cores} {y}\n" for cores, y in zip(CORES, medians[variant])) + "EOD\n"
                       for variant in SIMULATED)
        lines = ", ".join(f"${variant} using 1:2 with linespoints title '{titles[variant]}'" for variant in SIMULATED)
        lab.plot(out / f"l25_simulation_{name}.svg", f"{data}{axis}set ylabel '{label}'\nplot {lines}")


# ---- tables ------------------------------------------------------------------------------------------------------------


def of_all(runs, figure):
    return [figure(run) for run in runs]


def shown(runs, figure, form="{:.2f}"):
    return span(lab.summary(of_all(runs, figure)), form)


def gain(fixed, dynamic):
    return lab.ratio(dynamic, fixed)


def times(ratio):
    return "× " + span(ratio)


def compare(runs):
    """Of the measured runs: rows of the table, of the comparison and of memory, and the cases where dynamic is slower."""
    table, comparison, memory, slower = [], [], [], []
    for mode, meaning in MODES.items():
        for threads in THREADS:
            fixed, dynamic = runs[mode, threads, "fixed"], runs[mode, threads, "dynamic"]
            speed = gain(of_all(fixed, throughput), of_all(dynamic, throughput))
            failed = [lab.summary(of_all(list_, failed_percent)).median for list_ in (fixed, dynamic)]
            name = f"L2.5, {meaning}, {threads} threads"
            table.append((mode, threads, shown(fixed, throughput), shown(dynamic, throughput), times(speed),
                          shown(fixed, failed_percent), shown(dynamic, failed_percent), shown(dynamic, shards, "{:.0f}"),
                          shown(fixed, purged_bytes, "{:.0f}"), shown(dynamic, purged_bytes, "{:.0f}")))
            comparison.append((name, "million operations/s", shown(fixed, throughput), shown(dynamic, throughput), times(speed)))
            comparison.append((name, "failed try-locks, %", shown(fixed, failed_percent), shown(dynamic, failed_percent),
                               f"{failed[1] - failed[0]:+.2f} points"))
            if speed.median < 1 - SLOWER:
                slower.append(f"{mode}, {threads} threads")
        for figure, unit in ((rss_mib, "peak RSS, MiB"), (metadata_kib, "metadata of all layers, KiB")):
            ratio = gain(of_all(fixed, figure), of_all(dynamic, figure))
            memory.append((f"{name}: {unit}", shown(fixed, figure, "{:.1f}"), shown(dynamic, figure, "{:.1f}"), times(ratio)))
    return table, comparison, memory, slower


def compare_simulated(results):
    table, comparison = [], []
    for cores in CORES:
        of_variant = {variant: [lab.summary(column) for column in zip(*results[variant, cores])] for variant in SIMULATED}
        (fixed, fixed_failed, _, _), (dynamic, dynamic_failed, dynamic_shards, _), (alone, alone_failed, alone_shards, _) = (
            of_variant[variant] for variant in ("fixed", "dynamic", "contention"))
        speed = gain(*([result[0] for result in results[variant, cores]] for variant in ("fixed", "dynamic")))
        table.append((cores, f"{fixed.median:.0f}", f"{fixed_failed.median:.1f}", f"{dynamic.median:.0f}",
                      f"{dynamic_failed.median:.1f}", f"{dynamic_shards.median:.0f}", f"{alone.median:.0f}",
                      f"{alone_failed.median:.1f}", f"{alone_shards.median:.0f}", times(speed)))
        comparison.append((f"L2.5, {MODES['own']}, {cores} processors (simulated)", "million operations/s",
                           span(fixed, "{:.0f}"), span(dynamic, "{:.0f}"), times(speed)))
    return table, comparison


def memory_criterion(runs, results):
    def keeps_some(run):
        layer = stats(run)["layers"]["l25"]
        return layer["mapped_bytes"] != 0 or layer["live_blocks"] != 0

    simulated = [result for list_ in results.values() for result in list_]
    kept = sum(map(keeps_some, runs)) + sum(result[-1] != 0 for result in simulated)
    most = max(max(map(shards, runs)), max(result[2] for result in simulated))
    return lab.Criterion("L2.5: no memory is stranded by an expansion", kept == 0,
                         f"{kept} of {len(runs)} measured and {len(simulated)} simulated runs, with up to {most:.0f} shards, "
                         "held a block or a chunk after all was freed")


# ---- the section -------------------------------------------------------------------------------------------------------


def section(out):
    lab.status("l25: expansion by load")
    by_load = churn({}, 2, LOAD_MILLISECONDS, "own")
    lab.status("l25: expansion by contention")
    by_contention = churn(CONTENTION, CROWD, CONTENTION_MILLISECONDS, "shared")
    runs = lab.interleave({(mode, threads, variant): lambda arguments=(options, threads, MILLISECONDS, mode): churn(*arguments)
                           for mode in MODES for threads in THREADS for variant, options in MEASURED.items()}, ROUNDS, "l25")
    path = out / "l25_record.tsv"
    holds, left_out = record(path)
    results = simulate(path)
    simulation_plots(out, results)
    lab.write_tsv(out / "l25_throughput.tsv",
                  ["blocks", "threads", "variant", "million_operations_per_s", "failed_percent", "shards",
                   "purged_bytes_per_operation", "peak_rss_mib", "metadata_kib"],
                  [(*case, *(figure(run) for figure in (throughput, failed_percent, shards, purged_bytes, rss_mib, metadata_kib)))
                   for case, list_ in runs.items() for run in list_])

    table, comparison, memory, slower = compare(runs)
    simulated, simulated_comparison = compare_simulated(results)
    for name, run in (("load", by_load), ("contention", by_contention)):
        (out / f"l25_by_{name}.log").write_text("".join(f"{line}\n" for line in log(run)), encoding="utf-8")
    shares = ", ".join(f"{share} %" for _, _, share in expansions(log(by_contention), "contention"))
    cores, _, fixed_failed, _, dynamic_failed, dynamic_shards, *_, dynamic_gain = simulated[-1]
    text = f"""Blocks of {SIZES[0]} to {SIZES[1]} bytes: one slice of the pool each. One operation is one `malloc`, a byte written at each end,
and one `free` (`bench/l25_churn.c`), with {SLOTS} live for each thread. *Fixed*: `{options_text(MEASURED["fixed"])}`, the same build.

### Expansion by load

Measured, two threads, with the options at their defaults: more than {default("L25_LOAD")} requests per shard in {default("L25_CHECK_MS")} ms.

{quoted(command({}, 2, LOAD_MILLISECONDS, "own"), by_load)}
### Expansion by contention

Measured. Load does not count here; the threshold is the default: more than {default("L25_CONTENTION")} % of an interval's try-locks fail. Few
threads that run at once seldom meet at one of 64 shards while each frees its own blocks. Here {CROWD} threads on {PROCESSORS} processors
free each other's: a run goes back to the shard of its chunk, and there they meet.

{quoted(command(CONTENTION, CROWD, CONTENTION_MILLISECONDS, "shared"), by_contention)}
The shares that failed when it doubled: {shares or "none"}. Over the whole run {failed_percent(by_contention):.1f} % failed; at its end there were
{shards(by_contention)} shards.

### Fixed against dynamic

Measured on {PROCESSORS} processors, which bound what can be gained: median of {ROUNDS} interleaved rounds of {MILLISECONDS} ms, with the lowest and
highest. *own*: {MODES["own"]}; *shared*: {MODES["shared"]}. *Dynamic*: `{options_text(MEASURED["dynamic"])}`,
the default load per shard and time, looked at oftener because the runs are short. *Purged*: bytes per operation given back
to the system because free memory was over its budget, which costs a system call and page faults.

{lab.markdown_table(["blocks", "threads", "fixed, million/s", "dynamic, million/s", "gain", "fixed, failed %",
                     "dynamic, failed %", "shards", "fixed, purged", "dynamic, purged"], table)}
{f"More than {SLOWER:.0%} slower than fixed: " + "; ".join(slower) if slower else f"Nowhere is dynamic more than {SLOWER:.0%} slower"}.

### More processors: a simulation

**Simulated, not measured.** `bench/sim_shards.c` runs the library's own object files, not a copy of the policy, on
virtual processors: fibers with a clock each, in the order of virtual time. Only durations are put in: those of a real run,
recorded on this machine and replayed in their order. `bench/l25_record.c` links the same object files, puts itself between
the pool and its locks and system calls, and times them by the processor's counter: one thread alone; two threads at one
shard with pauses, so that lock and data come from the other processor; and two without, for failures and waits. Times over
20 µs, of a thread that was interrupted, are left out: {left_out:.0f}.

{lab.markdown_table(["kind", "times", "10th percentile, ns", "median, ns", "99th, ns", "longest, ns"], holds)}
`own` and `moved`: the lock is held by who held it last, or by another. `rest`: all else of a `malloc` or `free` and of the
program. Not simulated: other locks, memory bandwidth, the kernel's locks, page faults, and threads that lose their
processor. One thread per processor, which frees its own blocks; {MEASURED_MS} ms of virtual time after {WARM_UP_MS} ms in which the table could grow
(`{options_text(SIMULATED["dynamic"])}`: the default load per shard and time). Median of {SIMULATIONS}.

{lab.markdown_table(["processors", "fixed, million/s", "failed %", "dynamic, million/s", "failed %", "shards",
                     "by contention alone, million/s", "failed %", "shards", "dynamic to fixed"], simulated)}
On {cores} processors {fixed_failed} % of the try-locks fail with 64 shards and {dynamic_failed} % with {dynamic_shards}, at {dynamic_gain} the throughput.

![throughput]({out.name}/l25_simulation_throughput.svg)

![failed try-locks]({out.name}/l25_simulation_failed.svg)

Raw figures: [l25_throughput.tsv]({out.name}/l25_throughput.tsv), [l25_simulation.tsv]({out.name}/l25_simulation.tsv), the record
[l25_record.tsv]({out.name}/l25_record.tsv).
"""
    measured = [by_load, by_contention, *(run for list_ in runs.values() for run in list_)]
    return lab.Section(text, comparison + simulated_comparison, memory,
                       [criterion("load", log(by_load)), criterion("contention", log(by_contention)),
                        memory_criterion(measured, results)])
