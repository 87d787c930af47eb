"""What all measurements here share: running programs, interleaved rounds, medians, tables and plots.

Every figure is measured by this: wall and CPU time and peak RSS come from wait4, rounds are interleaved with a rotating
start, a round that other processes disturbed is repeated, and what is told is the median with the lowest and highest.
"""

import json
import os
import re
import resource
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


def run(command, env=None, check=True, stdin=None, cwd=None):
    """Runs a command once. `env` is added to the environment; `stdin` is a path. The peak RSS is that of the largest of
    its processes. With `check`, a status other than 0 raises Failed."""
    # A process inherits the peak RSS of what called exec, here this interpreter: time(1) is smaller. `env` keeps a
    # preloaded library out of time(1) itself.
    assignments = [f"{name}={value}" for name, value in (env or {}).items()]
    with (tempfile.NamedTemporaryFile("r") as peak, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err,
          open(stdin or os.devnull, "rb") as source):
        command = ["/usr/bin/time", "-q", "-f", "%M", "-o", peak.name, "env", *assignments, *map(str, command)]
        own, ticks, start = _own_seconds(), _busy_ticks(), time.monotonic()
        child = subprocess.Popen(command, stdin=source, stdout=out, stderr=err, cwd=cwd)
        _, status, usage = os.wait4(child.pid, 0)
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


def figure(text, name):
    """The number in the line `NAME: NUMBER ...` of a program's output."""
    found = re.search(rf"(?m)^{re.escape(name)}: (-?[\d.]+(?:e[+-]?\d+)?)", text)
    if not found:
        raise Failed(f"no line '{name}: NUMBER' in:\n{text[-500:]}")
    return float(found.group(1))


def account(run):
    """What hakmem told at exit of a run with HAKMEM_STATS=json, for one process."""
    found = re.search(r'(?m)^\{"version":.*\}$', run.err)
    if not found:
        raise Failed(f"no statistics in:\n{run.err[-500:]}")
    return json.loads(found.group(0))


def interleave(cases, rounds, tell=None):
    """Runs every case (name: function without arguments that returns a Run) `rounds` times, one after the other, each
    round beginning with another. A disturbed run is repeated, up to REPEATS_MAX times. Returns name: list of Runs."""
    names = list(cases)
    results = {name: [] for name in names}
    for number in range(rounds):
        for step in range(len(names)):
            name = names[(number + step) % len(names)]
            if tell:
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


def status(text):
    """One line that tells what is going on: overwritten on a terminal."""
    if _part:
        minutes, seconds = divmod(int(time.monotonic() - _start), 60)
        text = f"[{minutes}:{seconds:02} {_part}] {text}"
    if sys.stderr.isatty():
        print(f"\r{text[:119]:<119}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def write_tsv(path, header, rows):
    """Raw figures: a line of names, then a line per row."""
    with open(path, "w", encoding="utf-8") as file:
        for row in [header, *rows]:
            print(*row, sep="\t", file=file)


def markdown_table(header, rows):
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [header, ["---"] * len(header), *rows]]
    return "\n".join(lines) + "\n"


def plot(path, script):
    """Draws by gnuplot: `script` is all but terminal and output, which follow from the path (.svg or .png)."""
    terminal = {".svg": "svg size 900,480 background 'white'", ".png": "pngcairo size 900,480"}[Path(path).suffix]
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
