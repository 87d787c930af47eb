"""The charts of the results, drawn by gnuplot as SVG and PNG. Their names are those of the tables (bench/tables.py)."""

import allocators
import figures
import lab

COLOURS = ["#d62728", "#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#17becf", "#bcbd22", "#e377c2", "#7f7f7f"]
POINTS = [7, 5, 9, 11, 13, 4, 6, 8, 10, 12]
# The growth curves whose points are no doublings.
LINEAR = ["growth-remote"]


def look(results, name):
    """Colour and shape of an allocator, the same in all charts; hakmem has the first."""
    names = results.names()
    order = sorted(names, key=lambda other: (not allocators.is_ours(other), names.index(other)))
    number = order.index(name) % len(COLOURS)
    return f"lc rgb '{COLOURS[number]}' pt {POINTS[number]}"


class Chart:
    """Settings for gnuplot and one series per allocator, drawn as NAME.svg and NAME.png."""

    def __init__(self, results, name, title, *settings):
        self.path = results.directory / name
        self.settings = [f"set title '{title}'", *settings]
        self.data, self.plots = [], []

    def add(self, points, style):
        """`points`: rows of numbers, or of numbers and a text"""
        def text(item):
            return f'"{item}"' if isinstance(item, str) else f"{item:.6g}"

        lines = "\n".join(" ".join(map(text, point)) for point in points)
        self.data.append(f"$data{len(self.data)} << EOD\n{lines}\nEOD")
        self.plots.append(f"$data{len(self.data) - 1} using {style}")

    def draw(self, size=(900, 480)):
        script = "\n".join([*self.data, *self.settings, "set bars 0.3", "plot " + ", ".join(self.plots)])
        for suffix in (".svg", ".png"):
            lab.plot(self.path.with_suffix(suffix), script, size)


def draw_ratios(results, name, title, entries, field):
    """A line per workload, and there the ratio of each allocator to the C library, with lowest and highest."""
    if not entries:
        return
    labels = ", ".join(f"'{entry.label}' {-line}" for line, entry in enumerate(entries))
    chart = Chart(results, name, f"{title}, C library = 1", f"set ytics ({labels})", f"set yrange [{0.4 - len(entries)}:0.6]",
                  "set logscale x 2", "set arrow from 1, graph 0 to 1, graph 1 nohead lw 2",
                  "set key outside top center horizontal")
    names = figures.rated(results.names(entries))
    for number, other in enumerate(names):
        shift = (number + 0.5) / len(names) * 0.6 - 0.3
        ratios = [(getattr(entry.cells[other], field), -line - shift)
                  for line, entry in enumerate(entries) if other in entry.cells]
        chart.add([(ratio.median, at, ratio.low, ratio.high) for ratio, at in ratios],
                  f"1:2:3:4 with xerrorbars {look(results, other)} ps 0.7 title '{other}'")
    chart.draw((900, 140 + 28 * len(entries)))


def draw_overview(results):
    """Time and peak RSS in one picture: a point per allocator."""
    entries = results.compared()
    if not entries:
        return
    chart = Chart(results, "overview", "Geometric means of all workloads: left and below is better",
                  "set xlabel 'peak RSS, C library = 1'", "set ylabel 'time, C library = 1'",
                  "set offsets graph 0.05, 0.2, 0.1, 0.1")
    for name in [name for name in results.names(entries) if name != allocators.FLOOR]:
        point = [figures.geometric_mean(entries, name, field) for field in ("rss_to_libc", "cost_to_libc")]
        chart.add([[*point, name]], f"1:2 with points {look(results, name)} ps 1.5 notitle")
        chart.plots.append(f"$data{len(chart.data) - 1} using 1:2:3 with labels left offset 1.2,0 notitle")
    chart.draw((700, 420))


def draw_curve(results, name, title):
    points = results.curve(name)
    if not points:
        return
    settings = []
    if name not in LINEAR:
        first, *_, last = points
        settings = ["set logscale x 2", f"set xtics ({', '.join(points)})", f"set xrange [{first} * 0.9:{last} * 1.1]"]
    chart = Chart(results, name, title, "set ylabel 'ns'", "set yrange [0:*]", "set key outside right", *settings)
    for other in results.names(points.values()):
        costs = [(float(point), *entry.cells[other].cost) for point, entry in points.items() if other in entry.cells]
        chart.add(costs, f"1:2:3:4 with yerrorlines {look(results, other)} ps 0.7 title '{other}'")
    chart.draw()


def write(results):
    for group in figures.COMPARED:
        draw_ratios(results, f"time-{group}", f"{figures.GROUPS[group]}: time", results.of(group), "cost_to_libc")
        draw_ratios(results, f"rss-{group}", f"{figures.GROUPS[group]}: peak RSS", results.of(group), "rss_to_libc")
    draw_ratios(results, "latency", figures.GROUPS["latency"], results.of("latency"), "cost_to_libc")
    draw_overview(results)
    for name, title in figures.CURVES.items():
        draw_curve(results, name, title)
