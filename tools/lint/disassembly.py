#!/usr/bin/env python3
"""Reads the machine code of the libraries that users get: tools/lint/disassembly.py LIBRARY...

- calloc reaches no calloc: a compiler may turn malloc and memset inside it into a call of itself.
- The fast paths of malloc, operator new and free have no stack frame and stay within their budget of instructions.

The fast path is found by walking: from the entry, at each conditional jump both ways are tried, and of all ways that
read the thread's cache (%fs), store into it, and reach a `ret` without a call or a jump to another function, the shortest
and the longest count: for free the thread's own block, and another thread's. The slow path leaves by a tail call, so it is
none of these ways.
"""
import re
import subprocess
import sys

BUDGETS = {"malloc": [16], "free": [21, 25], "hak_malloc": [16], "hak_free": [21, 25], "_Znwm": [16]}
FRAME = re.compile(r"^(push|pop|sub +.*,%rsp|add +.*,%rsp|enter|leave|lea +.*,%rsp)\b|,%rsp$")
STORE = re.compile(r"(^(inc|dec|not|neg)\w* |,)(%[fg]s:)?-?(0x[0-9a-f]+)?\((?!%rsp)[^()]*\)$")
NO_STORE = ("cmp", "test", "bt ", "prefetch", "nop", "lea ")
NO_WORK = ("nop", "endbr64", "data16", "xchg %ax,%ax", "cs nop")


def functions(library):
    """{name: [(address, text)]} of the whole library; aliases of one address share their code."""
    listing = subprocess.run(["objdump", "-d", "--no-show-raw-insn", "-w", library], check=True, capture_output=True,
                             text=True).stdout
    code, by_address, current = {}, {}, None
    for line in listing.splitlines():
        head = re.match(r"^([0-9a-f]+) <(.+)>:$", line)
        if head:
            current = code.setdefault(head[2], [])
            by_address[int(head[1], 16)] = current
            continue
        body = re.match(r"^ +([0-9a-f]+):\t(.*?)\s*$", line)
        if body and current is not None:
            current.append((int(body[1], 16), re.sub(r"\s+", " ", body[2].split("#")[0]).strip()))
    symbols = subprocess.run(["nm", "--defined-only", "--format=posix", library], check=True, capture_output=True,
                             text=True).stdout
    for line in symbols.splitlines():
        name, kind, address = line.split()[:3]
        if kind in "tTwW" and int(address, 16) in by_address:
            code[name.split("@")[0]] = by_address[int(address, 16)]
    return code


def target_of(text):
    found = re.match(r"^(?:bnd |notrack )?(j\w+|call\w*) ([0-9a-f]+) <(.+?)(?:\+0x[0-9a-f]+)?>", text)
    return (int(found[2], 16), found[3]) if found else (None, None)


def fast_paths(body):
    """Every way from the entry to a `ret` inside this function, without calls and without going back."""
    index = {address: i for i, (address, _) in enumerate(body)}
    paths, pending = [], [(0, ())]
    while pending:
        i, path = pending.pop()
        while i < len(body):
            address, text = body[i]
            if address in path:
                break
            if not text.startswith(NO_WORK):
                path += (address,)
            opcode = text.removeprefix("bnd ").removeprefix("notrack ").split(" ")[0]
            if opcode in ("ret", "retq", "repz"):
                paths.append(path)
                break
            if opcode.startswith(("call", "ud2", "hlt")):
                break
            if opcode.startswith("j"):
                target = index.get(target_of(text)[0])
                if opcode.startswith("jmp"):
                    if target is None:
                        break
                    i = target
                    continue
                if target is not None:
                    pending.append((target, path))
            i += 1
    return paths


def stores(text):
    return not text.startswith(NO_STORE) and STORE.search(text) is not None


def calls_itself(code, name):
    """Whether a chain of direct calls and jumps leads from `name` back to its first instruction."""
    entry, seen, pending = code[name][0][0], set(), [name]
    while pending:
        for _, text in code.get(pending.pop(), ()):
            address, callee = target_of(text)
            if address == entry:
                return True
            if callee and callee not in seen:
                seen.add(callee)
                pending.append(callee)
    return False


def listing(body, path):
    return [f"    {address:x}: {body[address]}" for address in path]


def main():
    complaints = []
    for library in sys.argv[1:]:
        code = functions(library)
        imports = subprocess.run(["readelf", "-rW", library], check=True, capture_output=True, text=True).stdout
        if re.search(r"R_\w+(JUMP_SLO|GLOB_DAT)\w* .*\bcalloc\b", imports):
            complaints.append(f"{library}: calloc is called through the linker's table")
        for name in ("calloc", "hak_calloc"):
            if name not in code:
                complaints.append(f"{library}: no {name}")
                continue
            if calls_itself(code, name):
                complaints.append(f"{library}: {name} calls itself")
        if "checked" in library:  # the checked build does more per call, by design
            continue
        for name, budgets in BUDGETS.items():
            if name not in code:
                complaints.append(f"{library}: no {name}")
                continue
            body = dict(code[name])
            paths = [p for p in fast_paths(code[name])
                     if any("%fs:" in body[a] for a in p) and any(stores(body[a]) for a in p)]
            if not paths:
                complaints.append(f"{library}: {name} has no way through the thread's cache to `ret` without a call")
                continue
            framed = [p for p in paths if any(FRAME.search(body[a]) for a in p)]
            if framed:
                complaints.append(f"{library}: the fast path of {name} has a stack frame")
                complaints += listing(body, framed[0])
            for path, budget in zip((min(paths, key=len), max(paths, key=len))[-len(budgets):], budgets):
                if len(path) > budget:
                    complaints.append(f"{library}: a fast path of {name} has {len(path)} instructions, the budget is {budget}")
                    complaints += listing(body, path)
                elif not framed:
                    print(f"{library}: {name}: {len(path)} instructions of {budget}")
    print("\n".join(complaints), file=sys.stderr)
    return 1 if complaints else 0


sys.exit(main())
