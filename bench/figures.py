"""What the raw figures of bench/run.py come to: medians, ratios to the C library and to the best peer, their means."""

from collections import namedtuple

import allocators
import lab

# The groups of workloads; over those of COMPARED ratios are averaged.
COMPARED = ["single", "threads", "real"]
GROUPS = {"single": "One thread", "threads": "Several threads", "real": "Real programs",
          "latency": "Latency of single calls"}
# The workloads of the group growth, by what grows.
CURVES = {
    "growth-heap": "Cost of an operation as the live heap grows, MiB",
    "growth-threads": "Cost of an operation as there are more threads",
    "growth-classes": "Cost of an operation as more sizes are in use",
    "growth-remote": "Cost of an operation as the other thread frees more of the blocks, %",
}

# A metric of a workload. `cells`: allocator: Cell. `operations` are those of one run, 0 where the program tells none.
Entry = namedtuple("Entry", "title metric label group unit operations cells")
# One allocator there: summaries of cost and peak RSS, and of their ratios to the C library and to the best peer.
Cell = namedtuple("Cell", "cost cost_to_libc cost_to_best rss rss_to_libc rss_to_best disturbed")


def _series(rows, name):
    """allocator: its figures called `name`, in the order of the rounds"""
    series = {}
    for row in rows:
        series.setdefault(row["allocator"], []).append(float(row[name]))
    return series


def _with_ratios(series):
    """allocator: its summary, and those of its ratios to the C library and to the best peer"""
    peers = [name for name in series if allocators.is_peer(name)]
    best = min(peers, key=lambda name: lab.summary(series[name]).median, default=None)
    return {name: (lab.summary(values), lab.ratio(values, series[allocators.BASE]), best and lab.ratio(values, series[best]))
            for name, values in series.items()}


def _entry(title, metric, rows, alone):
    costs, sizes, disturbed = (_series(rows, name) for name in ("value", "rss_kib", "disturbed"))
    costs, sizes = _with_ratios(costs), _with_ratios(sizes)
    cells = {name: Cell(*costs[name], *sizes[name], int(sum(disturbed[name]))) for name in costs}
    first = rows[0]
    return Entry(title, metric, title if alone else f"{title} {metric}", first["group"], first["unit"],
                 int(first["operations"] or 0), cells)


class Results:
    """What is in a directory that bench/run.py wrote: an Entry for each metric of each workload."""

    def __init__(self, directory):
        self.directory = directory
        self.about = {row["what"]: row["text"] for row in lab.read_tsv(directory / "about.tsv")}
        rows = lab.read_tsv(directory / "raw.tsv")
        runs = {(row["workload"], row["allocator"], row["round"]): int(row["disturbed"]) for row in rows}
        self.about["runs that remained disturbed"] = f"{sum(runs.values())} of {len(runs)}"
        grouped = {}
        for row in rows:
            grouped.setdefault(row["workload"], {}).setdefault(row["metric"], []).append(row)
        self.entries = [_entry(title, metric, rows, len(metrics) == 1)
                        for title, metrics in grouped.items() for metric, rows in metrics.items()]

    def of(self, *groups):
        return [entry for entry in self.entries if entry.group in groups]

    def compared(self):
        return self.of(*COMPARED)

    def curve(self, name):
        """The points of a growth curve: point: Entry"""
        return {entry.title.partition("@")[2]: entry for entry in self.entries if entry.title.startswith(f"{name}@")}

    def names(self, entries=None):
        """The allocators of these entries, or of all, in the order in which they were given."""
        found = {name for entry in (self.entries if entries is None else entries) for name in entry.cells}
        return [name for name in self.about if name in found]


def rated(names):
    """Those of which ratios are told."""
    return [name for name in names if name not in (allocators.BASE, allocators.FLOOR)]


def ours(names):
    return [name for name in names if allocators.is_ours(name)]


def best_peer(entry, field):
    """The peer with the lowest median of `field`: cost or rss; None where there is no peer."""
    medians = {name: getattr(cell, field).median for name, cell in entry.cells.items() if allocators.is_peer(name)}
    return min(medians, key=medians.get, default=None)


def medians(entries, name, field):
    """label: the median of a field of this allocator, where it has one"""
    summaries = {entry.label: getattr(entry.cells[name], field) for entry in entries if name in entry.cells}
    return {label: summary.median for label, summary in summaries.items() if summary is not None}


def geometric_mean(entries, name, field):
    """Of the medians; None where there are none."""
    found = medians(entries, name, field)
    return lab.geometric_mean(found.values()) if found else None


def ns_per_operation(entry, name):
    """Nanoseconds of an operation on this allocator; None where that is not known."""
    if name not in entry.cells or entry.unit == "s" and not entry.operations:
        return None
    cost = entry.cells[name].cost.median
    return cost * 1e9 / entry.operations if entry.unit == "s" else cost


def over_floor(entry, name):
    """The same, as far as it is above that on the floor."""
    own, floor = ns_per_operation(entry, name), ns_per_operation(entry, allocators.FLOOR)
    return None if own is None or floor is None else own - floor


SUMMARY = ["workload", "metric", "group", "unit", "operations", "allocator", "disturbed", "ns_over_floor",
           "cost", "cost_low", "cost_high", "cost_to_libc", "cost_to_libc_low", "cost_to_libc_high",
           "cost_to_best", "cost_to_best_low", "cost_to_best_high", "cost_best_peer",
           "rss_kib", "rss_kib_low", "rss_kib_high", "rss_to_libc", "rss_to_libc_low", "rss_to_libc_high",
           "rss_to_best", "rss_to_best_low", "rss_to_best_high", "rss_best_peer"]


def write_summary(results):
    """summary.tsv: a line for each allocator of each entry."""
    def text(figure):
        return "" if figure is None else f"{figure:.5g}"

    rows = []
    for entry in results.entries:
        for name, cell in entry.cells.items():
            row = [entry.title, entry.metric, entry.group, entry.unit, entry.operations, name, cell.disturbed,
                   text(over_floor(entry, name))]
            for field in ("cost", "rss"):
                for summary in (getattr(cell, field + suffix) for suffix in ("", "_to_libc", "_to_best")):
                    row += map(text, summary or (None, None, None))
                row.append(best_peer(entry, field) or "")
            rows.append(row)
    lab.write_tsv(results.directory / "summary.tsv", SUMMARY, rows)
