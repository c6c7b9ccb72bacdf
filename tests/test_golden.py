"""What the code gives at fixed seeds is what was recorded; see tests/golden/make.py."""

from __future__ import annotations

import pytest
import torch

from tests.golden import make, names, wheel

BOUNDS = make.Golden(dict, relative=1e-3, absolute=1e-6)


def assert_as_recorded(name):
    lines = make.compare(name)
    more = f"\n... and {len(lines) - make.SHOWN} more" if len(lines) > make.SHOWN else ""
    assert not lines, f"{name}.json differs:\n" + "\n".join(lines[: make.SHOWN]) + more


@pytest.mark.mostly_slow("commands", "judge_prompts", "training_sets", "select", "wheel")
@pytest.mark.parametrize("name", sorted(set(make.GOLDENS) - {"public_names"}))
def test_what_is_made_at_fixed_seeds_is_what_was_recorded(name):
    if name == "adapters" and torch.cuda.is_available():
        pytest.skip("adapters were recorded on a CPU, and training takes the GPU that is here")
    assert_as_recorded(name)


def test_every_golden_file_is_compared():
    files = {path.stem for path in make.FOLDER.glob("*.json")}
    assert files == set(make.GOLDENS)


def test_the_recorded_commands_cover_every_outcome():
    cases = make.recorded("commands")
    assert set(cases) == {"status", "gate", "judge validate", "failures"}
    codes = {name: {case["exit_code"] for case in found.values()} for name, found in cases.items()}
    assert codes["gate"] == {0, 2, 10, 11, 12}  # as `ratchet gate --help` names them
    assert codes["judge validate"] == codes["failures"] == {0, 2}
    decisions = {
        case.get("output", {}).get("decision") for case in cases["judge validate"].values()
    }
    assert {"usable", "not usable", "not enough labels"} <= decisions
    found = [case["output"] for case in cases["failures"].values() if "output" in case]
    assert {bool(output["clusters"]) for output in found} == {True, False}


def test_the_recorded_wheel_holds_what_the_packages_hold():
    recorded = make.recorded("wheel")
    assert recorded[wheel.BUILT][wheel.PACKAGES] == recorded[wheel.PACKAGES]


@pytest.mark.parametrize(
    ("recorded", "found", "said"),
    [
        ({"a": [1, {"b": "x"}]}, {"a": [1, {"b": "x"}]}, []),
        ({"a": 1.0, "b": 0.0}, {"a": 1.0009, "b": 1e-7}, []),
        ({"a": 1.0}, {"a": 1.01}, ["/a: is 1.01, recorded is 1.0"]),
        ({"a": 1000}, {"a": 1001}, ["/a: is 1001, recorded is 1000"]),
        ({"a": 1}, {"a": True}, ["/a: is True, recorded is 1"]),
        ({"a": 1.0}, {"a": None}, ["/a: is None, recorded is 1.0"]),
        ({"a": 1, "b": 2}, {"b": 2, "c": 3}, ["/a: is gone", "/c: is new"]),
        ([1, 2], [1], [": has 1 entries, recorded are 2"]),
    ],
)
def test_a_difference_is_named_by_its_place(recorded, found, said):
    assert make.differences(recorded, found, BOUNDS) == said


def test_a_public_name_that_is_gone_is_told():
    recorded = {"ratchet.stats.intervals": ["wilson", "walrus"]}
    assert names.missing(recorded) == ["ratchet.stats.intervals.walrus"]
