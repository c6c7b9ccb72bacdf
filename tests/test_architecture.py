"""The dependency rules of docs/architecture.md and the size budgets, read from the source.

Every checker takes `{module name: source}` and returns one line per violation, so that each can be
run on planted sources too: a check that cannot fail is a defect.
"""

from __future__ import annotations

import ast
import gc
import os
import re
import statistics
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# The rooms from the ground up: a room may import what stands before it and what its line names.
# Direct imports only; nothing is inherited. `ratchet` is the package's own __init__.
_BASE = {"errors", "records", "strict_json"}
ALLOWED: dict[str, set[str]] = {
    "ratchet": set(),
    "errors": set(),
    "strict_json": {"errors"},
    "records": {"errors", "strict_json"},
    "files": {"errors", "strict_json"},
    "prefect_api": {"errors"},
    "settings": {"errors", "prefect_api", "files"},
    "deployments": {"errors", "files"},
    "processes": set(),
    "executors": _BASE | {"processes"},
    "stats": {"errors"},
    "store": _BASE | {"files"},
    "models": _BASE | {"prefect_api", "files"},
    "tracking": _BASE | {"processes", "files"},
    "servers": {"errors", "prefect_api", "files", "settings", "processes", "deployments"},
    "simulation": _BASE | {"files", "models"},
    "outcomes": _BASE | {"stats"},
    "evaluation": _BASE | {"files", "stats", "models", "outcomes"},
    "judges": _BASE | {"executors", "files", "stats", "store", "models", "outcomes", "evaluation"},
    "safety": _BASE | {"files", "stats", "judges"},
    "review": _BASE | {"files", "stats", "store", "judges", "safety"},
    "collect": _BASE | {"files", "store", "processes", "review"},
    "doors": _BASE | {"files", "settings", "store", "tracking", "collect"},
    "analyze": _BASE
    | {
        "executors",
        "files",
        "stats",
        "store",
        "models",
        "outcomes",
        "evaluation",
        "judges",
        "safety",
        "review",
    },
    "improve": _BASE
    | {"executors", "processes", "files", "stats", "store", "models", "outcomes", "evaluation"}
    | {"safety"},
    "golden": _BASE
    | {"files", "store", "evaluation", "judges", "safety", "review"}
    | {"doors", "analyze", "improve"},
    "deploy": _BASE | {"files", "stats", "store", "tracking", "models", "evaluation", "judges"},
    "export": _BASE | {"files", "store", "models", "judges", "safety", "review", "improve"},
    "gateway": _BASE
    | {"files", "settings", "processes", "store", "models", "collect", "doors", "deploy"},
    "views": _BASE | {"files", "stats", "store"},
    "notify": _BASE | {"files", "settings", "processes", "store", "analyze", "views"},
    "operate": _BASE
    | {
        "files",
        "settings",
        "deployments",
        "prefect_api",
        "servers",
        "store",
        "tracking",
        "models",
        "judges",
        "analyze",
    }
    | {"improve", "golden", "deploy", "gateway"}  # it looks after what these keep
    | {"views", "notify"},  # it reminds people of what waits
    "web": _BASE
    | {"files", "settings", "processes", "servers", "stats", "store", "tracking", "evaluation"}
    | {"judges", "review", "analyze", "improve", "deploy", "gateway", "views", "notify", "operate"},
    "demo": _BASE
    | {"files", "settings", "servers", "store", "tracking", "models", "evaluation", "collect"}
    | {"deploy", "operate", "simulation"},
}
ROOMS = (*ALLOWED, "flows", "cli")  # in this order no import runs upward
UNITS = set(ROOMS)
ALLOWED["flows"] = UNITS - {"cli", "flows", "simulation", "demo"}  # production knows real users
ALLOWED["cli"] = UNITS - {"cli"}

TRAINING = ("torch", "transformers", "peft", "trl", "datasets", "accelerate", "huggingface_hub")
OWNERS: dict[str, set[str]] = {
    "prefect": {"flows"},
    "mlflow": {"tracking"},
    "sqlalchemy": {"store"},
    "duckdb": {"store"},
    "fsspec": {"store"},
    "scipy": {"stats"},
    "sklearn": {"analyze"},
    "regex": {"analyze"},
    "fastapi": {"gateway", "web"},
    "starlette": {"gateway", "web"},
    "uvicorn": {"gateway", "web"},
    "argon2": {"web"},
    "authlib": {"web"},
    "joserfc": {"web"},
    "aiohttp": {"gateway"},
    "google": {"gateway"},
    "opentelemetry": {"gateway"},
    "prometheus_client": {"gateway", "web"},
    "filelock": {"store", "models", "improve", "gateway", "operate"},
    "typer": {"cli"},
    "matplotlib": {"views"},
    "jinja2": {"views", "web"},
    "markdown_it": {"web"},
    "markupsafe": {"views", "web"},
    "apprise": {"notify"},
    "sacrebleu": {"evaluation"},
    "rouge_score": {"evaluation"},
    "ray": {"executors"},
    "rensa": {"improve"},
    "presidio_analyzer": {"safety"},
    "presidio_anonymizer": {"safety"},
    "tldextract": {"safety"},
    "gguf": {"models"},
    "xllamacpp": {"models"},
} | {name: {"models", "improve"} for name in TRAINING}
# pydantic for a flow's options, numpy for the seeded generator that a flow hands down.
FLOWS_THIRD_PARTY = {"prefect", "pydantic", "numpy"}
SLOW = {
    "gguf",
    "xllamacpp",
    *TRAINING,
    "mlflow",
    "ray",
    "sklearn",
    "scipy",
    "matplotlib",
    "apprise",
    "presidio_analyzer",
    "presidio_anonymizer",
    "tldextract",
    "pandas",
    "pyarrow",
    "duckdb",
    "safetensors",
    "sacrebleu",
    "rouge_score",
    "httpx",  # 0.08 s, of which settings alone need none
}
PASSES = {
    f"ratchet.flows.{name}"
    for name in ("analyze", "rollout", "_watch", "_canary", "_notify", "_runtime")
}
"""Flows that a schedule starts in a new process every few minutes: what only some passes need is
imported by those, and `test_a_pass_imports_nothing_heavy` holds the others to it."""
HEAVY_AT_START = ("torch", "mlflow", "prefect", "transformers", "pandas")

MODULE_LINES, FLOW_LINES, FUNCTION_LINES = 600, 200, 80
MEDIAN_FUNCTION_LINES, P90_FUNCTION_LINES = 15, 45
FEWEST_MODULES = 25

Sources = Mapping[str, str]
Function = ast.FunctionDef | ast.AsyncFunctionDef
HOLDERS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


# Reading ----------------------------------------------------------------------------------------


def module_name(path: Path, base: Path) -> str:
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_sources() -> dict[str, str]:
    files = [(path, ROOT / "src") for path in (ROOT / "src" / "ratchet").rglob("*.py")]
    found = {module_name(path, base): path.read_text("utf-8") for path, base in sorted(files)}
    # `src/ratchet/flows` is a link, which rglob does not follow
    for path in sorted((ROOT / "flows").rglob("*.py")):
        found[f"ratchet.{module_name(path, ROOT)}"] = path.read_text("utf-8")
    return found


def is_package(module: str, sources: Sources) -> bool:
    return any(other.startswith(module + ".") for other in sources)


def unit_of(module: str) -> str:
    top, _, rest = module.partition(".")
    return rest.partition(".")[0] if rest else top


@dataclass(frozen=True)
class Import:
    """An import statement's target: a module of this project, or a third-party top level."""

    importer: str
    target: str
    line: int
    in_function: bool
    for_types: bool

    @property
    def place(self) -> str:
        return f"{self.importer}:{self.line}"

    @property
    def top(self) -> str:
        return self.target.partition(".")[0]

    @property
    def is_own(self) -> bool:
        return self.top == "ratchet"


@cache
def parsed(source: str) -> ast.Module:
    """Parse a source. Looking for garbage among the nodes takes three times as long as parsing."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(source)
    finally:
        if collects:
            gc.enable()


@cache
def walked(source: str) -> tuple[ast.AST, ...]:
    """Return every node of a source; walking a tree costs more than parsing it."""
    return tuple(ast.walk(parsed(source)))


def dotted(node: ast.expr) -> str:
    """Return a node's source. Of names and their attributes it is `ast.unparse`, far faster."""
    names, inner = [], node
    while isinstance(inner, ast.Attribute):
        names.append(inner.attr)
        inner = inner.value
    if isinstance(inner, ast.Name):
        return ".".join([inner.id, *reversed(names)])
    return ast.unparse(node)


def imports(sources: Sources) -> tuple[Import, ...]:
    return _imports(tuple(sources.items()))


@cache
def _imports(items: tuple[tuple[str, str], ...]) -> tuple[Import, ...]:
    sources = dict(items)
    return tuple(found for module in sources for found in _imports_of(module, sources))


def _imports_of(module: str, sources: Sources) -> Iterator[Import]:
    for node, in_function, for_types in _placed(parsed(sources[module])):
        for target in _targets(node, module, sources):
            yield Import(
                importer=module,
                target=target,
                line=getattr(node, "lineno", 0),
                in_function=in_function,
                for_types=for_types,
            )


def _placed(tree: ast.AST) -> Iterator[tuple[ast.AST, bool, bool]]:
    """Yield each node with whether a function and `if TYPE_CHECKING` hold it, in one pass."""
    waiting = deque([(tree, False, False)])
    while waiting:
        node, in_function, for_types = waiting.popleft()
        yield node, in_function, for_types
        in_function = in_function or isinstance(node, HOLDERS)
        for_types = for_types or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        )
        waiting.extend((child, in_function, for_types) for child in ast.iter_child_nodes(node))


def _targets(node: ast.AST, module: str, sources: Sources) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = _absolute(node, module, sources)
        names = (f"{base}.{alias.name}" for alias in node.names)
        return list(dict.fromkeys(name if name in sources else base for name in names))
    if isinstance(node, ast.Call) and dotted(node.func).endswith(("import_module", "__import__")):
        first = node.args[0] if node.args else None
        is_text = isinstance(first, ast.Constant) and isinstance(first.value, str)
        return [str(first.value) if is_text else "<dynamic>"]  # type: ignore[union-attr]
    return []


def _absolute(node: ast.ImportFrom, module: str, sources: Sources) -> str:
    if not node.level:
        return node.module or ""
    package = module if is_package(module, sources) else module.rpartition(".")[0]
    for _ in range(node.level - 1):
        package = package.rpartition(".")[0]
    return f"{package}.{node.module}" if node.module else package


def functions(source: str) -> list[Function]:
    return [
        node for node in walked(source) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


# Checkers ---------------------------------------------------------------------------------------


def forbidden_units(sources: Sources) -> list[str]:
    found = []
    for item in imports(sources):
        importer, target = unit_of(item.importer), unit_of(item.target)
        if not item.is_own or importer == target:
            continue
        internal = importer == "cli" and re.match(r"ratchet\.flows\.(.*\.)?_", item.target)
        if target not in ALLOWED.get(importer, set()) or internal:
            found.append(f"{item.place}: {importer} must not import {item.target}")
    return found


BOX = {f"ratchet.evaluation.code_execution.{name}" for name in ("inside", "exchange", "packing")}
"""Sent into the sandbox and started there: they hand over modules of the standard library by name,
and what they import is part of the start of every program."""


def forbidden_packages(sources: Sources) -> list[str]:
    """Owners are who runs a package; to name its types is free."""
    found = []
    for item in imports(sources):
        importer = unit_of(item.importer)
        if item.is_own or item.for_types or item.top in sys.stdlib_module_names:
            continue
        foreign = importer == "flows" and item.top not in FLOWS_THIRD_PARTY
        if foreign or importer not in OWNERS.get(item.top, {importer}):
            found.append(f"{item.place}: {importer} must not import {item.top}")
        elif item.target == "<dynamic>" and item.importer not in BOX:
            found.append(f"{item.place}: a module's name must be written out to be imported")
    return found


def imports_in_functions(sources: Sources) -> list[str]:
    def allowed(item: Import) -> bool:
        late = unit_of(item.importer) == "cli" or item.importer in PASSES
        return item.top in SLOW or (late and item.is_own) or item.importer in BOX

    return [
        f"{item.place}: import {item.target} at the top, not in a function"
        for item in imports(sources)
        if item.in_function and not allowed(item)
    ]


def import_cycles(sources: Sources) -> list[str]:
    graph: dict[str, set[str]] = {module: set() for module in sources}
    for item in imports(sources):
        if item.target in graph and item.target != item.importer:
            graph[item.importer].add(item.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def oversized(sources: Sources) -> list[str]:
    found = []
    for module, source in sources.items():
        budget = FLOW_LINES if unit_of(module) == "flows" else MODULE_LINES
        if (lines := len(source.splitlines())) > budget:
            found.append(f"{module}: {lines} lines, at most {budget}")
        found += [
            f"{module}:{function.lineno}: {function.name} has {length(function)} lines, "
            f"at most {FUNCTION_LINES}"
            for function in functions(source)
            if length(function) > FUNCTION_LINES
        ]
    return found


def undocumented(sources: Sources) -> list[str]:
    found = []
    for module, source in sources.items():
        tree = parsed(source)
        if not ast.get_docstring(tree):
            found.append(f"{module}: no docstring")
        for name, node in _public(tree):
            is_init = name.endswith(".__init__")
            if not ast.get_docstring(node) and not is_init:
                found.append(f"{module}:{node.lineno}: {name} has no docstring")
            if not isinstance(node, ast.ClassDef) and not _is_annotated(node, method="." in name):
                found.append(f"{module}:{node.lineno}: {name} is not fully annotated")
    return found


def _public(node: ast.Module | ast.ClassDef) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Public functions, classes and methods with their dotted names; `__init__` is one."""
    for child in node.body:
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if child.name.startswith("_") and child.name != "__init__":
            continue
        yield child.name, child
        if isinstance(child, ast.ClassDef):
            yield from ((f"{child.name}.{name}", inner) for name, inner in _public(child))


def _is_annotated(function: Function, *, method: bool) -> bool:
    arguments = function.args
    listed = [*arguments.posonlyargs, *arguments.args]
    is_static = any(ast.unparse(node) == "staticmethod" for node in function.decorator_list)
    if method and not is_static:
        listed = listed[1:]
    listed += [*arguments.kwonlyargs, *filter(None, (arguments.vararg, arguments.kwarg))]
    return function.returns is not None and all(item.annotation for item in listed)


SINKS = {
    "print", "sys.stdout.write", "sys.stderr.write", "sys.stdout.buffer.write", "typer.echo",
    "typer.secho", "click.echo", "rich.print",
}  # fmt: skip
PRINTING = {"ratchet.cli.saying"}
"""What commands print goes through this module, which escapes it."""
WRITING = {"ratchet.flows.loop", "ratchet.flows._command", "ratchet.improve.training.worker"}
WRITING |= {"ratchet.web.drawing"}
"""Processes that others start; each line that they write names what escapes it."""


def prints(sources: Sources) -> list[str]:
    """Find what is printed past the escaping."""

    def escapes(node: ast.Call) -> bool:
        said = ast.unparse(node)
        return "{" not in said or "shown_line(" in said or "shown_text(" in said

    return [
        f"{module}:{node.lineno}: {dotted(node.func)}() past ratchet.cli.saying"
        for module, source in sources.items()
        if module not in PRINTING
        for node in walked(source)
        if isinstance(node, ast.Call)
        and dotted(node.func) in SINKS
        and not (module in WRITING and escapes(node))
    ]


ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
REDUCERS = {"sum", "min", "max", "abs", "round", "divmod"}


def arithmetic_in_flows(sources: Sources) -> list[str]:
    """Flows compose; what is computed is computed in the library, where commands share it."""

    def computes(node: ast.AST) -> bool:
        if isinstance(node, ast.BinOp | ast.AugAssign):
            return isinstance(node.op, ARITHMETIC)
        return isinstance(node, ast.Call) and dotted(node.func) in REDUCERS

    return [
        f"{module}:{getattr(node, 'lineno', 0)}: arithmetic in a flow"
        for module, source in sources.items()
        if unit_of(module) == "flows"
        for node in walked(source)
        if computes(node)
    ]


MACHINE_PATH = re.compile(
    r"(?<![\w.~})>-])/(?:home|root|Users|work|opt|mnt|private|media)/[\w.-]|\b[A-Z]:\\Users\\"
)


def machine_paths(texts: Mapping[str, str]) -> list[str]:
    return [
        f"{name}:{number}: names a path of one machine: {match.group()}..."
        for name, text in texts.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if (match := MACHINE_PATH.search(line))
    ]


# The project ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    return read_sources()


CHECKERS = [
    forbidden_units,
    forbidden_packages,
    imports_in_functions,
    import_cycles,
    oversized,
    undocumented,
    prints,
    arithmetic_in_flows,
]


@pytest.mark.parametrize("check", CHECKERS)
def test_the_project_keeps_the_rule(
    check: Callable[[Sources], list[str]], sources: dict[str, str]
) -> None:
    assert not check(sources), "\n".join(["", *check(sources)])


def test_the_whole_project_was_seen(sources: dict[str, str]) -> None:
    assert len(sources) >= FEWEST_MODULES
    assert len(imports(sources)) >= 4 * FEWEST_MODULES
    assert {"ratchet.records", "ratchet.store", "ratchet.collect.ingest"} <= set(sources)


def test_the_units_on_disk_are_the_known_ones(sources: dict[str, str]) -> None:
    on_disk = {unit_of(module) for module in sources}
    assert on_disk - UNITS == set(), "give the new unit its line in ALLOWED"
    assert UNITS - on_disk == set(), "a room that is gone keeps no line in ALLOWED"


def test_no_room_may_import_one_above_it() -> None:
    upward = [
        f"{room} may import {other}"
        for place, room in enumerate(ROOMS)
        for other in ALLOWED[room]
        if ROOMS.index(other) >= place
    ]
    assert upward == []


def test_functions_are_short_on_the_whole(sources: dict[str, str]) -> None:
    lengths = sorted(length(item) for source in sources.values() for item in functions(source))
    median, p90 = statistics.median(lengths), lengths[int(0.9 * len(lengths))]
    print(f"{len(lengths)} functions, median {median} lines, p90 {p90}, longest {lengths[-1]}")
    assert median <= MEDIAN_FUNCTION_LINES
    assert p90 <= P90_FUNCTION_LINES


@pytest.mark.parametrize("module", ["ratchet", "ratchet.cli"])
def test_starting_is_quick_because_nothing_heavy_is_imported(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({HEAVY_AT_START!r}) & set(sys.modules)))"
    assert _printed(code) == ""


@pytest.mark.mostly_slow("analyze")
@pytest.mark.parametrize("flow", ["analyze", "rollout"])
def test_a_pass_imports_nothing_heavy(flow: str) -> None:
    light = {"scipy", "pyarrow", "httpx"}  # the last one is Prefect's own
    heavy = [*sorted(SLOW - light), "scipy.stats", "ratchet.views.plots"]
    code = f"import sys, ratchet.flows.{flow}; print(*sorted(set({heavy!r}) & set(sys.modules)))"
    assert _printed(code) == ""


def _printed(code: str) -> str:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def tracked_texts() -> dict[str, str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout, so there is no list of tracked files")
    paths = [ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    texts = {}
    for path in paths:
        content = path.read_bytes() if path.is_file() else b""
        if b"\0" not in content:
            texts[str(path.relative_to(ROOT))] = content.decode("utf-8", "replace")
    return texts


def test_no_tracked_text_names_a_path_of_one_machine() -> None:
    texts = tracked_texts()
    assert len(texts) >= FEWEST_MODULES
    assert not machine_paths(texts), "\n".join(machine_paths(texts))


# The checkers themselves ------------------------------------------------------------------------

LONG_FUNCTION = "def f() -> None:\n" + "    x = 1\n" * FUNCTION_LINES
DOC = '"""Text."""\n'

PLANTED = [
    (forbidden_units, {"ratchet.analyze.x": "from ratchet.deploy import x"}, "deploy"),
    (forbidden_units, {"ratchet.analyze.x": "import ratchet.collect.ingest"}, "ratchet.collect"),
    (forbidden_units, {"ratchet.improve.x": "from ratchet.analyze.failures import f"}, "analyze"),
    (forbidden_units, {"ratchet.simulation.x": "from ratchet.stats import charts"}, "stats"),
    (forbidden_units, {"ratchet.stats.x": "from ratchet.records import Metric"}, "records"),
    (
        forbidden_units,
        {"ratchet.store": "from ratchet import settings", "ratchet.settings": ""},
        "s",
    ),
    (forbidden_units, {"ratchet.store": "from ratchet import __version__"}, "import ratchet"),
    (forbidden_units, {"ratchet.deploy.x": "from ..collect import ingest"}, "collect"),
    (
        forbidden_units,
        {"ratchet.store": "import ratchet.flows.loop"},
        "store must not import ratchet.flows.loop",
    ),
    (forbidden_units, {"ratchet.store": "from ratchet.cli import main"}, "ratchet.cli"),
    (forbidden_units, {"ratchet.flows.x": "from ratchet.cli import main"}, "ratchet.cli"),
    (forbidden_units, {"ratchet.cli": "from ratchet.flows._runtime import x"}, "flows._runtime"),
    (forbidden_units, {"ratchet.novel": "import ratchet.store"}, "novel must not import"),
    (forbidden_units, {"ratchet.stats": "if TYPE_CHECKING:\n  import ratchet.records"}, "records"),
    (forbidden_packages, {"ratchet.cli": "import prefect"}, "cli must not import prefect"),
    (forbidden_packages, {"ratchet.collect.x": "from sqlalchemy.orm import f"}, "sqlalchemy"),
    (forbidden_packages, {"ratchet.analyze.x": "def f():\n    import torch"}, "torch"),
    (forbidden_packages, {"ratchet.flows.x": "import scipy.stats"}, "flows must not import scipy"),
    (forbidden_packages, {"ratchet.cli": "import_module('mlflow.models')"}, "mlflow"),
    (forbidden_packages, {"ratchet.cli": "importlib.import_module(name)"}, "written out"),
    (imports_in_functions, {"ratchet.store": "def f():\n    import json"}, "import json"),
    (
        imports_in_functions,
        {"ratchet.store": "def f():\n    from ratchet import records"},
        "import ratchet",
    ),
    (imports_in_functions, {"ratchet.cli": "class A:\n  def f(self):\n    import json"}, "json"),
    (
        import_cycles,
        {
            "ratchet.a": "import ratchet.b",
            "ratchet.b": "def f():\n    from ratchet import c",
            "ratchet.c": "from ratchet.a import x",
        },
        "ratchet.b",
    ),
    (oversized, {"ratchet.store": "\n" * (MODULE_LINES + 1)}, "601 lines, at most 600"),
    (oversized, {"ratchet.flows.x": "\n" * (FLOW_LINES + 1)}, "201 lines, at most 200"),
    (oversized, {"ratchet.store": LONG_FUNCTION}, "f has 81 lines, at most 80"),
    (undocumented, {"ratchet.store": "x = 1"}, "ratchet.store: no docstring"),
    (undocumented, {"ratchet.store": DOC + "def f() -> None: ..."}, "f has no docstring"),
    (undocumented, {"ratchet.store": DOC + "class A:\n  x = 1"}, "A has no docstring"),
    (undocumented, {"ratchet.store": f"{DOC}def f():\n  {DOC}"}, "f is not fully annotated"),
    (undocumented, {"ratchet.store": f"{DOC}def f(*a) -> int:\n  {DOC}"}, "not fully annotated"),
    (
        undocumented,
        {"ratchet.store": f"{DOC}class A:\n  {DOC}  def f(self, x) -> int:\n    {DOC}"},
        "A.f is not fully annotated",
    ),
    (prints, {"ratchet.store": "def f():\n    print('x')"}, "print() past ratchet.cli.saying"),
    (prints, {"ratchet.cli.review": "print('x')"}, "print() past ratchet.cli.saying"),
    (prints, {"ratchet.cli.gate": "sys.stderr.write(x)"}, "sys.stderr.write() past"),
    (prints, {"ratchet.cli.gate": "typer.echo(x, err=True)"}, "typer.echo() past"),
    (prints, {"ratchet.flows.loop": "sys.stdout.write(f'{x}')"}, "sys.stdout.write() past"),
    (arithmetic_in_flows, {"ratchet.flows.x": "share = bad / all"}, "x:1: arithmetic"),
    (arithmetic_in_flows, {"ratchet.flows.x": "\ncount += 1"}, "x:2: arithmetic"),
    (arithmetic_in_flows, {"ratchet.flows.x": "longest = max(sizes)"}, "arithmetic"),
    (machine_paths, {"a.md": "see " + "/" + "home/someone/x"}, "a.md:1"),
    (machine_paths, {"a.md": "\nsqlite:///" + "/" + "opt/data.db"}, "a.md:2"),
    (machine_paths, {"a.md": "C:" + "\\Users\\someone"}, "C:"),
]


@pytest.mark.parametrize(("check", "planted", "expected"), PLANTED)
def test_a_planted_violation_is_reported(
    check: Callable[[Sources], list[str]], planted: dict[str, str], expected: str
) -> None:
    found = check(planted)
    assert len(found) == 1
    assert expected in found[0]


HARMLESS = [
    (arithmetic_in_flows, {"ratchet.flows.x": "tags = a | b", "ratchet.stats.x": "y = 1 + 1"}),
    (forbidden_units, {"ratchet.collect.x": "from ratchet.collect.y import z\nimport json"}),
    (forbidden_units, {"ratchet.cli": "import ratchet\nfrom ratchet.flows.loop import loop"}),
    (
        forbidden_units,
        {"ratchet.flows.x": "from ratchet.improve import training\nimport ratchet.flows.y"},
    ),
    (
        forbidden_packages,
        {"ratchet.flows.x": "import prefect.task_runners", "ratchet.store": "import yaml"},
    ),
    (forbidden_packages, {"ratchet.store": "if TYPE_CHECKING:\n    from torch import Tensor"}),
    (imports_in_functions, {"ratchet.models": "def f():\n    import torch.nn as nn"}),
    (imports_in_functions, {"ratchet.cli": "def f():\n    from ratchet.models import m"}),
    (
        import_cycles,
        {"ratchet": "", "ratchet.a": "import ratchet", "ratchet.b": "import ratchet.a"},
    ),
    (oversized, {"ratchet.store": "\n" * MODULE_LINES, "ratchet.flows.x": "\n" * FLOW_LINES}),
    (undocumented, {"ratchet.x": DOC + "def _f(): ...\nclass _A:\n  def g(self): ..."}),
    (
        undocumented,
        {"ratchet.x": f"{DOC}class A:\n  {DOC}  def __init__(self, x: int) -> None: ..."},
    ),
    (prints, {"ratchet.cli.saying": "print('x')", "ratchet.views.plots": "blueprint('x')"}),
    (machine_paths, {"a.md": "./work/x ~/work/x https://example.org/home/x </root> $HOME/opt/x"}),
]


@pytest.mark.parametrize(("check", "harmless"), HARMLESS)
def test_what_is_allowed_is_not_reported(
    check: Callable[[Sources], list[str]], harmless: dict[str, str]
) -> None:
    assert check(harmless) == []


def test_every_checker_has_a_planted_violation() -> None:
    assert {*CHECKERS, machine_paths} == {check for check, _, _ in PLANTED}
    assert {*CHECKERS, machine_paths} == {check for check, _ in HARMLESS}
