#!/usr/bin/env python3
"""Makes a finding small and gives it a name: fuzz/minimise.py FILE LOG DIRECTORY COMMAND...

COMMAND FILE must fail; LOG is what it said when it was found. Removes operations (or bytes, if the file is not of the
form of fuzz/ops.h) as long as what is said to be wrong stays the same: libFuzzer's own minimiser takes any failure for the
same. Saves DIRECTORY/regress-WHAT and prints its name; prints nothing if the same file is there already.
MINIMISE_TIME (20 s) bounds the time. A finding that does not come again is saved as it is, as regress-WHAT-flaky."""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

TRIES = 10  # with threads, a finding need not come each time
COMPLAINT = re.compile(
    r"fuzz: operation \d+ of \d+, (?:at the end: |t\d: (?:(?!: ).)*: )?(?P<fuzz>.*)|assertion failed: (?P<assert>.*) at |"
    r"(?P<tool>\w+Sanitizer: (?:data race|[\w-]+))|runtime error: (?P<ub>.*)|hakmem\[.*?\]: (?P<hakmem>.*)|libFuzzer: (?P<lib>[\w-]+)")


def what_of(text):
    """The first complaint, as part of a file name; None if there is none."""
    found = COMPLAINT.search(text)
    if found is None:
        return None
    words = next(group for group in found.groups() if group is not None)
    words = re.sub(r"0x[0-9a-f]+|\d+", "", words.lower())
    return re.sub(r"[^a-z]+", "-", words).strip("-")[:48].strip("-") or "unknown"


def complaint(command, data):
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            ended = subprocess.run([*command, file.name], capture_output=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            return "timeout"
    return what_of(ended.stderr.decode(errors="replace")) if ended.returncode != 0 else None


def shrink(data, fails, deadline):
    """Leaves out ever smaller pieces, from the end to the beginning."""
    is_ops = data[:2] == b"h\x01" and len(data) > 9
    head, unit = (9, 4) if is_ops else (0, 1)
    if is_ops and data[8] > 0 and len(data) - 9 >= data[8]:
        without = data[:8] + b"\0" + data[9 : len(data) - data[8]]
        if fails(without):
            data = without
    piece = max(1, (len(data) - head) // unit // 2)
    while piece > 0 and time.monotonic() < deadline:
        at = head + (len(data) - head) // unit * unit - piece * unit
        while at >= head and time.monotonic() < deadline:
            candidate = data[:at] + data[at + piece * unit :]
            if fails(candidate):
                data = candidate
            at -= piece * unit
        piece //= 2
    return data


def place_for(directory, name, data):
    """A path that is free, or None if one of this name has the same content."""
    for number in range(1, 1000):
        path = directory / (name if number == 1 else f"{name}-{number}")
        if not path.exists():
            return path
        if path.read_bytes() == data:
            return None
    return None


def main():
    file, log, directory, command = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), sys.argv[4:]
    data = pathlib.Path(file).read_bytes()
    deadline = time.monotonic() + float(os.environ.get("MINIMISE_TIME", "20"))
    what = next(filter(None, (complaint(command, data) for _ in range(TRIES))), None)
    if what is None:
        what = (what_of(pathlib.Path(log).read_text(errors="replace")) or "unknown") + "-flaky"
    else:
        data = shrink(data, lambda candidate: complaint(command, candidate) == what, deadline)
    path = place_for(directory, "regress-" + what, data)
    if path is not None:
        path.write_bytes(data)
        print(path)


if __name__ == "__main__":
    main()
