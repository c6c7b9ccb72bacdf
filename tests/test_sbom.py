"""The bill of materials names what Ratchet needs to run, with licences, and no tools of tests."""

from __future__ import annotations

import pytest

from tests.sbom import installed, licence_of, licences, needed, of_running


def bill() -> dict[str, object]:
    """A bill of the shape that cyclonedx-py writes: a needs b, b needs c, and d is a tool."""
    names = {"b": {"expression": "MIT"}, "c": {"license": {"id": "Apache-2.0"}}, "d": {}}
    return {
        "bomFormat": "CycloneDX",
        "metadata": {"component": {"bom-ref": "a", "name": "ratchet-llm"}},
        "components": [
            {"bom-ref": name, "name": name, "version": "1", "licenses": [said] if said else []}
            for name, said in names.items()
        ],
        "dependencies": [
            {"ref": "a", "dependsOn": ["b"]},
            {"ref": "b", "dependsOn": ["c", "a"]},
            {"ref": "c"},
            {"ref": "d", "dependsOn": ["b"]},
        ],
    }


def test_only_what_is_needed_to_run_is_kept() -> None:
    kept = of_running(bill(), {"ratchet-llm", "b", "c"})
    assert [item["name"] for item in kept["components"]] == ["b", "c"]
    assert [item["ref"] for item in kept["dependencies"]] == ["a", "b", "c"]
    assert list(licences(kept)) == [("b", "1", "MIT"), ("c", "1", "Apache-2.0")]


def test_requirements_are_followed_with_the_extras_that_are_asked_for() -> None:
    said = {
        "ratchet-llm": ["B_x>=1", "tool; extra == 'dev'", "other; python_version < '3'"],
        "B_x": ["c[fast]"],
        "c": ["d; extra == 'fast'", "e; extra == 'slow'", "b.x"],
    }
    assert needed(said.get) == {"ratchet-llm", "b-x", "c", "d"}


def test_the_bill_of_this_environment_has_what_runs_and_no_tool() -> None:
    names = needed(installed)
    assert {"mlflow", "prefect", "torch", "sqlalchemy", "starlette"} <= names
    assert not {"pytest", "ruff", "mypy", "hypothesis", "cyclonedx-bom"} & names


def test_a_package_that_names_no_licence_is_told_as_unknown() -> None:
    assert licence_of({"name": "x"}) == "unknown"
    both = [{"license": {"id": "MIT"}}, {"license": {"name": "BSD"}}, {"license": {"id": "MIT"}}]
    assert licence_of({"licenses": both}) == "MIT AND BSD"


def test_a_bill_that_reaches_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="got nothing"):
        of_running(bill(), {"x"})
