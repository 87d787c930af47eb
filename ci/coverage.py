#!/usr/bin/env python3
"""What the tests executed, of all builds together: ci/coverage.py DIRECTORY REASONS

Reads DIRECTORY/export/BUILD.json and .info (llvm-cov export), prints one line per file of src/ and a total, then what no
build executed with the reason that REASONS gives, and writes DIRECTORY/html/index.html. Fails if REASONS lacks something
that was not executed or lists something that was, or if less than 98 % of the lines or 95 % of the branches were executed.

A branch is one side, true or false, of one operand of a condition, as llvm-cov counts them: constant conditions are none.
It is named by the place in the source, in a macro with the place where the macro is used. Of hak_assert(), the side on
which the assertion fails is no branch: it counts neither as executed nor as missing. That is one side of each operand:
if a test executes neither side of an operand, the other one is missing.

REASONS is paragraphs: a reason, then the entries it holds for, each on a line that starts with four spaces:
    FILE FUNCTION line: TEXT           a line, without the spaces before it
    FILE FUNCTION true: TEXT           a side of the operand TEXT; in a macro, of MACRO(ARGUMENTS): OPERAND
A reason that starts with "Timing:" is for what a test executes in some runs only.
"""
import collections
import html
import json
import os
import re
import subprocess
import sys

LINES_LEAST, BRANCHES_LEAST = 98.0, 95.0
TIMING = "Timing:"

Item = collections.namedtuple("Item", "file function what text")


class Sources:
    """The text of the source, and which function a line belongs to."""

    def __init__(self):
        self.texts = {}
        self.functions = collections.defaultdict(list)

    def lines(self, file):
        if file not in self.texts:
            with open(file, encoding="utf-8") as f:
                self.texts[file] = f.read().split("\n")
        return self.texts[file]

    def slice(self, file, start, end):
        """Columns are counted in bytes."""
        (line, column), (last, stop) = start, end
        rows = [row.encode() for row in self.lines(file)[line - 1:last]]
        rows[-1] = rows[-1][:stop - 1]
        rows[0] = rows[0][column - 1:]
        return re.sub(r"\s+", " ", b" ".join(rows).decode())

    def use(self, file, start):
        """A macro's name with its arguments."""
        text = "\n".join(self.lines(file)[start[0] - 1:])[start[1] - 1:]
        end = re.match(r"\w+", text).end()
        depth = int(text[end:end + 1] == "(")
        while depth > 0:
            end += 1
            depth += {"(": 1, ")": -1}.get(text[end], 0)
        return re.sub(r"\s+", " ", text[:end + 1] if text[end] == ")" else text[:end])

    def function_at(self, file, line):
        around = [f for f in self.functions[file] if f[0] <= line <= f[1]]
        return max(around)[2] if around else "-"


def relative(path):
    return os.path.relpath(path)


def in_source(file):
    return file.startswith("src/")


def own_name(function):
    """Without the file that stands before the name of a static function."""
    return function["name"].rsplit(":", 1)[-1]


def demangled(names):
    filtered = subprocess.run(["c++filt"], input="\n".join(names), check=True, capture_output=True, text=True).stdout
    return dict(zip(names, (re.sub(r"\(anonymous namespace\)::|\(.*", "", n) for n in filtered.split("\n"))))


def line_counts(path):
    """{(file, line): count} of one build."""
    counts, file = {}, None
    with open(path, encoding="utf-8") as f:
        for row in f:
            if row.startswith("SF:"):
                file = relative(row[3:].strip())
            elif row.startswith("DA:") and in_source(file):
                line, count = row[3:].split(",")[:2]
                counts[file, int(line)] = int(count)
    return counts


def expansion_sites(function):
    """{file number inside the function: where that macro is used, as (file number, start, end)}."""
    return {r[6]: (r[5], (r[0], r[1]), (r[2], r[3])) for r in function["regions"] if r[7] == 1}


def function_branches(function):
    """Yields (place, chain of uses, true count, false count): the place is (file, start, end), and so is each use."""
    files = [relative(name) for name in function["filenames"]]
    sites = expansion_sites(function)
    for l1, c1, l2, c2, true, false, number, _, _ in function["branches"]:
        place, uses = (files[number], (l1, c1), (l2, c2)), []
        while number in sites:
            number, start, end = sites[number]
            uses.append((files[number], start, end))
        yield place, tuple(uses), true, false


class Coverage:
    def __init__(self, directory):
        self.sources = Sources()
        self.lines = collections.Counter()     # (file, line): count
        self.branches = collections.Counter()  # (place, uses, number among equals, side): count
        self.builds = sorted(f[:-5] for f in os.listdir(directory) if f.endswith(".json"))
        for build in self.builds:
            self.read(os.path.join(directory, build))

    def read(self, base):
        for key, count in line_counts(base + ".info").items():
            self.lines[key] += count
        with open(base + ".json", encoding="utf-8") as f:
            functions = json.load(f)["data"][0]["functions"]
        names = demangled([own_name(f) for f in functions])
        for function in functions:
            file = relative(function["filenames"][0])
            if in_source(file):
                self.read_function(function, file, names)

    def read_function(self, function, file, names):
        body = function["regions"][0]
        name = names[own_name(function)]
        if (body[0], body[2], name) not in self.sources.functions[file]:
            self.sources.functions[file].append((body[0], body[2], name))
        equals = collections.Counter()
        for place, uses, true, false in function_branches(function):
            number = equals[place, uses]
            equals[place, uses] += 1
            self.branches[place, uses, number, "true"] += true
            self.branches[place, uses, number, "false"] += false

    def is_assert(self, uses):
        return any(self.sources.slice(*use) == "hak_assert" for use in uses)

    def drop_assertions(self):
        """Takes the failing side of each operand of an assertion out; returns how many there were."""
        dropped = 0
        for key in [k for k in self.branches if k[3] == "true" and self.is_assert(k[1])]:
            sides = [key[:3] + (side,) for side in ("true", "false")]
            fails = [s for s in sides if self.branches[s] == 0][-1:]
            for side in fails:
                del self.branches[side]
                dropped += 1
        return dropped

    def line_item(self, key):
        file, line = key
        return Item(file, self.sources.function_at(file, line), "line", self.sources.lines(file)[line - 1].strip())

    def branch_site(self, key):
        """The file and line where a branch counts: where the outermost macro is used."""
        place, uses = key[0], key[1]
        file, start, _ = uses[-1] if uses else place
        return file, start[0]

    def branch_item(self, key):
        place, uses, number, side = key
        file, line = self.branch_site(key)
        text = self.sources.slice(*place)
        if uses:
            text = self.sources.use(file, uses[-1][1]) + ": " + text + (f" ({number + 1})" if number else "")
        return Item(file, self.sources.function_at(file, line), side, text)


def read_reasons(path):
    """{item: reason}"""
    reasons, reason, entries_seen = {}, "", True
    with open(path, encoding="utf-8") as f:
        for number, row in enumerate(f, 1):
            entry = re.match(r" {4}(\S+) (\S+) (line|true|false): (.*)$", row)
            if entry:
                item = Item(*entry.groups())
                if item in reasons or not reason:
                    sys.exit(f"{path}:{number}: {'listed twice' if reason else 'no reason'}: {row.strip()}")
                reasons[item], entries_seen = reason, True
            elif row.startswith(" "):
                sys.exit(f"{path}:{number}: not an entry: {row.strip()}")
            elif row.strip() and not row.startswith("#"):
                reason = row.strip() if entries_seen else reason + " " + row.strip()
                entries_seen = False
    return reasons


def percent(part, whole):
    return 100 * part / whole if whole else 100.0


class Table:
    """Executed and all, of lines and branches, per file."""

    def __init__(self, coverage):
        self.rows = collections.defaultdict(lambda: [0, 0, 0, 0])
        for (file, _), count in coverage.lines.items():
            self.count(file, 0, count)
        for key, count in coverage.branches.items():
            self.count(coverage.branch_site(key)[0], 2, count)
        self.total = [sum(column) for column in zip(*self.rows.values())]

    def count(self, file, at, count):
        self.rows[file][at] += count > 0
        self.rows[file][at + 1] += 1

    def all(self):
        return sorted(self.rows.items()) + [("all", self.total)]

    def print(self):
        print(f"{'file':30} {'lines':>15} {'branches':>22}")
        for name, (a, b, c, d) in self.all():
            print(f"{name:30} {a:5} of {b:5} {percent(a, b):6.2f} % {c:5} of {d:5} {percent(c, d):6.2f} %")


def missing_items(coverage):
    """{item: its lines}"""
    missing = collections.defaultdict(set)
    for key, count in coverage.lines.items():
        if count == 0:
            missing[coverage.line_item(key)].add(key[1])
    for key, count in coverage.branches.items():
        if count == 0:
            missing[coverage.branch_item(key)].add(coverage.branch_site(key)[1])
    return missing


def existing_items(coverage):
    return {coverage.line_item(k) for k in coverage.lines} | {coverage.branch_item(k) for k in coverage.branches}


def shown(item):
    return f"{item.file} {item.function} {item.what}: {item.text}"


def print_missing(missing, reasons):
    by_reason = collections.defaultdict(list)
    for item in missing:
        by_reason[reasons.get(item, "NO REASON GIVEN")].append(item)
    print(f"\nNot executed: {len(missing)}")
    for reason, items in sorted(by_reason.items()):
        print(f"\n{reason}")
        for item in sorted(items):
            print(f"    {shown(item)}")


def problems(coverage, table, missing, reasons):
    found = [f"not executed, and no reason given: {shown(item)}" for item in sorted(missing) if item not in reasons]
    existing = existing_items(coverage)
    for item, reason in reasons.items():
        if item not in existing:
            found.append(f"the source has no such place: {shown(item)}")
        elif item not in missing and not reason.startswith(TIMING):
            found.append(f"a reason is given, but it was executed: {shown(item)}")
    a, b, c, d = table.total
    if percent(a, b) < LINES_LEAST:
        found.append(f"lines: {percent(a, b):.2f} %, fewer than {LINES_LEAST} %")
    if percent(c, d) < BRANCHES_LEAST:
        found.append(f"branches: {percent(c, d):.2f} %, fewer than {BRANCHES_LEAST} %")
    return found


def write_html(path, coverage, table, missing, reasons):
    rows = "".join(f"<tr><td>{name}<td>{a}<td>{b}<td>{percent(a, b):.2f} %<td>{c}<td>{d}<td>{percent(c, d):.2f} %\n"
                   for name, (a, b, c, d) in table.all())
    links = "".join(f"<li><a href='{build}/index.html'>{build}</a>\n" for build in coverage.builds)
    rest = "".join(f"<tr><td>{i.file}:{min(missing[i])}<td>{html.escape(i.function)}<td>{i.what}"
                   f"<td><code>{html.escape(i.text)}</code><td>{html.escape(reasons.get(i, 'NO REASON GIVEN'))}\n"
                   for i in sorted(missing))
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"""<!DOCTYPE html><meta charset="utf-8"><title>hakmem: coverage</title>
<style>td {{ padding: 0 1em 0 0; vertical-align: top }}</style>
<h1>What the tests execute</h1><p>All builds together. Annotated source, per build:<ul>{links}</ul>
<table><tr><th>file<th>lines<th>of<th><th>branches<th>of<th>\n{rows}</table>
<h2>Not executed</h2><table>{rest}</table>\n""")


def main():
    directory, reasons_path = sys.argv[1:]
    coverage = Coverage(os.path.join(directory, "export"))
    assertions = coverage.drop_assertions()
    table, missing, reasons = Table(coverage), missing_items(coverage), read_reasons(reasons_path)
    table.print()
    print_missing(missing, reasons)
    write_html(os.path.join(directory, "html", "index.html"), coverage, table, missing, reasons)
    print(f"\n{assertions} failing sides of assertions are not counted. HTML: {directory}/html/index.html")
    found = problems(coverage, table, missing, reasons)
    for problem in found:
        print(f"ci/coverage.py: {problem}", file=sys.stderr)
    sys.exit(1 if found else 0)


main()
