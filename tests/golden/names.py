"""Public names of the modules that become packages: each must stay importable from there."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

MODULES = (
    "ratchet.analyze.failures",
    "ratchet.analyze.monitoring",
    "ratchet.deploy.gate",
    "ratchet.evaluation.code_execution",
    "ratchet.models",
    "ratchet.records",
    "ratchet.stats.agreement",
    "ratchet.stats.comparisons",
    "ratchet.stats.control_charts",
    "ratchet.stats.intervals",
    "ratchet.stats.comparisons.power",
    "ratchet.stats.comparisons.sample_size",
)
NOT_PROMISED = {"logger"}


def golden_public_names(recorded: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return the public names of each module: those in its text, in `__all__` and recorded before.

    A recorded name leaves the record by hand alone.
    """
    return {
        name: sorted({*_public(importlib.import_module(name)), *recorded.get(name, ())})
        for name in MODULES
    }


def _public(module: ModuleType) -> set[str]:
    """What is defined at the top of a module without an underscore, or listed in `__all__`."""
    tree = ast.parse(Path(str(module.__file__)).read_text("utf-8"))
    found: set[str] = set(getattr(module, "__all__", ()))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [name for target in targets for name in ast.walk(target)]
            found |= {name.id for name in names if isinstance(name, ast.Name)}
    return {name for name in found - NOT_PROMISED if not name.startswith("_")}


def missing(recorded: Mapping[str, list[str]]) -> list[str]:
    """Return the recorded names that cannot be imported any more."""
    return [
        f"{module}.{name}"
        for module, names in recorded.items()
        for name in names
        if not hasattr(importlib.import_module(module), name)
    ]
