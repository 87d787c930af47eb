"""The allocators that are compared, and the proof that a preloaded one is really in use."""

import re
import subprocess
import tempfile
from collections import namedtuple
from pathlib import Path

import lab

Allocator = namedtuple("Allocator", "name library")

# The peers that Debian has. name: (package, library)
PACKAGED = {
    "mimalloc": ("libmimalloc2.0", "libmimalloc.so.2"),
    "jemalloc": ("libjemalloc2", "libjemalloc.so.2"),
    "tcmalloc": ("libtcmalloc-minimal4", "libtcmalloc_minimal.so.4"),
}
BASE, FLOOR = "libc", "floor"
BASE_PACKAGED = ("libc6", "libc.so.6")
BUILT = {"hakmem": lab.LIBRARY, FLOOR: Path(lab.program("floor"))}
USUAL = [BASE, "hakmem", *PACKAGED, FLOOR]
REPLACED = ["malloc", "free", "calloc", "realloc", "aligned_alloc", "posix_memalign"]
FLOOR_BYTES = 8 << 30


def is_ours(name):
    return name.startswith("hakmem")


def is_peer(name):
    return name not in (BASE, FLOOR) and not is_ours(name)


# ---- choosing --------------------------------------------------------------------------------------------------------


def _installed(library):
    """Where the loader finds a library, or None."""
    cache = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    found = re.search(rf"(?m)^\s*{re.escape(library)} \(libc6.*\) => (\S+)$", cache)
    return Path(found.group(1)) if found else None


def _usual(name):
    if name in BUILT:
        if not BUILT[name].exists():
            raise lab.Refused(f"{BUILT[name]} is missing: build it with make libs bench-build")
        return Allocator(name, BUILT[name])
    # The C library is preloaded as well: so it also comes before an allocator that a program is linked with.
    package, library = PACKAGED.get(name, BASE_PACKAGED)
    path = _installed(library)
    if path is None:
        raise lab.Refused(f"{name}: {library} is not installed; it is in the package {package}: ci/deps.sh bench")
    return Allocator(name, path)


def _given(text):
    """PATH or NAME=PATH"""
    name, _, path = text.rpartition("=")
    path = Path(path).absolute()
    if not path.is_file():
        raise lab.Refused(f"{path}: there is no such library")
    if re.search(r"[\s:]", str(path)):
        raise lab.Refused(f"{path}: a path with a blank or colon cannot be preloaded")
    return Allocator(name or re.sub(r"^lib|\.so[\d.]*$", "", path.name), path)


def choose(wanted, peers):
    """The allocators named in `wanted`, separated by commas: usual names, paths, NAME=PATH, or names of `peers`, paths
    separated by colons. Without `wanted` all of them. The C library is always the first."""
    more = {allocator.name: allocator for allocator in map(_given, filter(None, peers.split(":")))}
    chosen = {BASE: _usual(BASE)}
    for word in wanted.split(",") if wanted else [*USUAL, *more]:
        if word in more:
            allocator = more[word]
        elif word in USUAL:
            allocator = _usual(word)
        elif "/" in word:
            allocator = _given(word)
        else:
            raise lab.Refused(f"no allocator is called '{word}': there are {', '.join([*USUAL, *more])}, or a path")
        if chosen.get(allocator.name, allocator) != allocator:
            raise lab.Refused(f"two allocators are called {allocator.name}: tell them apart by NAME=PATH")
        chosen[allocator.name] = allocator
    return list(chosen.values())


def _said(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=lab.ROOT).stdout.strip()


def version(allocator):
    """The version of its package, or of this project's sources, or the name of its file."""
    package, library = BASE_PACKAGED if allocator.name == BASE else PACKAGED.get(allocator.name, (None, None))
    if BUILT.get(allocator.name) == allocator.library:
        sources = ["--", "src", "include"]
        changed = _said("git", "status", "--porcelain", *sources)
        return f"this project, {_said('git', 'log', '-1', '--format=%h', *sources)}" + ("-dirty" if changed else "")
    if package and _installed(library) == allocator.library:
        return _said("dpkg-query", "-W", "-f", "${Package} ${Version}", package)
    return allocator.library.resolve().name


# ---- in use? ---------------------------------------------------------------------------------------------------------


def preloaded(allocator):
    """What preloads an allocator, for lab.run."""
    return {"LD_PRELOAD": str(allocator.library)}


def verify(allocator):
    """Refuses a library from which a program preloaded with it does not get its memory."""
    probed = lab.run([lab.program("probe")], preloaded(allocator), check=False)
    if probed.status != 0:
        raise lab.Refused(f"{allocator.library}: no program runs on it: status {probed.status}\n{probed.err[-500:]}".rstrip())
    origins = dict(re.findall(r"(?m)^(\w+): (.+)$", probed.out))
    for function in REPLACED:
        if not _same(origins[function], allocator):
            raise lab.Refused(f"{allocator.library} does not replace {function}: preloaded with it, a program calls that of "
                              f"{origins[function]}\n{probed.err[-500:]}".rstrip())
    if allocator.name != BASE and lab.figure(probed.out, "c_library") > 0:
        raise lab.Refused(f"{allocator.library} only passes malloc on to the C library's allocator")


def _same(path, allocator):
    return Path(path).exists() and Path(path).resolve() == allocator.library.resolve()


class Bindings:
    """The loader's own account of what it bound malloc and free to in each process of a run."""

    def __init__(self):
        self.directory = tempfile.TemporaryDirectory()
        self.env = {"LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": f"{self.directory.name}/process"}

    def verify(self, what, allocator):
        """Refuses a program that does not run on this allocator."""
        seen = False
        for process in Path(self.directory.name).iterdir():
            bound = re.findall(r"(?m)binding file (\S+) \[0\] to (\S+) \[0\]: normal symbol `(malloc|free)'",
                               process.read_text(encoding="utf-8", errors="replace"))
            # A function's address may be that of a jump in the program (in no library), bound like the program's own calls.
            right = {(file, function) for file, library, function in bound if _same(library, allocator)}
            jumps = {(file, function) for file, function in right if ".so" not in Path(file).name}
            for file, library, function in bound:
                if not _same(library, allocator) and (library, function) not in jumps:
                    raise lab.Refused(f"{what} is not on {allocator.name}: {file} calls {function} of {library}")
            seen = seen or bool(right)
        if not seen:
            raise lab.Refused(f"{what} is not on {allocator.name}: no process of it lets the loader bind malloc")
