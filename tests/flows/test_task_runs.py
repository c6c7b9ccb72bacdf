"""No flow makes more than 200 task runs, whatever the data: its tasks are stages, not rows.

Read from the source: which function of `flows/` runs which task, and what is called in a loop. A
task run costs about a second (docs/decisions/0050), so what is called once a row or a shard is no
task. The counts of real runs are held by `test_several_machines.py`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import pytest

from tests.flows.prefect_home import ROOT

MOST = 200
LOOPS = {
    ("_judges", "run_judges", "assess"): 40,  # a judge of RATCHET_JUDGES, with all its questions
    ("_handover", "improve_for", "_handed_over"): 3,  # a machine that is lost is replaced so often
    ("_handover", "_handed_over", "run_deployment"): 1,  # and returned
}
"""What runs a task in a loop, and how often at most."""
Name = tuple[str, str]  # module, function
LOOPING = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass
class Function:
    """What a function calls by name, and whether it does so in a loop."""

    is_task: bool = False
    is_flow: bool = False
    calls: list[tuple[Name, bool]] = field(default_factory=list)


def _decorated(node: ast.FunctionDef, how: str) -> bool:
    return any(
        isinstance(name := one.func if isinstance(one, ast.Call) else one, ast.Name)
        and name.id == how
        for one in node.decorator_list
    )


def _names(module: str, tree: ast.Module) -> dict[str, Name]:
    """Return what each name of a module is: a function of its own, or of another of `flows`."""
    found: dict[str, Name] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ratchet.flows."):
            other = str(node.module).removeprefix("ratchet.flows.")
            found |= {one.asname or one.name: (other, one.name) for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "prefect.deployments":
            found |= {one.asname or one.name: ("prefect", one.name) for one in node.names}
    for top in tree.body:
        if isinstance(top, ast.FunctionDef):
            found[top.name] = (module, top.name)
        elif isinstance(top, ast.Assign) and isinstance(top.targets[0], ast.Name):
            found[top.targets[0].id] = (module, top.targets[0].id)
    return found


def _used(node: ast.AST, looped: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield each name that is read, and whether it stands in a loop.

    A name counts where it is read, not only where it is called: it may be handed on by `partial`,
    or be asked for `with_options`, `submit` or `map`.
    """
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield node.id, looped
    if isinstance(node, ast.For):  # what is looped over is read once
        yield from _used(node.iter, looped)
        for child in (node.target, *node.body, *node.orelse):
            yield from _used(child, True)
        return
    for child in ast.iter_child_nodes(node):
        yield from _used(child, looped or isinstance(node, LOOPING))


@cache
def functions() -> dict[Name, Function]:
    found = {("prefect", "run_deployment"): Function(is_task=True)}  # noted as one in its flow
    for path in sorted((ROOT / "flows").glob("*.py")):
        tree, module = ast.parse(path.read_text("utf-8")), path.stem
        names = _names(module, tree)
        for top in tree.body:
            if isinstance(top, ast.Assign) and isinstance(top.value, ast.Call):
                made = top.value.func
                is_task = isinstance(made, ast.Call) and ast.unparse(made).startswith("task(")
                found[names[ast.unparse(top.targets[0])]] = Function(is_task=is_task)
            if isinstance(top, ast.FunctionDef):
                used = [(names[name], at) for part in top.body for name, at in _used(part)
                        if name in names]  # fmt: skip
                found[module, top.name] = Function(
                    _decorated(top, "task"), _decorated(top, "flow"), used
                )
    return found


def loops() -> set[tuple[str, str, str]]:
    """Return what uses a task, or something that runs one, in a loop."""
    return {
        (*name, used[1])
        for name, function in functions().items()
        for used, looped in function.calls
        if looped and task_runs(used)
    }


def task_runs(name: Name, above: tuple[Name, ...] = ()) -> int:
    """Return how many task runs a call makes at most; a flow that is called counts as one too."""
    function = functions().get(name)
    if function is None or name in above:  # `_cycle` begins the next one once, at its gate
        return 0
    within = sum(
        task_runs(used, (*above, name)) * (LOOPS.get((*name, used[1]), 1) if looped else 1)
        for used, looped in function.calls
    )
    return within + (function.is_task or (function.is_flow and bool(above)))


FLOWS = sorted(name for name, function in functions().items() if function.is_flow)


def test_the_flows_and_tasks_are_found() -> None:
    assert {module for module, _ in FLOWS} == {
        "analyze", "approve", "collect", "deploy", "improve", "loop", "prune", "remind", "rollback",
        "rollout", "weekly",
    }  # fmt: skip
    tasks = {name for name, function in functions().items() if function.is_task}
    assert {("_training", "train"), ("_canary", "start"), ("_judges", "assess")} <= tasks
    text = "".join(path.read_text("utf-8") for path in (ROOT / "flows").glob("*.py"))
    assert len(tasks) == text.count("\n@task") + text.count(" = task(") + 1


def test_a_task_runs_once_a_stage_and_in_no_loop_over_data() -> None:
    assert loops() == set(LOOPS)


@pytest.mark.parametrize("name", FLOWS)
def test_no_flow_makes_more_task_runs_than_a_server_bears(name: Name) -> None:
    again = task_runs(("deploy", "deploy")) + 1 if name[0] == "loop" else 0  # a cycle is given up
    assert task_runs(name) + again <= MOST, task_runs(name)


def test_a_loop_of_tasks_would_be_found() -> None:
    tree = ast.parse("@task\ndef one(): ...\ndef all_of(rows):\n return [one(row) for row in rows]")
    (used,) = [use for use in _used(tree.body[1]) if use[0] == "one"]
    assert used == ("one", True)
    mapped = ast.parse("for row in rows(): one.submit(row)")
    assert list(_used(mapped)) == [("rows", False), ("one", True), ("row", True)]
