"""What of the machine a box sees: the Python that it runs, file by file, and nothing else.

The standard library without installed packages, the interpreter, the loader that starts it, and
the shared libraries that it and its modules load. Which these are is asked once of a Python of the
machine, which imports every module of its own that is no Python source.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path

from ratchet.errors import IsolationError

PYTHON = f"/python/bin/python{sysconfig.get_python_version()}"
_LIBRARIES = "/lib"
_PACKAGES = ("site-packages", "dist-packages")
_INTERPRETER_SEGMENT = 3  # PT_INTERP of elf.h
_LOADED_LATER = ("libgcc_s.so.1",)  # by the C library, where a thread ends early

_ASK = """
import importlib, os, sys
for folder in sys.path:
    if os.path.basename(folder) == "lib-dynload":
        for name in sorted(os.listdir(folder)):
            if name.startswith(("_tkinter", "_test", "_xx", "xx")):
                continue  # windows cannot be opened in a box
            try:
                importlib.import_module(name.partition(".")[0])
            except Exception:
                continue
found = {line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if "/" in line}
print("\\n".join(sorted(found)))
"""


@lru_cache(maxsize=1)
def interpreter_binds() -> tuple[str, ...]:
    """Return bwrap's options that show a box the interpreter at `PYTHON`.

    Raises:
        IsolationError: What it consists of cannot be found out.
    """
    program = Path(sys.base_prefix, "bin", Path(PYTHON).name).resolve()
    libraries = _shared_libraries(program)
    loader = _loader(program)
    version = Path(PYTHON).name
    home = {
        "stdlib": Path(sysconfig.get_path("stdlib")).resolve(),
        "platstdlib": Path(sys.base_exec_prefix, sys.platlibdir, version).resolve(),
    }
    options: list[str] = []
    # bwrap's own folders on the way are its user's alone
    folders = ["/python", "/python/bin", "/python/lib", f"/python/{sys.platlibdir}", _LIBRARIES]
    for folder in [*folders, *reversed(loader.parents[:-1] if loader else ())]:
        options += ["--perms", "0755", "--dir", str(folder)]
    options += ["--ro-bind", str(program), PYTHON]
    options += ["--ro-bind", str(home["stdlib"]), f"/python/lib/{version}"]
    if sys.platlibdir != "lib" and home["platstdlib"].is_dir():
        options += ["--ro-bind", str(home["platstdlib"]), f"/python/{sys.platlibdir}/{version}"]
    for name in _PACKAGES:
        if (home["stdlib"] / name).is_dir():
            place = f"/python/lib/{version}/{name}"
            options += ["--perms", "0555", "--tmpfs", place, "--remount-ro", place]
    for name, file in sorted(libraries.items()):
        link = name != file.name and file.name in libraries
        options += ["--symlink" if link else "--ro-bind", file.name if link else str(file)]
        options += [f"{_LIBRARIES}/{name}"]
    if loader is not None and str(loader.parent) != _LIBRARIES:
        options += ["--ro-bind", str(loader.resolve()), str(loader)]
    return (*options, "--setenv", "LD_LIBRARY_PATH", _LIBRARIES)


def _shared_libraries(program: Path) -> dict[str, Path]:
    """Shared libraries by each name that one may be looked for under."""
    done = subprocess.run(
        [str(program), "-I", "-S", "-c", _ASK],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd="/",
        env={"PATH": os.defpath}, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise IsolationError(
            "untrusted code runs only beside nothing but its Python, got a Python whose parts "
            f"cannot be found ({done.stderr.strip()[-200:]}); evaluate on another machine"
        )
    own = Path(sysconfig.get_path("stdlib")).resolve()
    files = {
        file
        for file in map(Path, done.stdout.splitlines())
        if ".so" in file.name and own not in file.parents and file.is_file()
    }
    found: dict[str, Path] = {}
    for folder in {file.parent for file in files}:
        for entry in os.scandir(folder):
            real = Path(os.path.realpath(entry.path)) if ".so." in entry.name else None
            if real in files or (real is not None and entry.name in _LOADED_LATER):
                found[entry.name] = real
    return found | {file.name: file for file in files}


def _loader(program: Path) -> Path | None:
    """The loader that a program of 64 bits names; None where it names none."""
    with program.open("rb") as file:
        head = file.read(64)
        offset, (size, count) = struct.unpack_from("=Q", head, 32)[0], struct.unpack_from(
            "=HH", head, 54
        )  # fmt: skip
        for place in range(count):
            file.seek(offset + place * size)
            kind, _, start = struct.unpack("=IIQ", file.read(16))
            file.seek(offset + place * size + 32)
            (length,) = struct.unpack("=Q", file.read(8))
            if kind == _INTERPRETER_SEGMENT:
                file.seek(start)
                return Path(os.fsdecode(file.read(length).rstrip(b"\0")))
    return None
