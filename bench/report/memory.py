"""The memory chapter: what each layer holds for what a mixed workload over all sizes asked of it."""

import os
from pathlib import Path

import lab

QUICK = bool(os.environ.get("LAB_QUICK"))
ROUNDS = 1 if QUICK else 5
OPERATIONS = 2_000 if QUICK else 20_000
SEED = 12345
THREADS = 4
COMMAND = [lab.program("layers"), OPERATIONS, SEED, THREADS]
LAYERS = {"tiny": "Tiny", "mid": "Mid", "l25": "L2.5 pool", "big": "BigCache"}
LIBRARY = {"LD_PRELOAD": str(lab.LIBRARY)}
# The old fixed sizes: the same code with its limits set equal.
FIXED = {"HAKMEM_TLS_SLOTS_MIN": "256", "HAKMEM_TLS_SLOTS_MAX": "256", "HAKMEM_PREWARM": "0",
         "HAKMEM_L25_SHARDS_MAX": "64", "HAKMEM_BIGCACHE_BUCKETS_MAX": "256", "HAKMEM_BIGCACHE_CHAIN_MAX": "8"}


def mib(count):
    return f"{count / 2**20:.2f}"


def share(part, whole):
    return f"{100 * part / whole:+.1f} %" if whole else "-"


def span(figures):
    return f"{mib(figures.median)} MiB ({mib(figures.low)} to {mib(figures.high)})"


def section(out):
    out = Path(out)
    cases = {
        "dynamic": lambda: lab.run(COMMAND, env={"HAKMEM_STATS": "json", **LIBRARY}),
        "fixed": lambda: lab.run(COMMAND, env={"HAKMEM_STATS": "json", **FIXED, **LIBRARY}),
        "system": lambda: lab.run(COMMAND),
    }
    runs = lab.interleave(cases, ROUNDS, tell="memory of each layer")
    resident = {name: [lab.figure(run.out, "resident") for run in runs[name]] for name in cases}

    # The threads' operations follow from the seed, so what was requested is the same in every run. Of what the layers
    # hold, the account shown is that of the run in the middle by what is mapped.
    def mapped_of(run):
        return sum(layer["mapped_bytes"] for layer in lab.account(run)["layers"].values())

    run = sorted(runs["dynamic"], key=mapped_of)[len(runs["dynamic"]) // 2]
    account = lab.account(run)
    rows, raw = [], []
    for layer, name in LAYERS.items():
        held = account["layers"][layer]
        requested, usable = (int(lab.figure(run.out, f"{layer} {what}")) for what in ("requested", "usable"))
        # The account splits live and cached as of each bin's last visit; their sum is exact.
        cached = held["live_bytes"] + held["cached_bytes"] - usable
        raw.append([layer, requested, usable, cached, held["mapped_bytes"]])
        mapped = mib(held["mapped_bytes"])
        if layer == "tiny":
            mapped += ", with Mid"
        elif layer == "mid":
            mapped = "in Tiny's"  # they share superslabs, and Tiny's account has them all
        rows.append([name, mib(requested), mib(usable), share(usable - requested, requested), mib(cached), mapped])
    requested, usable, cached, mapped = (sum(row[column] for row in raw) for column in range(1, 5))
    metadata = account["metadata_bytes"]
    raw.append(["metadata", 0, 0, 0, metadata])
    rows += [["metadata", "", "", "", "", mib(metadata)],
             ["all", mib(requested), mib(usable), share(usable - requested, requested), mib(cached),
              mib(mapped + metadata)]]
    lab.write_tsv(out / "memory-layers.tsv",
                  ["layer", "requested_bytes", "usable_bytes", "cached_bytes", "mapped_bytes"], raw)
    lab.write_tsv(out / "memory-resident.tsv", ["case", "round", "resident_bytes"],
                  [(name, number + 1, int(value)) for name in cases for number, value in enumerate(resident[name])])

    table = lab.markdown_table(["layer", "requested, MiB", "usable, MiB", "rounding", "cached, MiB", "mapped, MiB"], rows)
    middle = {name: lab.summary(values) for name, values in resident.items()}
    text = f"""A mixed workload (`layers {OPERATIONS} {SEED} {THREADS}`): each of {THREADS} threads replaces and drops random blocks
of all four layers' sizes; the account is taken at the end, when the blocks live and the threads, too. *Usable* is what the
blocks are rounded up to; *cached* is what else has left the slabs or is a mapping kept: in the threads' bins, in BigCache,
and the few blocks of the C library; *mapped* is address space, of which free parts may have been given back.

{table}
Metadata is {100 * metadata / requested:.2f} % of what is requested. Resident at the end, median of {ROUNDS}
with lowest and highest: hakmem {span(middle['dynamic'])}, with its sizes fixed
{span(middle['fixed'])}, the C library {span(middle['system'])}.
"""
    memory = [("mixed over all layers, resident at the end", span(middle["fixed"]), span(middle["dynamic"]),
               share(middle["dynamic"].median - middle["fixed"].median, middle["fixed"].median))]
    return lab.Section(text, [], memory, [])

