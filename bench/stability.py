#!/usr/bin/env python3
"""Runs larson_hakmem with 4 threads many times over. A run counts if it ends with status 0, so with no block changed, and
has done something.
The last line is `N of N runs`; the exit status is 1 if one failed.
"""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import lab

# Smallest and largest size, of the documents' command.
TINY = (8, 128)


def larson(seconds, sizes=TINY, seed=12345):
    """The documents' command, for so many seconds."""
    return [lab.program("larson_hakmem"), str(seconds), *map(str, sizes), "1024", "1", str(seed), "4"]


def failure_of(command):
    """What went wrong in one run; None if nothing."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f"status {done.returncode}: {done.stderr.strip()[-500:]}"
    return None if lab.figure(done.stdout, "throughput") > 0 else "nothing was done"


def run_often(command, runs, at_a_time=2, tell="stability"):
    """Runs a command so often; returns what went wrong, a text for each run that failed."""
    failures = []
    with ThreadPoolExecutor(at_a_time) as pool:
        for number, failure in enumerate(pool.map(failure_of, [command] * runs), 1):
            if failure:
                failures.append(failure)
            if number % max(runs // 20, 1) == 0:
                lab.status(f"{tell}: {number} of {runs} runs, {len(failures)} failed")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=int, nargs="?", default=1000)
    parser.add_argument("seconds", type=float, nargs="?", default=0.05)
    parser.add_argument("--at-a-time", type=int, default=2)
    chosen = parser.parse_args()
    runs = chosen.runs
    failures = run_often(larson(chosen.seconds), runs, chosen.at_a_time)
    for failure in failures:
        print(failure)
    print(f"{runs - len(failures)} of {runs} runs")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
