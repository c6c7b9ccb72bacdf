"""The bill of materials names what Ratchet needs to run, with licences, and nothing of the tests."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.sbom import BILL, LICENCES, licence_of, main, of_running


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


def test_what_only_tools_need_is_left_out_and_licences_are_listed(tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text(json.dumps(bill()), "utf-8")
    main(tmp_path / "all.json", tmp_path)
    kept = json.loads((tmp_path / BILL).read_text("utf-8"))
    assert [item["name"] for item in kept["components"]] == ["b", "c"]
    assert [item["ref"] for item in kept["dependencies"]] == ["a", "b", "c"]
    with (tmp_path / LICENCES).open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["package", "version", "licence"], ["b", "1", "MIT"], ["c", "1", "Apache-2.0"]]


def test_a_package_that_names_no_licence_is_told_as_unknown() -> None:
    assert licence_of({"name": "x"}) == "unknown"
    both = [{"license": {"id": "MIT"}}, {"license": {"name": "BSD"}}, {"license": {"id": "MIT"}}]
    assert licence_of({"licenses": both}) == "MIT AND BSD"


def test_a_bill_that_reaches_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="got nothing"):
        of_running({**bill(), "dependencies": []})
