"""Which layers the Larson commands reach, by the allocator's own statistics (part of the performance chapter)."""

import os
from pathlib import Path

import lab

QUICK = bool(os.environ.get("LAB_QUICK"))
SECONDS = 0.05 if QUICK else 1
# Sizes and threads of the documents' command, and of those that reach the layers it was meant to show.
RANGES = {"the documents'": (8, 128), "for the L2.5 pool": (32768, 1048576), "for BigCache": (1048576, 4194304)}
LAYERS = {"tiny": "Tiny", "mid": "Mid", "l25": "L2.5 pool", "big": "BigCache"}


def served(smallest, largest):
    """Blocks that each layer has handed out, to a thread's cache or to the program."""
    command = [lab.program("larson"), SECONDS, smallest, largest, 1024, 1, 12345, 4]
    account = lab.account(lab.run(command, env={"HAKMEM_STATS": "json", "LD_PRELOAD": str(lab.LIBRARY)}))
    return [account["layers"][layer]["served_blocks"] for layer in LAYERS]


def section(out):
    rows = []
    for name, (smallest, largest) in RANGES.items():
        lab.status(f"larson {name}")
        rows.append((name, f"larson {SECONDS} {smallest} {largest} 1024 1 12345 4", *served(smallest, largest)))
    lab.write_tsv(Path(out) / "reach-layers.tsv", ["which", "command", *LAYERS], rows)
    counts = dict(zip(LAYERS.values(), rows[0][2:]))
    missed = [layer for layer in ("L2.5 pool", "BigCache") if counts[layer] == 0]
    says = (f"The documents' Larson command never reached {' or '.join(missed)}: it can show nothing of that. "
            "The other two do." if missed else "Every layer was reached by the documents' Larson command.")
    table = lab.markdown_table(["command", "", *(f"{layer}, blocks served" for layer in LAYERS.values())], rows)
    return lab.Section(f"{says}\n\n{table}", [], [], [])
