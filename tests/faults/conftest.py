"""What every row of the fault matrix begins with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.ledger import Row, recorded
from tests.flows.conftest import served_once

__all__ = ["served_once"]  # a fixture


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        item.failed = True
    return report


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Iterator[Row]:
    """What a test came to; see `ledger`."""
    yield from recorded(request)
