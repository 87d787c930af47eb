"""Valgrind and ThreadSanitizer: the stress tests of both configurations, run again for this report (part of the readiness
chapter). `make valgrind-test tsan-test` run all of them."""

import os
import re
import subprocess
from collections import namedtuple
from pathlib import Path

import lab

QUICK = bool(os.environ.get("LAB_QUICK"))
# `headline` begins what the tool reports. Test scripts below build/t.
Tool = namedtuple("Tool", "name headline scripts")
TOOLS = [
    Tool("Valgrind", r"(?m)^#? ?==\d+== [A-Z0-9].*",
         ["valgrind/api_basic"] if QUICK else
         ["valgrind/api_basic", "valgrind/api_threads", "valgrind/api_fork", "valgrind/api_stats",
          "corpus-valgrind/fuzz_api"]),
    Tool("ThreadSanitizer", r"(?m)^.*WARNING: ThreadSanitizer.*",
         ["tsan/api_basic"] if QUICK else
         ["tsan/api_threads", "tsan/unit_heap", "tsan/unit_remote", "tsan/unit_meeting", "tsan/unit_tcache",
          "tsan/unit_l25_shards", "tsan/unit_bigcache", "corpus-tsan/fuzz_threads"]),
]


# What `make report` hands down, and another make must not have.
OF_MAKE = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")


def build(scripts):
    environment = {name: value for name, value in os.environ.items() if name not in OF_MAKE}
    done = subprocess.run(["make", "-s", *(f"build/t/{script}" for script in scripts)], cwd=lab.ROOT, env=environment,
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise lab.Failed(f"make: status {done.returncode}\n{done.stderr[-2000:]}")


def section(out):
    rows, criteria, texts = [], [], []
    for tool in TOOLS:
        lab.status(f"{tool.name}: building")
        build(tool.scripts)
        points, reports, failed = 0, [], []
        for script in tool.scripts:
            lab.status(f"{tool.name}: {script}")
            run = lab.run(["sh", lab.ROOT / "build/t" / script], check=False)
            output = run.out + run.err
            passed = len(re.findall(r"(?m)^ok \d", output))
            found = re.findall(tool.headline, output)
            rows.append((tool.name, script, passed, len(found), run.status))
            points += passed
            reports += found
            if run.status != 0 or passed == 0:
                failed.append(f"{script} (status {run.status})")
        evidence = f"{len(reports)} reports; {points} tests passed; programs: {len(tool.scripts)}"
        if failed:
            evidence += f"; failed: {', '.join(failed)}"
        criteria.append(lab.Criterion(f"{tool.name} clean", not reports and not failed, evidence))
        texts.append(f"{tool.name}: {evidence}." + "".join(f"\n\n    {report}" for report in reports[:5]))
    lab.write_tsv(Path(out) / "tools-tests.tsv", ["tool", "script", "tests_passed", "reports", "status"], rows)
    return lab.Section("\n\n".join(texts) + "\n", [], [], criteria)
