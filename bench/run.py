#!/usr/bin/env python3
"""Compares allocators: runs the workloads on each of them, preloaded under the same programs, in interleaved rounds.

Writes raw and summed-up figures (TSV), tables (Markdown) and charts (SVG, PNG) into a directory. `make bench` calls it:
make bench BENCH=larson,single ALLOC=hakmem,/path/other.so ROUNDS=9
"""

import argparse
import os
import platform
import signal
import sys
from pathlib import Path

import allocators
import lab
import performance
import workloads

QUICK = os.environ.get("LAB_QUICK") == "1"
ROUNDS = 1 if QUICK else 5
# What hangs is ended: the first run after this many seconds, later ones when they take so many times longer.
LIMIT_SECONDS = 900
LIMIT_TIMES = 50
# What needs memory wants so many times more to be available.
MEMORY_SPARE = 1.5

RAW = ["workload", "group", "metric", "unit", "allocator", "round", "value", "wall", "cpu", "rss_kib", "operations",
       "disturbed"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", default="", metavar="NAME,...",
                        help="workloads by name, group (single, threads, latency, real, growth) or beginning of the "
                             "name, or all; otherwise all but growth")
    parser.add_argument("--alloc", default="", metavar="NAME,...",
                        help=f"of {', '.join(allocators.USUAL)}, of BENCH_PEERS, and paths or NAME=PATH of other libraries; "
                             "otherwise all but those; the C library always takes part")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"otherwise {ROUNDS}")
    parser.add_argument("--out", type=Path, default=lab.ROOT / "build/bench", metavar="DIRECTORY", help="otherwise build/bench")
    parser.add_argument("--add", action="store_true", help="keep what the directory has of other workloads")
    parser.add_argument("--list", action="store_true", help="list the workloads that are chosen")
    parser.epilog = ("environment: BENCH_PEERS=PATH:NAME=PATH:... adds allocators to the usual ones; LAB_QUICK=1 makes every "
                     "length small, for tests")
    chosen = parser.parse_args()
    if chosen.rounds < 1:
        parser.error("--rounds is 1 or more")
    return chosen


class Campaign:
    """Every chosen workload on every chosen allocator, in rounds; before these a run of each real program, unmeasured, to see
    that it is on its allocator."""

    def __init__(self, chosen, compared, rounds, out, kept=()):
        self.workloads, self.allocators, self.rounds, self.out = chosen, compared, rounds, out
        self.failures = {}  # (title, allocator): why
        self.rows = list(kept)
        self.time_left = lab.TimeLeft({(w.title, a.name): rounds + (w.group == "real") for w in chosen for a in compared})
        self.limits, self.said = {}, {}  # by title

    def once(self, workload, allocator, more=None):
        """One run. What a real program says has to be what it said in its first run, on the C library."""
        env = {**workloads.ENVIRONMENT, **allocators.preloaded(allocator), **(more or {})}
        if QUICK:
            env["BENCH_QUICK"] = "1"
        run = lab.run(workloads.command(workload), env, cwd=lab.ROOT, limit=self.limits.get(workload.title, LIMIT_SECONDS))
        self.limits.setdefault(workload.title, int(60 + LIMIT_TIMES * run.wall))
        self.time_left.end((workload.title, allocator.name), run.wall)
        said = lab.without_figures(run.out) if workload.group == "real" else ""
        if said != self.said.setdefault(workload.title, said):
            raise lab.Failed("its output differs from that on the C library")
        for metric in workload.metrics:
            workloads.cost(metric, run)  # fails if it is not there
        return run

    def tell(self, index, name, text):
        """The status line, before a run."""
        title = self.workloads[index].title
        self.time_left.begin((title, name))
        lab.status(f"[{index + 1}/{len(self.workloads)}] {title}: {text}; {self.time_left}")

    def fail(self, workload, allocator, why):
        """Without the C library there is nothing to compare with."""
        if allocator.name == allocators.BASE:
            raise lab.Refused(f"{workload.title} fails on the C library: {why}")
        self.failures[workload.title, allocator.name] = str(why)
        self.time_left.cancel((workload.title, allocator.name))

    def left_out(self, workload, allocator):
        """Whether it failed, needs more memory than there is, or would be without meaning."""
        if (workload.title, allocator.name) in self.failures:
            return True
        needed = 0
        if workload.name == "growth-heap":
            needed = int(workload.command[-1]) << 20
        if allocator.name == allocators.FLOOR:
            needed = allocators.FLOOR_BYTES
        meaningless = allocator.name == allocators.FLOOR and workload.group in ("latency", "growth")
        return meaningless or needed * MEMORY_SPARE > available_bytes()

    # ---- the first run -------------------------------------------------------------------------------------------------

    def check(self, workload, allocator):
        bindings = allocators.Bindings()
        self.once(workload, allocator, bindings.env)
        bindings.verify(workload.title, allocator)

    def check_all(self):
        for index, workload in enumerate(self.workloads):
            for allocator in self.allocators if workload.group == "real" else ():
                if self.left_out(workload, allocator):
                    self.time_left.cancel((workload.title, allocator.name))
                    continue
                self.tell(index, allocator.name, f"trying {allocator.name}")
                try:
                    self.check(workload, allocator)
                except lab.Failed as failed:
                    self.fail(workload, allocator, failed)

    # ---- the rounds ----------------------------------------------------------------------------------------------------

    def measure(self, index, workload):
        """The rounds of one workload; an allocator on which a run fails is left out from the beginning."""
        running = {allocator.name: allocator for allocator in self.allocators if not self.left_out(workload, allocator)}
        current = None

        def tell(number, name):
            nonlocal current
            current = running[name]
            self.tell(index, name, f"round {number} of {self.rounds}, {name}")

        while True:
            try:
                cases = {name: lambda name=name: self.once(workload, running[name]) for name in running}
                return lab.interleave(cases, self.rounds, tell)
            except lab.Failed as failed:
                self.fail(workload, current, failed)
                del running[current.name]

    def record(self, workload, results):
        for name, runs in results.items():
            for number, run in enumerate(runs):
                operations = f"{lab.figure(run.out, 'operations'):.0f}" if "operations: " in run.out else ""
                for metric in workload.metrics:
                    value, unit = workloads.cost(metric, run)
                    self.rows.append([workload.title, workload.group, metric, unit, name, number + 1, f"{value:.6g}",
                                      f"{run.wall:.4f}", f"{run.cpu:.4f}", run.rss_kib, operations, int(run.disturbed)])
        lab.write_tsv(self.out / "raw.tsv", RAW, self.rows)

    def measure_all(self):
        for index, workload in enumerate(self.workloads):
            self.record(workload, self.measure(index, workload))


def rows_of_others(out, chosen):
    """What raw.tsv has of workloads that are not chosen."""
    if not (out / "raw.tsv").exists():
        return []
    titles = {workload.title for workload in chosen}
    return [list(row.values()) for row in lab.read_tsv(out / "raw.tsv") if row["workload"] not in titles]


# ---- where it was measured ---------------------------------------------------------------------------------------------


def available_bytes():
    found = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    return int(found["MemAvailable"].split()[0]) * 1024


def versions(out, compared, kept):
    """The version of each allocator: of those that only rows of an earlier run tell of, as that run found it."""
    found = {row["what"]: row["text"] for row in lab.read_tsv(out / "about.tsv")} if kept else {}
    names = {row[RAW.index("allocator")] for row in kept}
    earlier = {name: text for name, text in found.items() if name in names}
    return earlier | {allocator.name: allocators.version(allocator) for allocator in compared}


def write_about(out, versions_by_name, rounds):
    """The machine, and what is compared."""
    processor = next((line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
                      if line.startswith("model name")), platform.machine())
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    rows = [["processor", f"{processor}, {os.cpu_count()} in use"], ["memory", f"{total / (1 << 30):.0f} GiB"],
            ["system", f"Linux {platform.release()}"], ["rounds", rounds]]
    rows += [list(row) for row in versions_by_name.items()]
    lab.write_tsv(out / "about.tsv", ["what", "text"], rows)


def main():
    asked = arguments()
    chosen = workloads.choose(asked.bench)
    if asked.list:
        for workload in chosen:
            print(f"{workload.title:<24} {workload.group:<8} {','.join(workload.metrics)}")
        return 0
    compared = allocators.choose(asked.alloc, os.environ.get("BENCH_PEERS", ""))
    workloads.prepare(chosen)
    for allocator in compared:
        allocators.verify(allocator)
    if QUICK:
        lab.REPEATS_MAX = 0
    asked.out.mkdir(parents=True, exist_ok=True)
    kept = rows_of_others(asked.out, chosen) if asked.add else []
    rounds = sorted({asked.rounds, *{row[0]: int(row[RAW.index("round")]) for row in kept}.values()})
    write_about(asked.out, versions(asked.out, compared, kept),
                f"{rounds[0]} to {rounds[-1]}" if len(rounds) > 1 else rounds[0])
    campaign = Campaign(chosen, compared, asked.rounds, asked.out, kept)
    campaign.check_all()
    campaign.measure_all()
    lab.status(f"{len(chosen)} workloads on {len(compared)} allocators: {asked.out}", last=True)
    performance.derive(asked.out)
    failures = {key: why for key, why in campaign.failures.items() if key[1] != allocators.FLOOR}
    for (title, name), why in failures.items():
        print(f"bench: {title} fails on {name}: {why}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    # Also what is ended from outside ends what it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.exit(main())
    except lab.Refused as refused:
        sys.exit(f"bench: {refused}")
    except KeyboardInterrupt:
        sys.exit(130)
