"""Parameters of tests of which only some run in `make test`, and all in `make test-all`."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import Any

import pytest


def mostly_slow(values: Iterable[Any], fast: Collection[Any]) -> list[Any]:
    """Return parameters that are slow ones but for those in `fast`."""
    return [
        value if value in fast else pytest.param(value, marks=pytest.mark.slow) for value in values
    ]


def examples(count: int) -> int:
    """Return how many examples of a property to draw: of `count`, `make test` draws a quarter."""
    return count // 4 if "PYTEST_XDIST_WORKER" in os.environ else count
