"""Examples in docstrings are true: `>>>` lines run, and the calls of a module's example bind.

A module's docstring may show how its functions are called, as indented Python without `>>>`. Such
an example has no data to run on; its calls are held against the signatures of today.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from types import ModuleType

import pytest

import ratchet

MODULES = sorted(
    found.name
    for found in pkgutil.walk_packages(ratchet.__path__, "ratchet.")
    if not found.name.endswith("__main__")
)
EXAMPLE = re.compile(r"(?m)(?:^ {4,}\S.*\n?)+")
ASSIGNS_A_CALL = re.compile(r"^\s*\w[\w, ]* = \w+\(")


def calls_of_example(docstring: str) -> list[ast.Call]:
    """Return the calls of plain functions in the indented Python of a module's docstring.

    Raises:
        SyntaxError: An example that calls something is no Python.
    """
    found: list[ast.Call] = []
    for block in EXAMPLE.findall(docstring):
        try:
            tree = ast.parse(textwrap.dedent(block.strip("\n")))
        except SyntaxError:
            if ASSIGNS_A_CALL.match(block):
                raise
            continue  # YAML, a table, a reference
        found += [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in found if isinstance(call.func, ast.Name)]


def misfits(module: ModuleType) -> Iterator[str]:
    """Yield a line for each call of a module's example that its function would refuse."""
    for call in calls_of_example(module.__doc__ or ""):
        function = getattr(module, call.func.id, None)  # type: ignore[attr-defined]
        if not callable(function) or inspect.isclass(function):
            continue
        given = [word.arg for word in call.keywords if word.arg]
        signature = inspect.signature(function)
        is_whole = len(given) == len(call.keywords)  # else `**known` brings the rest
        try:
            bind = signature.bind if is_whole else signature.bind_partial
            bind(*call.args, **dict.fromkeys(given))
        except TypeError as error:
            yield f"{module.__name__}: {ast.unparse(call)}: {error}"


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0
    assert list(misfits(module)) == []


def test_examples_were_found() -> None:
    modules = [importlib.import_module(name) for name in MODULES]
    lines = [test for module in modules for test in doctest.DocTestFinder().find(module)]
    assert sum(len(test.examples) for test in lines) > 200
    shown = [call for module in modules for call in calls_of_example(module.__doc__ or "")]
    assert len(shown) > 40


def test_an_example_with_a_signature_that_is_gone_is_reported() -> None:
    module = ModuleType("planted")
    module.__doc__ = "Planted.\n\n    found = decide(scores, champion=old)\n"
    exec("def decide(scores, policy): ...", module.__dict__)
    assert len(list(misfits(module))) == 1
    module.__doc__ = "Planted.\n\n    found = decide(scores, policy)\n"
    assert list(misfits(module)) == []
    module.__doc__ = "Planted.\n\n    found = decide(scores, policy=..., ...)\n"
    with pytest.raises(SyntaxError):
        list(misfits(module))
