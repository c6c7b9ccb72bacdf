"""The notebooks are valid, and their cells run from top to bottom."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

from tests.conftest import SHARED_DATA

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(
    path for path in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)
MOST_BYTES = 400_000
# What each says at the small size; lines that need the public data are marked.
SAYS = {
    "02_is_the_gate_honest": ["60 gates a line", "five metrics, one better is enough"],
    "03_judge_calibration": ["data: 349 runs", "called usable, 30 validations each"],
    "04_detection_delay": ["data: answers and", "months have a false alarm", "within 60 minutes"],
}

by_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str | None = None) -> list[dict[str, Any]]:
    found = json.loads(path.read_text("utf-8"))["cells"]
    return [cell for cell in found if kind in (None, cell["cell_type"])]


def source(cell: dict[str, Any]) -> str:
    text = cell["source"]
    return text if isinstance(text, str) else "".join(text)


def program(path: Path) -> str:
    return "\n\n".join(source(cell) for cell in cells(path, "code"))


def run(path: Path, monkeypatch: pytest.MonkeyPatch, **environment: str) -> None:
    """Run the code cells as one program, where Jupyter would, on the small size.

    They share no name with anything else, but the process of the tests, which has imported most of
    what they import; a warning of NumPy fails as an error does.
    """
    monkeypatch.chdir(path.parent)
    for name, value in {"RATCHET_NOTEBOOK_FAST": "1", **environment}.items():
        monkeypatch.setenv(name, value)
    backend = plt.get_backend()
    plt.switch_backend("Agg")
    try:
        with plt.rc_context(), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            exec(compile(program(path), path.name, "exec"), {"__name__": "__main__"})
    finally:
        plt.close("all")
        plt.switch_backend(backend)


def test_every_notebook_is_listed_with_what_it_says() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(SAYS)


@by_notebook
def test_a_notebook_is_valid(path: Path) -> None:
    notebook = json.loads(path.read_text("utf-8"))
    assert notebook["nbformat"] == 4
    assert notebook["nbformat_minor"] >= 5
    assert notebook["metadata"]["kernelspec"]["language"] == "python"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids) > 0
    assert all(re.fullmatch(r"[\w-]{1,64}", key) for key in ids)
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("markdown", "code")
        assert source(cell).strip()
        assert isinstance(cell["metadata"], dict)
        assert (cell["cell_type"] == "code") == ("outputs" in cell) == ("execution_count" in cell)


@by_notebook
def test_a_notebook_is_small_and_shows_no_error(path: Path) -> None:
    assert path.stat().st_size <= MOST_BYTES
    for cell in cells(path, "code"):
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr"


@by_notebook
def test_the_code_cells_compile(path: Path) -> None:
    for number, cell in enumerate(cells(path, "code"), start=1):
        compile(source(cell), f"{path.name}, code cell {number}", "exec")


@by_notebook
def test_a_notebook_imports_only_what_the_package_depends_on(path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    known = {re.split(r"[^\w-]", item)[0].replace("-", "_") for item in project["dependencies"]}
    imported = set()
    for node in ast.walk(ast.parse(program(path))):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported - sys.stdlib_module_names - known - {"ratchet", "flows"} == set()


@pytest.mark.slow
@by_notebook
def test_the_cells_run_from_top_to_bottom(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(path, monkeypatch)
    printed = capsys.readouterr().out
    for said in SAYS[path.stem]:
        if not said.startswith("data: ") or SHARED_DATA.is_dir():
            assert said.removeprefix("data: ") in printed


def test_without_the_real_log_the_rest_runs_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = ROOT / "notebooks" / "04_detection_delay.ipynb"
    run(notebook, monkeypatch, RATCHET_SHARED_DATA=str(tmp_path))
    printed = capsys.readouterr().out
    assert "The log is not there, so part 1 is skipped. Set RATCHET_SHARED_DATA" in printed
    assert "months have a false alarm" in printed
