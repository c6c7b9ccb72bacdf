"""Write the golden files, or compare with them.

    python -m tests.golden.make             writes tests/golden/*.json
    python -m tests.golden.make --check     compares instead; exit code 1 where something differs
    python -m tests.golden.make --only judge_prompts

A golden file says what the code gave when it was written. Write one anew only where a change of
what it holds is wanted, and say so in the commit.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.golden import names, wheel
from tests.golden.commands import golden_commands
from tests.golden.curation import golden_curation
from tests.golden.prompts import golden_judge_prompts
from tests.golden.training import golden_adapters, golden_training_sets

FOLDER = Path(__file__).parent
SHOWN = 20


@dataclass(frozen=True)
class Golden:
    """How a golden file is made, and how near its numbers have to be.

    Attributes:
        make: Returns JSON-able values.
        relative: Largest difference of two numbers that are no whole ones, as a share.
        absolute: The same in their own unit, for numbers near 0.
    """

    make: Callable[[], Any]
    relative: float = 1e-6
    absolute: float = 1e-12


GOLDENS = {
    "commands": Golden(golden_commands),
    "curation": Golden(golden_curation),
    "training_sets": Golden(golden_training_sets),
    "adapters": Golden(golden_adapters, relative=1e-3, absolute=1e-4),
    "judge_prompts": Golden(golden_judge_prompts),
    "wheel": Golden(wheel.golden_wheel),
    "public_names": Golden(lambda: names.golden_public_names(recorded("public_names"))),
}


def recorded(name: str) -> Any:
    """Return what a golden file holds."""
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def compare(name: str) -> list[str]:
    """Make what a golden file holds anew and return where it differs; nothing where it does not."""
    golden, expected = GOLDENS[name], recorded(name)
    if name == "public_names":  # names may be added
        return [f"{one}: cannot be imported any more" for one in names.missing(expected)]
    if name == "wheel" and not wheel.can_build():
        expected.pop(wheel.BUILT)
    found = json.loads(json.dumps(golden.make()))
    return differences(expected, found, golden)


def differences(expected: Any, found: Any, near: Golden, place: str = "") -> list[str]:
    """Return the places where two JSON values differ, with both values."""
    if isinstance(expected, dict) and isinstance(found, dict):
        lines = [f"{place}/{key}: is gone" for key in expected if key not in found]
        lines += [f"{place}/{key}: is new" for key in found if key not in expected]
        for key in [key for key in expected if key in found]:
            lines += differences(expected[key], found[key], near, f"{place}/{key}")
        return lines
    if isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            return [f"{place}: has {len(found)} entries, recorded are {len(expected)}"]
        pairs = enumerate(zip(expected, found, strict=True))
        return [
            line for n, (one, two) in pairs for line in differences(one, two, near, f"{place}/{n}")
        ]
    if isinstance(expected, float) and isinstance(found, float):
        same = math.isclose(expected, found, rel_tol=near.relative, abs_tol=near.absolute)
    else:
        same = type(expected) is type(found) and expected == found
    return [] if same else [f"{place}: is {found!r}, recorded is {expected!r}"]


def write(name: str) -> None:
    """Write a golden file."""
    if name == "wheel" and not wheel.can_build():
        sys.exit("wheel.json is written from a built wheel; install hatchling, or take --only")
    (FOLDER / f"{name}.json").write_text(_text(GOLDENS[name].make()) + "\n", "utf-8")


def _text(value: Any) -> str:
    """Return JSON with a line for each entry, but for lists of plain values, which are one line."""
    text = json.dumps(value, indent=1, sort_keys=True)
    plain = re.compile(r"\[\s+([^\[\]{}]*?)\s+\]")
    short = plain.sub(lambda found: "[" + re.sub(r"\n *", " ", found[1]) + "]", text)
    return short if json.loads(short) == json.loads(text) else text


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or compare; return the exit code."""
    parser = argparse.ArgumentParser(description="Write the golden files, or compare with them.")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--only", choices=GOLDENS, action="append", help="these files alone")
    options = parser.parse_args(arguments)
    different = False
    for name in options.only or GOLDENS:
        if not options.check:
            write(name)
            print(f"{name}.json written")
            continue
        lines = compare(name)
        different |= bool(lines)
        print(f"{name}: {f'{len(lines)} differences' if lines else 'as recorded'}")
        for line in lines[:SHOWN]:
            print(f"    {line}")
    return int(different)


if __name__ == "__main__":
    sys.exit(main())
