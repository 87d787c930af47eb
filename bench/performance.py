#!/usr/bin/env python3
"""Makes what follows from the raw figures of a comparison: summary, tables and charts beside them, and the generated parts
of documents. A line `<!-- table: NAME -->` or `<!-- chart: NAME -->` begins such a part, `<!-- end -->` ends it."""

import argparse
import os
import re
import sys
from pathlib import Path

import charts
import figures
import lab
import tables

DOCUMENTS = ["docs/PERFORMANCE.md", "README.md"]
PART = re.compile(r"(<!-- (table|chart): (\S+) -->\n)(.*?)(<!-- end -->\n)", re.DOTALL)


def derive(directory):
    """Writes all that follows from raw.tsv and about.tsv."""
    results = figures.Results(directory)
    for name in tables.TABLES:
        for suffix in (".svg", ".png"):
            (directory / (name + suffix)).unlink(missing_ok=True)
    figures.write_summary(results)
    tables.write(results)
    charts.write(results)
    return results


def _generated(kind, name, results, document):
    """The text of one part; the name of a table or chart of which there are no figures gives none."""
    if name not in tables.TABLES:
        raise lab.Refused(f"{document}: there is no {kind} {name}, but {', '.join(tables.TABLES)}")
    title, make = tables.TABLES[name]
    if kind == "table":
        return make(results)
    path = (results.directory / f"{name}.svg").resolve()
    return f"![{title}]({os.path.relpath(path, document.resolve().parent)})\n" if path.exists() else ""


def filled(document, results):
    """The text of a document with its generated parts made anew."""
    text = document.read_text(encoding="utf-8")
    if len(PART.findall(text)) != len(re.findall(r"<!-- (?:table|chart|end)\b", text)) / 2:
        raise lab.Refused(f"{document}: a part without its beginning or end")

    def part(found):
        begin, kind, name, _, end = found.groups()
        generated = _generated(kind, name, results, document)
        return f"{begin}\n{generated}\n{end}" if generated else begin + end

    return PART.sub(part, text)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a document is not as it would be made")
    parser.add_argument("directory", nargs="?", type=Path, default=lab.ROOT / "bench/results", help="otherwise bench/results")
    parser.add_argument("documents", nargs="*", type=Path, default=[lab.ROOT / name for name in DOCUMENTS],
                        help=f"otherwise {' and '.join(DOCUMENTS)}")
    asked = parser.parse_args()
    if not (asked.directory / "raw.tsv").exists():
        raise lab.Refused(f"{asked.directory} has no raw.tsv: make bench-results measures")
    results = figures.Results(asked.directory) if asked.check else derive(asked.directory)
    different = []
    for document in asked.documents:
        text = filled(document, results)
        if text != document.read_text(encoding="utf-8"):
            different.append(document)
            if not asked.check:
                document.write_text(text, encoding="utf-8")
    if asked.check and different:
        raise lab.Refused(f"not as made from {asked.directory}: {', '.join(map(str, different))}")


if __name__ == "__main__":
    try:
        main()
    except lab.Refused as refused:
        sys.exit(f"performance.py: {refused}")
