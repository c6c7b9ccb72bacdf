"""Everything has an entrance: what nothing of the product reaches does not exist.

Entrances are the command, the deployments, the programs and the Python examples of README and docs,
the notebooks and the benchmarks, and the names that others import (tests/golden/public_names.json).
From there the analysis follows names: a definition that is reached reaches every definition that it
names; an imported module runs its own statements; a module whose name stands in a text (`python
-m`) runs as a program. A class is reached as a whole. Tests are no entrance.
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import pytest
import yaml

from ratchet.tracking.models import LOADER
from tests.benchmarks.statements import by_room, statements
from tests.test_architecture import ROOT, module_name, parsed, read_sources

WAITS = (
    "ratchet.stats.charts.e_detector",
    "ratchet.stats.charts.yardsticks",
    "ratchet.stats.comparisons.group_sequential",
    "ratchet.stats.experiments.confidence_sequences",
)
"""Modules that wait for their entrance, with what only they use."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Key = tuple[str, str]
"""A definition: its module and its name."""


# The analysis -------------------------------------------------------------------------------------


class Module:
    """A module's top level: what it defines, what it imports, and what it does when imported."""

    def __init__(self, source: str) -> None:
        self.tree = parsed(source)
        self.defined: dict[str, list[ast.AST]] = defaultdict(list)
        self.functions_and_classes: list[Function | ast.ClassDef] = []
        self.imports: list[ast.stmt] = []
        self.statements: list[ast.AST] = []
        self.program: list[ast.stmt] = []
        for node in _flat(self.tree.body):
            if isinstance(node, Function | ast.ClassDef):
                self.defined[node.name].append(node)
                self.functions_and_classes.append(node)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                self.imports.append(node)
            elif isinstance(node, ast.If):  # `if __name__ == "__main__"`; _flat opens any other
                self.program += node.body
            elif names := _assigned(node):
                for name in names:
                    self.defined[name].append(node)
            else:
                self.statements.append(node)


def _flat(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Return statements, those within `if`, `try` and `with` too."""
    for node in body:
        if isinstance(node, ast.If) and "__main__" not in ast.unparse(node.test):
            yield ast.Expr(node.test)
            yield from _flat([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            handled = [statement for handler in node.handlers for statement in handler.body]
            yield from _flat([*node.body, *handled, *node.orelse, *node.finalbody])
        elif isinstance(node, ast.With):
            yield from (ast.Expr(item.context_expr) for item in node.items)
            yield from _flat(node.body)
        else:
            yield node


def _assigned(node: ast.AST) -> list[str]:
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return []
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]


class Reach:
    """What is reached in the sources, from what was marked so far."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self.modules = {name: Module(source) for name, source in sources.items()}
        self.bound = {
            name: self._bound(module.imports, name) for name, module in self.modules.items()
        }
        self.reached: set[Key] = set()
        self._imported: set[str] = set()
        self._run: set[str] = set()
        self._waiting: list[tuple[str, ast.AST]] = []

    def mark(self, target: Key | str | None) -> None:
        """Reach a definition, or import a module."""
        if isinstance(target, str):
            self._import(target)
        elif target is not None and target not in self.reached:
            self.reached.add(target)
            self._import(target[0])
            self._waiting += [(target[0], n) for n in self.modules[target[0]].defined[target[1]]]
        while self._waiting:
            self._follow(*self._waiting.pop(), {})

    def mark_named(self, text: str) -> None:
        """Reach what a text names: `package.module` as a program, `package.module:name`."""
        module, colon, name = text.partition(":")
        if text in self.modules:
            self.run(text)
        elif colon and module in self.modules:
            self.mark(self.resolve(module, name))

    def run(self, module: str) -> None:
        """Run a module as `python -m` does."""
        package_main = f"{module}.__main__"
        for name in (module, package_main):
            if name in self.modules and name not in self._run:
                self._run.add(name)
                self._waiting += [(name, node) for node in self.modules[name].program]
                self.mark(name)

    def mark_all(self, module: str) -> None:
        """Reach all of a module: an example, a notebook, a benchmark."""
        self.run(module)
        for name in list(self.modules[module].defined):
            self.mark((module, name))

    def unreached(self) -> list[str]:
        return sorted(
            f"{name}.{node.name}"
            for name, module in self.modules.items()
            for node in module.functions_and_classes
            if (name, node.name) not in self.reached
        )

    def resolve(
        self, module: str, name: str, seen: frozenset[Key] = frozenset()
    ) -> Key | str | None:
        """Follow a name through imports to its definition, or to a module."""
        if module not in self.modules or (module, name) in seen:
            return None
        if name in self.modules[module].defined:
            return module, name
        bound = self.bound[module].get(name)
        if isinstance(bound, tuple):
            return self._from(*bound, seen | {(module, name)})
        if bound is None and f"{module}.{name}" in self.modules:
            return f"{module}.{name}"
        return bound

    def _from(self, module: str, name: str, seen: frozenset[Key] = frozenset()) -> Key | str | None:
        """What `from module import name` is: the module's own name before a module below it."""
        found = self.resolve(module, name, seen)
        below = f"{module}.{name}"
        return below if found is None and below in self.modules else found

    def _bound(self, imports: Iterable[ast.AST], module: str) -> dict[str, Key | str]:
        """Names that imports bind: to a module, or to a name of a module."""
        found: dict[str, Key | str] = {}
        for node in imports:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    whole = alias.name if alias.asname else alias.name.partition(".")[0]
                    found[alias.asname or whole] = whole
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                for _ in range(node.level):
                    base = f"{module.rpartition('.')[0]}.{base}".strip(".")
                for alias in node.names:
                    names = self._offered(base) if alias.name == "*" else [alias.name]
                    found |= {alias.asname or name: (base, name) for name in names}
        return found

    def _offered(self, name: str) -> list[str]:
        """Return what `from name import *` takes: what the module defines and imports."""
        module = self.modules.get(name)
        return [*module.defined, *self._bound(module.imports, name)] if module else []

    def _import(self, name: str) -> None:
        """Import a module: its packages, what it imports, and what it does at once."""
        if name not in self.modules or name in self._imported:
            return
        self._imported.add(name)
        self._import(name.rpartition(".")[0])
        module = self.modules[name]
        self._waiting += [(name, node) for node in module.statements]
        for target in self._bound(module.imports, name).values():
            self._import_target(target)
        for node in module.functions_and_classes:
            if any(self._is_ours(item, name) for item in node.decorator_list):
                self.mark((name, node.name))

    def _import_target(self, target: Key | str) -> None:
        for module in (target,) if isinstance(target, str) else (target[0], ".".join(target)):
            self._import(module)

    def _is_ours(self, decorator: ast.expr, module: str) -> bool:
        """Tell whether a decorator registers: it is ours, or a method of what is ours."""
        names = [node for node in ast.walk(decorator) if isinstance(node, ast.Name)]
        return bool(names) and isinstance(self.resolve(module, names[0].id), tuple)

    def _follow(self, module: str, node: ast.AST, scope: Mapping[str, Key | str | None]) -> None:
        """Reach what a node names; a function's own names and imports go before the module's."""
        if isinstance(node, Function | ast.Lambda):
            scope = {**scope, **self._own_names(node, module)}
        if isinstance(node, ast.Import | ast.ImportFrom):
            for target in self._bound([node], module).values():
                self._import_target(target)
        elif isinstance(node, ast.Name):
            self._reach(self._named(module, node.id, scope))
        elif isinstance(node, ast.Attribute):
            self._reach(self._attribute(module, node, scope))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            self.mark_named(node.value)
        for child in ast.iter_child_nodes(node):
            self._follow(module, child, scope)

    def _reach(self, target: Key | str | None) -> None:
        if isinstance(target, tuple) and target not in self.reached:
            self.reached.add(target)
            self._waiting += [(target[0], n) for n in self.modules[target[0]].defined[target[1]]]
        if target is not None:
            self._import(target if isinstance(target, str) else target[0])

    def _own_names(self, node: Function | ast.Lambda, module: str) -> dict[str, Key | str | None]:
        arguments = node.args
        listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        named = [*listed, *filter(None, (arguments.vararg, arguments.kwarg))]
        inner = [child for child in ast.walk(node) if child is not node]
        stored = [n.id for n in inner if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        defined = [n.name for n in inner if isinstance(n, Function | ast.ClassDef)]
        own: dict[str, Key | str | None] = dict.fromkeys(
            [*(argument.arg for argument in named), *stored, *defined]
        )
        bound = self._bound(inner, module)
        return own | {
            name: self._from(*target) if isinstance(target, tuple) else target
            for name, target in bound.items()
        }

    def _named(
        self, module: str, name: str, scope: Mapping[str, Key | str | None]
    ) -> Key | str | None:
        return scope[name] if name in scope else self.resolve(module, name)

    def _attribute(
        self, module: str, node: ast.Attribute, scope: Mapping[str, Key | str | None]
    ) -> Key | str | None:
        """What `module.name` is, where the left side is a module."""
        if isinstance(node.value, ast.Attribute):
            left = self._attribute(module, node.value, scope)
        elif isinstance(node.value, ast.Name):
            left = self._named(module, node.value.id, scope)
        else:
            return None
        return self._from(left, node.attr) if isinstance(left, str) else None


# The project --------------------------------------------------------------------------------------


def examples() -> dict[str, str]:
    """Return the sources of documented examples, notebooks and benchmarks, by module name."""
    found = {
        module_name(path, ROOT): path.read_text("utf-8")
        for path in (ROOT / "tests" / "benchmarks").glob("*.py")
    }
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        blocks = re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
        found |= {f"{path.name}#{number}": block for number, block in enumerate(blocks)}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        found[path.name] = re.sub(r"(?m)^[%!].*$", "", "\n".join(code))
    return found


def programs() -> list[str]:
    """Return the modules that README and docs have people run by `python -m`."""
    found: set[str] = set()
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for block in re.findall(r"```bash\n(.*?)```", path.read_text("utf-8"), re.DOTALL):
            found |= set(re.findall(r"\bpython -m (ratchet[\w.]+)", block))
    return sorted(found)


def entrances() -> list[str]:
    """Return the command, the deployments and documented programs, as texts name them."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))["deployments"]
    flows = [item["entrypoint"].rpartition(".") for item in deployments]
    box = "ratchet.evaluation.code_execution.inside"  # sent into the sandbox and started there
    inside = [f"{box}:run_tests", f"{box}:run_answer"]
    flow_names = [f"{module}:{name}" for module, _, name in flows]
    loader = f"{LOADER}:_load_pyfunc"  # MLflow imports it by the name in a version's MLmodel
    return [*scripts.values(), *flow_names, *inside, loader, *programs()]


@pytest.fixture(scope="module")
def project() -> Reach:
    """The project, from every entrance that it has today."""
    shown = examples()
    reach = Reach({**read_sources(), **shown})
    for entrance in entrances():
        reach.mark_named(entrance)
    for name in shown:
        reach.mark_all(name)
    recorded = json.loads((ROOT / "tests" / "golden" / "public_names.json").read_text("utf-8"))
    for module, names in recorded.items():
        for name in names:
            reach.mark(reach.resolve(module, name))
    return reach


def test_everything_has_an_entrance(project: Reach) -> None:
    without = [name for name in project.unreached() if name.rpartition(".")[0] in WAITS]
    assert {name.rpartition(".")[0] for name in without} == set(WAITS), (
        "what waits no longer is listed"
    )
    for module in WAITS:
        project.mark_all(module)
    found = project.unreached()
    assert not found, "give it an entrance or delete it:\n" + "\n".join(found)


def test_the_whole_project_was_seen(project: Reach) -> None:
    assert len(project.reached) > 3_000
    assert len(entrances()) >= 9
    kinds = {name.rpartition(".")[2].partition("#")[0] for name in examples()}
    assert {"ipynb", "md", "detection"} <= kinds


# The analysis itself ------------------------------------------------------------------------------


def unreached(sources: Mapping[str, str]) -> list[str]:
    """Return what is not reached from `main:run`."""
    reach = Reach(sources)
    reach.mark_named("main:run")
    return reach.unreached()


def test_a_planted_function_and_class_that_nothing_names_are_found() -> None:
    found = unreached(
        {
            "main": "from lib import used\ndef run(): used()",
            "lib": "def used(): ...\ndef planted(): ...\nclass Planted: ...\nunused = planted",
        }
    )
    assert found == ["lib.Planted", "lib.planted"]


def test_what_only_an_unreached_function_uses_is_found_too() -> None:
    lib = "def used(): ...\ndef planted(): inner()\ndef inner(): planted()"
    found = unreached({"main": "import lib\ndef run(): lib.used()", "lib": lib})
    assert found == ["lib.inner", "lib.planted"]


@pytest.mark.parametrize(
    "lib",
    [
        "def used(planted): return planted\ndef planted(): ...",
        "def used():\n  planted = 1\n  return planted\ndef planted(): ...",
        "def used(): return other.planted\nother = 1\ndef planted(): ...",
        "from else_where import planted as far\ndef used(planted=0): ...\ndef planted(): ...",
        "def used(): 'planted'\ndef planted(): ...\n__all__ = ['planted']",
        "if __name__ == '__main__':\n  planted()\ndef used(): ...\ndef planted(): ...",
    ],
)
def test_a_function_is_not_reached_by_another_thing_of_its_name(lib: str) -> None:
    main = "from lib import used\ndef run(): used()"
    assert unreached({"main": main, "lib": lib}) == ["lib.planted"]


def test_an_import_alone_reaches_nothing() -> None:
    main = "from lib import planted\ndef run(): ..."
    assert unreached({"main": main, "lib": "def planted(): ..."}) == ["lib.planted"]


REACHED = {
    "a call": {"main": "from lib import f\ndef run(): f()", "lib": "def f(): ..."},
    "an attribute of a module": {
        "main": "from pack import lib\ndef run(): lib.f()",
        "pack": "",
        "pack.lib": "def f(): ...",
    },
    "a dotted module": {
        "main": "import pack.lib\ndef run(): pack.lib.f()",
        "pack": "",
        "pack.lib": "def f(): ...",
    },
    "another name": {"main": "from lib import f as g\ndef run(): g()", "lib": "def f(): ..."},
    "an import in a function": {
        "main": "def run():\n  from lib import f\n  f()",
        "lib": "def f(): ...",
    },
    "an import in a function of the function's own name": {
        "main": "def run():\n  from lib import run\n  run()",
        "lib": "def run(): ...",
    },
    "a re-export": {
        "main": "from pack import f\ndef run(): f()",
        "pack": "from pack.lib import f",
        "pack.lib": "def f(): ...",
    },
    "a re-export of a relative import": {
        "main": "from pack import f\ndef run(): f()",
        "pack": "from pack.lib import f",
        "pack.lib": "from .deep import f",
        "pack.deep": "def f(): ...",
    },
    "a decorator of an application": {
        "main": "from lib import app\ndef run(): app()",
        "lib": "import typer\napp = typer.Typer()\n@app.command()\ndef f(): ...",
    },
    "a decorator of our own": {
        "main": "import lib\ndef run(): lib.every()",
        "lib": "def register(g): return g\ndef every(): ...\n@register\ndef f(): ...",
    },
    "a registration by a call": {
        "main": "from app import app\ndef run(): app()",
        "app": "from lib import f\napp = make()\napp.command()(f)",
        "lib": "def f(): ...",
    },
    "python -m": {
        "main": "def run(): start(['python', '-m', 'pack.worker'])",
        "pack": "",
        "pack.worker": "def main(): ...\nif __name__ == '__main__':\n  main()",
    },
    "python -m of a package": {
        "main": "def run(): start(['python', '-m', 'pack'])",
        "pack": "def f(): ...",
        "pack.__main__": "from pack import f\nif __name__ == '__main__':\n  f()",
    },
    "module:name": {"main": "def run(): serve('lib:app')", "lib": "def app(): ..."},
    "a dictionary of functions": {
        "main": "from lib import KINDS\ndef run(kind): KINDS[kind]()",
        "lib": "def f(): ...\nKINDS = {'f': f}",
    },
    "a method of a class": {
        "main": "from lib import Shop\ndef run(): Shop().sell()",
        "lib": "class Shop:\n  def sell(self): return f()\ndef f(): ...",
    },
    "a base class": {
        "main": "from lib import Shop\ndef run(): Shop()",
        "lib": "class Base: ...\nclass Shop(Base): ...",
    },
    "an annotation": {
        "main": "from lib import Shop\ndef run(shop: Shop) -> None: ...",
        "lib": "class Shop: ...",
    },
    "a default": {
        "main": "from lib import f\ndef run(how=f): ...",
        "lib": "def f(): ...",
    },
    "a statement of an imported module": {
        "main": "import lib\ndef run(): ...",
        "lib": "def f(): ...\nf()",
    },
    "a branch": {
        "main": "from lib import f\ndef run(): f()",
        "lib": "try:\n  import x\n  def f(): ...\nexcept ImportError:\n  def f(): ...",
    },
}  # fmt: skip


@pytest.mark.parametrize("way", REACHED)
def test_what_is_reached_is_not_reported(way: str) -> None:
    assert unreached(REACHED[way]) == []


@pytest.mark.parametrize("way", REACHED)
def test_without_the_entrance_each_of_them_is_reported(way: str) -> None:
    reach = Reach(REACHED[way])
    assert len(reach.unreached()) == sum(
        len(module.functions_and_classes) for module in reach.modules.values()
    )


def test_statements_are_counted_without_docstrings_however_lines_are_broken() -> None:
    plain = '"""Text."""\nx = 1\ndef f():\n    """Text."""\n    if x:\n        return (1,\n 2)\n'
    assert statements(plain) == 4  # x = 1, def, if, return
    assert by_room({"ratchet.stats.a": plain, "ratchet.store": "y = 2", "ratchet.stats.b": ""}) == {
        "stats": 4,
        "store": 1,
    }
