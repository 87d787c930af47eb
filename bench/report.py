#!/usr/bin/env python3
"""Measures and writes the report: docs/PHASE2C_IMPLEMENTATION_REPORT.md, with plots and raw figures in docs/report/.

Every part is a module of bench/report/ whose `section(out)` measures and returns a lab.Section. What it says is made of
what was measured; here the parts are put together, and production readiness is computed from all their criteria. Not
ready is what was not measured, too. `make report` builds what is needed first, and installs what is missing.

LAB_QUICK=1 makes all measurements short: for tests of the scripts, the figures mean nothing then.
Exit status: 0, also where a criterion is not met; 1 if a part could not be measured; 2 for wrong arguments.
"""

import argparse
import importlib.util
import os
import platform
import re
import sys
import traceback
from pathlib import Path

import lab

DOCUMENT = "PHASE2C_IMPLEMENTATION_REPORT.md"
PARTS_DIRECTORY = Path(__file__).resolve().parent / "report"
# In this order they are measured. Each has a chapter, or a place in one of the common chapters.
PARTS = ["bigcache", "l25", "tls", "superslab", "phase7", "reach", "memory", "tools"]
WITHOUT_CRITERIA = ["reach", "memory"]


def measure(name, out):
    """The Section of a part; what is wrong with it as text where there is none."""
    lab.begin(name)
    lab.status("begins")
    path = PARTS_DIRECTORY / f"{name}.py"
    if not path.exists():
        return f"there is no {path.name}"
    try:
        spec = importlib.util.spec_from_file_location(f"report_{name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        section = module.section(out)
        return section._replace(text=with_links(section.text, out))
    except lab.Failed as failed:
        return str(failed)
    except Exception:  # whatever else a part does wrong ends that part only
        return traceback.format_exc()


def with_links(text, out):
    """A part may link to what it left in `out` by the bare name; the document lies beside that directory."""
    def with_directory(link):
        return f"]({out.name}/{link[1]})" if (out / link[1]).exists() else link[0]
    return re.sub(r"\]\(([^()/]+)\)", with_directory, text)


# ---- the document ------------------------------------------------------------------------------------------------------


def body(name, sections):
    """What a part has to say."""
    section = sections.get(name, "it was not asked for")
    if isinstance(section, str):
        indented = "\n".join(f"    {line}" for line in section.splitlines())
        return f"The part `{name}` was not measured:\n\n{indented}\n"
    lines = section.text.strip().splitlines()
    if lines and lines[0].startswith("#"):  # the heading is ours
        del lines[0]
    return "\n".join(lines).strip() + "\n"


def common_table(sections, field, header):
    rows = [row for section in sections.values() if not isinstance(section, str) for row in getattr(section, field)]
    return lab.markdown_table(header, rows) if rows else "Nothing was compared.\n"


def all_criteria(sections):
    """Every part's criteria in order, and that the part was measured where it was not."""
    criteria = []
    for name in PARTS:
        section = sections.get(name, "it was not asked for")
        if isinstance(section, str):
            reason = section.strip().splitlines()[-1] if section.strip() else "no reason given"
            criteria.append(lab.Criterion(f"part `{name}` measured", False, reason))
        elif not section.criteria and name not in WITHOUT_CRITERIA:
            criteria.append(lab.Criterion(f"part `{name}` judged", False, "it has no criterion"))
        else:
            criteria += section.criteria
    return criteria


def is_ready(criteria):
    return bool(criteria) and all(criterion.met for criterion in criteria)


def readiness(criteria):
    unmet = [criterion.name for criterion in criteria if not criterion.met]
    verdict = ("**YES**: every criterion is met." if is_ready(criteria) else
               f"**NO**: {len(unmet)} of {len(criteria)} criteria are not met: {'; '.join(unmet)}.")
    rows = [[criterion.name, "yes" if criterion.met else "**no**", cell(criterion.evidence)] for criterion in criteria]
    return f"Ready for production: {verdict}\n\n{lab.markdown_table(['criterion', 'met', 'evidence'], rows)}"


def cell(text):
    return str(text).replace("|", "\\|").replace("\n", " ")


def first_line(path, key):
    """What follows KEY in the first line of a file that has it."""
    try:
        with open(path, encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith(key))
    except (OSError, StopIteration):
        return "unknown"


def machine():
    compiler = lab.run(["gcc", "-dumpfullversion"]).out.strip()
    return (f"{first_line('/proc/cpuinfo', 'model name')}, {len(os.sched_getaffinity(0))} cores, "
            f"{first_line('/proc/meminfo', 'MemTotal')} of memory, Linux {platform.release()}, "
            f"{' '.join(platform.libc_ver())}, gcc {compiler}")


def raw_data(out):
    """Links to all figures and logs in `out`."""
    return "".join(f"- [{path.name}]({out.name}/{path.name})\n" for path in sorted(out.iterdir())
                   if path.suffix in (".tsv", ".log", ".txt"))


def document(sections, where, out):
    criteria = all_criteria(sections)
    quick = ""
    if os.environ.get("LAB_QUICK"):
        quick = "\n**Made with LAB_QUICK=1, to test the scripts: the figures mean nothing.**\n"
    chapters = [
        ("BigCache: resize behaviour", body("bigcache", sections)),
        ("L2.5 pool: shard expansion", body("l25", sections)),
        ("Performance comparison", "Before is the same build with its limits set equal, or without what is named.\n\n"
         + common_table(sections, "comparison", ["workload", "figure", "before", "after", "gain"])
         + "\n" + body("reach", sections)),
        ("Memory usage", common_table(sections, "memory", ["workload", "before", "after", "gain"])
         + "\n### Overhead by layer\n\n" + body("memory", sections)),
        ("Production readiness", readiness(criteria) + "\n### Memory tools\n\n" + body("tools", sections)),
        ("TLS cache: adaptive sizing and pre-warm", body("tls", sections)),
        ("SuperSlab expansion and 4-thread stability", body("superslab", sections)),
        ("Phase 7", body("phase7", sections)),
        ("Raw data", raw_data(out)),
    ]
    text = f"""# Phase 2c implementation report

Ready for production: **{'YES' if is_ready(criteria) else 'NO'}** ([why](#5-production-readiness)).

Written by `make report`: every figure and every verdict is computed from what was measured.
Measured on: {where}.
{quick}"""
    for number, (title, content) in enumerate(chapters, 1):
        text += f"\n## {number} {title}\n\n{content}"
    return text


# ---- from the command line -----------------------------------------------------------------------------------------------


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these parts: {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, metavar="DIRECTORY", help="where plots and raw figures go, the document "
                        "beside it (default: docs/report; build/report where only some parts are named)")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.names if name not in PARTS]
    if unknown:
        parser.error(f"no part is called {', '.join(unknown)}")
    return chosen


def main():
    chosen = arguments()
    out = (chosen.out or lab.ROOT / ("build/report" if chosen.names else "docs/report")).resolve()
    out.mkdir(parents=True, exist_ok=True)
    where = machine()
    sections = {name: measure(name, out) for name in PARTS if not chosen.names or name in chosen.names}
    path = out.parent / DOCUMENT
    path.write_text(document(sections, where, out), encoding="utf-8")
    lab.begin("report")
    lab.status(f"written: {path}")
    failed = [name for name, section in sections.items() if isinstance(section, str)]
    for name in failed:
        print(f"{name}: {sections[name]}", file=sys.stderr)
    print(f"{path}: ready for production: {'YES' if is_ready(all_criteria(sections)) else 'NO'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
