"""The tables of the results, in Markdown. Each has a name, by which bench/performance.py puts it into documents."""

import math

import allocators
import figures
import lab

UNITS = {
    "s": [(1, "s"), (1e-3, "ms"), (1e-6, "µs")],
    "ns": [(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1, "ns")],
    "KiB": [(1 << 20, "GiB"), (1 << 10, "MiB"), (1, "KiB")],
}
# What the best may be below the floor, as a share of it: by chance.
FLOOR_TOLERANCE = 0.1


# ---- cells -------------------------------------------------------------------------------------------------------------


def quantity(value, unit):
    """Three digits and a unit of fitting size."""
    units = UNITS.get(unit, [(1, unit)])
    size, name = next((pair for pair in units if abs(value) >= pair[0]), units[-1])
    value /= size
    before = math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{max(0, 2 - before)}f} {name}".rstrip()


def mean(entries, name, field):
    found = figures.geometric_mean(entries, name, field)
    return "" if found is None else f"{found:.2f}"


def spread(summary, digits=2):
    return "" if summary is None else "{:.{d}f} ({:.{d}f}-{:.{d}f})".format(*summary, d=digits)


def each(entry, names, text):
    """text(cell) for each allocator, a word where it could not run."""
    return [text(entry.cells[name]) if name in entry.cells else "failed" for name in names]


# ---- tables ------------------------------------------------------------------------------------------------------------


def ratio_table(results, group, field):
    """A line per workload: the C library's cost (or rss), everybody's ratio to it, and ours to the best peer."""
    entries, to_libc, to_best = results.of(group), f"{field}_to_libc", f"{field}_to_best"
    names = figures.rated(results.names(entries))
    mine = figures.ours(names)
    rows = []
    for entry in entries:
        base = getattr(entry.cells[allocators.BASE], field).median
        best = figures.best_peer(entry, field) or ""
        rows.append([entry.label, quantity(base, "KiB" if field == "rss" else entry.unit),
                     *each(entry, names, lambda cell: spread(getattr(cell, to_libc))),
                     *each(entry, mine, lambda cell, best=best: f"{spread(getattr(cell, to_best))} {best}")])
    means = [mean(entries, name, to_libc) for name in names] + [mean(entries, name, to_best) for name in mine]
    rows.append(["**geometric mean**", "", *means])
    return lab.markdown_table(["", "C library", *names, *(f"{name} / best peer" for name in mine)], rows) if entries else ""


def means_table(results):
    """A line per allocator: the geometric means of all ratios."""
    entries = results.compared()
    groups = [group for group in figures.COMPARED if results.of(group)]
    fields = {"cost_to_libc": "time", "cost_to_best": "time / best peer",
              "rss_to_libc": "peak RSS", "rss_to_best": "peak RSS / best peer"}
    rows = [[name, *(mean(results.of(group), name, "cost_to_libc") for group in groups),
             *(mean(entries, name, field) for field in fields)] for name in figures.rated(results.names(entries))]
    return lab.markdown_table(["", *(f"time, {group}" for group in groups), *fields.values()], rows) if entries else ""


def overview_table(results):
    """The shortest: time and peak RSS, the C library's being 1."""
    entries = results.compared()
    rows = [[name, mean(entries, name, "cost_to_libc"), mean(entries, name, "rss_to_libc")]
            for name in results.names(entries) if name != allocators.FLOOR]
    return lab.markdown_table(["", "time", "peak RSS"], rows) if entries else ""


def floor_table(results):
    """Without the workloads in which another allocator is clearly below the floor, by saving fresh memory."""
    entries = [entry for entry in results.compared() if figures.ns_per_operation(entry, allocators.FLOOR) is not None]
    names = [name for name in results.names(entries) if name != allocators.FLOOR]
    rows = []
    for entry in entries:
        floor = figures.ns_per_operation(entry, allocators.FLOOR)
        over = [figures.over_floor(entry, name) for name in names]
        if min(ns for ns in over if ns is not None) >= -FLOOR_TOLERANCE * floor:
            rows.append([entry.label, quantity(floor, "ns"), *("failed" if ns is None else quantity(ns, "ns") for ns in over)])
    return lab.markdown_table(["per operation", "floor", *(f"{name} over it" for name in names)], rows) if rows else ""


def latency_table(results):
    entries = results.of("latency")
    names = results.names(entries)
    rows = [[entry.label, *each(entry, names, lambda cell, unit=entry.unit: quantity(cell.cost.median, unit))]
            for entry in entries]
    return lab.markdown_table(["", *names], rows) if entries else ""


def curve_table(results, name):
    points = results.curve(name)
    names = results.names(points.values())
    rows = [[point, *each(entry, names, lambda cell: spread(cell.cost, 1))] for point, entry in points.items()]
    return lab.markdown_table(["ns", *names], rows) if points else ""


def about_table(results):
    return lab.markdown_table(["", ""], results.about.items())


# What hakmem is to reach: (what, field, the most that the geometric mean, and that each workload may be).
GOALS = [
    ("time / C library", "cost_to_libc", 0.50, 1.00),
    ("time / best peer", "cost_to_best", 1.00, 1.10),
    ("peak RSS / C library", "rss_to_libc", 1.08, None),
    ("peak RSS / best peer", "rss_to_best", None, 1.25),
]


def goals_table(results):
    rows = []
    for what, field, mean_most, each_most in GOALS:
        found = figures.medians(results.compared(), "hakmem", field)
        if not found:
            continue
        if mean_most:
            measured = lab.geometric_mean(found.values())
            rows.append([f"{what}, geometric mean", f"{mean_most:.2f}", f"{measured:.3f}",
                         "yes" if measured <= mean_most else "**no**"])
        if each_most:
            worst = max(found, key=found.get)
            above = [label for label, ratio in found.items() if ratio > each_most]
            rows.append([f"{what}, each workload", f"{each_most:.2f}", f"{found[worst]:.2f} ({worst})",
                         f"**no**: {', '.join(above)}" if above else "yes"])
    return lab.markdown_table(["hakmem", "at most", "measured", "reached"], rows) if rows else ""


# name: (title, function)
TABLES = {
    "about": ("Where it was measured", about_table),
    "overview": ("Geometric means, the C library being 1", overview_table),
    "goals": ("Goals", goals_table),
    "means": ("Geometric means of the ratios to the C library", means_table),
}
for _kind, _field, _what in (("time", "cost", "Time"), ("rss", "rss", "Peak RSS")):
    for _group in figures.COMPARED:
        TABLES[f"{_kind}-{_group}"] = (f"{_what}: {figures.GROUPS[_group]}",
                                       lambda results, group=_group, field=_field: ratio_table(results, group, field))
TABLES["floor"] = ("Time over the floor", floor_table)
TABLES["latency"] = (figures.GROUPS["latency"], latency_table)
for _name, _title in figures.CURVES.items():
    TABLES[_name] = (_title, lambda results, name=_name: curve_table(results, name))


def write(results):
    """tables.md: all tables that have something to show."""
    with open(results.directory / "tables.md", "w", encoding="utf-8") as file:
        for title, make in TABLES.values():
            table = make(results)
            if table:
                print(f"## {title}\n\n{table}", file=file)
