"""What all measurements here share: running programs, interleaved rounds, medians, tables and plots.

Every figure is measured by this: wall and CPU time and peak RSS come from wait4, rounds are interleaved with a rotating
start, a round that other processes disturbed is repeated, and what is told is the median with the lowest and highest.
"""

import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RELEASE = ROOT / "build/release"
LIBRARY = RELEASE / "libhakmem.so"
# What others may have used of all processors while a program ran (a share, and a few ticks), else the run is repeated.
DISTURBED_SHARE = 0.05
DISTURBED_SECONDS = 0.03
REPEATS_MAX = 3

Run = namedtuple("Run", "wall cpu rss_kib status out err disturbed")
Summary = namedtuple("Summary", "median low high")


class Failed(Exception):
    """A program that was to be measured did not do what it should."""


class Refused(Exception):
    """What was asked for cannot be measured: the text is for whoever asked."""


def program(name):
    """The path of a benchmark program, as text."""
    return str(RELEASE / "bench" / name)


# ---- running ---------------------------------------------------------------------------------------------------------


def _busy_ticks():
    """Ticks that all processors were busy since the system's start, or that the host of this machine took away."""
    with open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, stat.readline().split()[1:])
    return user + nice + system + irq + softirq + steal


def _own_seconds():
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime


def run(command, env=None, check=True, stdin=None, cwd=None, limit=None):
    """Runs a command once. `env` is added to the environment; `stdin` is a path; what hangs is ended after `limit`
    seconds, with status 124. The peak RSS is that of the largest of its processes. With `check`, a status other than 0
    raises Failed."""
    # A process inherits the peak RSS of what called exec, here this interpreter: time(1) is smaller. `env` keeps a
    # preloaded library out of time(1) itself.
    assignments = [f"{name}={value}" for name, value in (env or {}).items()]
    with (tempfile.NamedTemporaryFile("r") as peak, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err,
          open(stdin or os.devnull, "rb") as source):
        ended = ["timeout", "--foreground", "-k", "5", str(limit)] if limit else []
        command = ["/usr/bin/time", "-q", "-f", "%M", "-o", peak.name, *ended, "env", *assignments, *map(str, command)]
        own, ticks, start = _own_seconds(), _busy_ticks(), time.monotonic()
        child = subprocess.Popen(command, stdin=source, stdout=out, stderr=err, cwd=cwd, process_group=0)
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except KeyboardInterrupt:
            os.killpg(child.pid, signal.SIGTERM)
            raise
        child.returncode = os.waitstatus_to_exitcode(status)  # else Popen would wait for it again
        wall = time.monotonic() - start
        cpu = usage.ru_utime + usage.ru_stime
        others = (_busy_ticks() - ticks) / os.sysconf("SC_CLK_TCK") - cpu - (_own_seconds() - own)
        out.seek(0)
        err.seek(0)
        result = Run(wall, cpu, int(peak.read() or 0), child.returncode, out.read().decode(errors="replace"),
                     err.read().decode(errors="replace"),
                     others > DISTURBED_SECONDS + DISTURBED_SHARE * wall * os.cpu_count())
    if check and result.status != 0:
        raise Failed(f"{' '.join(command)}: status {result.status}\n{result.err[-2000:]}")
    return result


_NUMBER = r"(-?[\d.]+(?:e[+-]?\d+)?)"


def figure_and_unit(text, name):
    """Number and unit in the line `NAME: NUMBER UNIT` of a program's output."""
    found = re.search(rf"(?m)^{re.escape(name)}: {_NUMBER}(?: (\S+))?", text)
    if not found:
        raise Failed(f"no line '{name}: NUMBER' in:\n{text[-500:]}")
    return float(found.group(1)), found.group(2) or ""


def figure(text, name):
    """The number in the line `NAME: NUMBER ...` of a program's output."""
    return figure_and_unit(text, name)[0]


def without_figures(text):
    """A program's output without such lines."""
    return re.sub(rf"(?m)^[\w.%-]+: {_NUMBER}(?: \S+)?\n", "", text)


def account(run):
    """What hakmem told at exit of a run with HAKMEM_STATS=json, for one process."""
    found = re.search(r'(?m)^\{"version":.*\}$', run.err)
    if not found:
        raise Failed(f"no statistics in:\n{run.err[-500:]}")
    return json.loads(found.group(0))


def interleave(cases, rounds, tell=None):
    """Runs every case (name: function without arguments that returns a Run) `rounds` times, one after the other, each
    round beginning with another. A disturbed run is repeated, up to REPEATS_MAX times. Returns name: list of Runs.
    `tell` is what the status line begins with, or a function that is called with round and name before each run."""
    names = list(cases)
    results = {name: [] for name in names}
    for number in range(rounds):
        for step in range(len(names)):
            name = names[(number + step) % len(names)]
            if callable(tell):
                tell(number + 1, name)
            elif tell:
                status(f"{tell}: round {number + 1} of {rounds}, {name}")
            for _ in range(REPEATS_MAX + 1):
                result = cases[name]()
                if not result.disturbed:
                    break
            results[name].append(result)
    return results


# ---- figures ---------------------------------------------------------------------------------------------------------


def summary(values):
    values = sorted(values)
    return Summary(statistics.median(values), values[0], values[-1])


def geometric_mean(values):
    return statistics.geometric_mean(values)


def ratio(values, others):
    """The ratio of two interleaved series, round by round: its median with the lowest and highest."""
    return summary([value / other for value, other in zip(values, others)])


# ---- writing ---------------------------------------------------------------------------------------------------------


_part, _start = "", time.monotonic()


def begin(part):
    """From now on status lines name the part of a longer whole, with the time since the start."""
    global _part
    _part = part


def status(text, last=False):
    """One line that tells what is going on: on a terminal overwritten by the next one, but for the last."""
    if _part:
        minutes, seconds = divmod(int(time.monotonic() - _start), 60)
        text = f"[{minutes}:{seconds:02} {_part}] {text}"
    if sys.stderr.isatty():
        print(f"\r{text[:119]:<119}", end="\n" if last else "", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


class TimeLeft:
    """How long the planned runs (key: how many) will take, going by those of the same key that were done, else by the
    mean of all, and by how many had to be repeated."""

    def __init__(self, planned):
        self.planned = dict(planned)
        self.took = {}
        self.begun = self.ended = 0

    def begin(self, key):
        self.planned[key] -= 1
        self.begun += 1

    def end(self, key, seconds):
        self.took[key] = seconds
        self.ended += 1

    def cancel(self, key):
        self.planned[key] = 0

    def __str__(self):
        if not self.took:
            return "? min left"
        mean = statistics.fmean(self.took.values())
        seconds = sum(runs * self.took.get(key, mean) for key, runs in self.planned.items())
        seconds *= max(1, self.ended / self.begun)
        return f"{seconds / 60:.0f} min left" if seconds > 90 else f"{seconds:.0f} s left"


def write_tsv(path, header, rows):
    """Raw figures: a line of names, then a line per row."""
    with open(path, "w", encoding="utf-8") as file:
        for row in [header, *rows]:
            print(*row, sep="\t", file=file)


def markdown_table(header, rows):
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [header, ["---"] * len(header), *rows]]
    return "\n".join(lines) + "\n"


def read_tsv(path):
    """The rows of such a file, each as name: text."""
    with open(path, encoding="utf-8") as file:
        header, *rows = (line.rstrip("\n").split("\t") for line in file)
    return [dict(zip(header, row, strict=True)) for row in rows]


def plot(path, script, size=(900, 480)):
    """Draws by gnuplot: `script` is all but terminal and output, which follow from the path (.svg or .png)."""
    kind = {".svg": "svg background 'white'", ".png": "pngcairo"}[Path(path).suffix]
    terminal = f"{kind} size {size[0]},{size[1]}"
    text = f"set terminal {terminal} noenhanced font 'sans,12'\nset output '{path}'\nset grid\n{script}\n"
    done = subprocess.run(["gnuplot"], input=text, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise Failed(f"gnuplot: {done.stderr}")


# ---- parts of the report -----------------------------------------------------------------------------------------------

# What a part of the report (bench/report/NAME.py, `section(out)`) returns: the text of its own chapter in Markdown, and rows
# of the chapters that belong to all: (workload, figure, before, after, gain) and (workload, before, after, gain).
Section = namedtuple("Section", "text comparison memory criteria")
# What production readiness is computed from. `evidence` says where it can be seen.
Criterion = namedtuple("Criterion", "name met evidence")
