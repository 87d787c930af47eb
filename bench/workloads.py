"""The table of workloads: what is run, and how its cost is read."""

import shlex
import shutil
import subprocess
import sys
from collections import namedtuple

import lab

TABLES = ["bench/workloads.tsv", "bench/real/workloads.tsv"]
INPUT = "build/bench/input/"
# Each point of a growth curve is a workload: its title is NAME@POINT. All other titles are names.
Workload = namedtuple("Workload", "title name group metrics command")
# So that a program does the same in every run, and asks malloc for all that it needs.
ENVIRONMENT = {
    "LC_ALL": "C",
    "TZ": "UTC",
    "PYTHONMALLOC": "malloc",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PERL_HASH_SEED": "0",
    "MAGICK_THREAD_LIMIT": "1",
}


def load():
    workloads = []
    for table in TABLES:
        for row in lab.read_tsv(lab.ROOT / table):
            name, group, metrics = row["name"], row["group"], tuple(row["metric"].split(","))
            *command, last = shlex.split(row["command"])
            for point in last.split(",") if group == "growth" else [last]:
                title = f"{name}@{point}" if group == "growth" else name
                workloads.append(Workload(title, name, group, metrics, (*command, point)))
    return workloads


def choose(wanted):
    """The workloads named in `wanted`, separated by commas: names, groups, or beginnings of names; `all` for all.
    Without it all but the growth curves."""
    every = load()
    if wanted == "all":
        return every
    if not wanted:
        return [workload for workload in every if workload.group != "growth"]
    chosen = []
    for word in wanted.split(","):
        found = [w for w in every if word in (w.name, w.title, w.group)]
        found = found or [w for w in every if word and w.name.startswith(word)]
        if not found:
            names = ", ".join(dict.fromkeys(w.name for w in every))
            raise lab.Refused(f"no workload, group or beginning of a name is '{word}': there are {names}")
        chosen += found
    return list(dict.fromkeys(chosen))


def command(workload):
    """What to run, in the root of the project: a program of ours or an installed one."""
    name, *rest = workload.command
    program = lab.RELEASE / "bench" / name
    if not program.is_file():
        program = shutil.which(lab.ROOT / name if "/" in name else name)
    if program is None:
        raise lab.Refused(f"{workload.title}: there is no program {name}: make bench-build builds ours, "
                          "ci/deps.sh bench installs the others")
    return [program, *rest]


def prepare(chosen):
    """Sees to it that all programs are there and generates the inputs that they read."""
    for workload in chosen:
        command(workload)
        for word in workload.command:
            if word.startswith(INPUT):
                path = lab.ROOT / word
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "wb") as file:
                    subprocess.run([sys.executable, lab.ROOT / "bench/real/generate.py", path.name], stdout=file, check=True)


def cost(metric, run):
    """A metric of a run with its unit: less is better."""
    inverse = metric.startswith("1/")
    if metric in ("cpu", "wall"):
        value, unit = getattr(run, metric), "s"
    else:
        value, unit = lab.figure_and_unit(run.out, metric.removeprefix("1/"))
    if value <= 0:
        raise lab.Failed(f"{metric} is {value}: nothing was measured")
    if inverse:
        value, unit = (1e9 / value, "ns") if unit.endswith("/s") else (1 / value, f"1/{unit}")
    return value, unit
